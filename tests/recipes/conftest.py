"""A tiny model with its texts, and the training recipe run on them in this process."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from dpacc.cli import terminal
from tests.recipes.training import RECIPE, WORDS, Train, as_arguments, settings, write_texts
from tests.scripts import load_script
from tests.tiny_models import save_tiny_llama


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and little files of private and held-out text."""
    folder = tmp_path_factory.mktemp("material")
    save_tiny_llama(folder / "model", words=WORDS)
    write_texts(folder / "private.jsonl", count=60)
    write_texts(folder / "held_out.jsonl", count=10, beginning="joy ")
    (folder / "empty.jsonl").write_text("")
    return folder


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    """The recipe's own module, loaded from its file."""
    return load_script(RECIPE)


@pytest.fixture
def train(recipe: ModuleType, material: Path, tmp_path: Path) -> Train:
    """Train in this process with some settings changed; return the folder of runs."""

    def run(**changes: object) -> Path:
        if "resume" in changes:
            changes["resume"] = tmp_path / "runs" / str(changes["resume"])
        values = settings(material, tmp_path / "runs") | changes
        with terminal.one_line_errors():
            recipe.main(as_arguments(values))
        return tmp_path / "runs"

    return run
