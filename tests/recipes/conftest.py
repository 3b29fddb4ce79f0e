"""A tiny model with its texts, and the recipes that train on them and write, in this process."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dpacc.cli import terminal
from tests.recipes.training import RECIPE, WORDS, Train, as_arguments, settings, write_texts
from tests.scripts import load_script
from tests.tiny_models import save_tiny_llama

_DRAWN: list[bytes] = []


@pytest.fixture(autouse=True)
def drawn_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs share the first picture, a third of their time, but where `test_train` looks at it."""
    if request.path.name == "test_train.py" or "train" not in request.fixturenames:
        return
    from dpacc.artifacts import run_folder

    draw = run_folder.draw_progress

    def known(**named: Any) -> bytes:
        if not _DRAWN:
            _DRAWN.append(draw(**named))
        return _DRAWN[0]

    monkeypatch.setattr(run_folder, "draw_progress", known)


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
        if changes.get("resume") not in (None, "auto"):
            changes["resume"] = tmp_path / "runs" / str(changes["resume"])
        values = settings(material, tmp_path / "runs") | changes
        with terminal.one_line_errors():
            recipe.main(as_arguments(values))
        return tmp_path / "runs"

    return run


@pytest.fixture(scope="module")
def synthesis() -> ModuleType:
    """The recipe's own module, loaded from its file."""
    return load_script(RECIPE.with_name("synthesize.py"))


@pytest.fixture(scope="module")
def finished(recipe: ModuleType, material: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny finished run on plain texts, whose noise moved it by little."""
    runs = tmp_path_factory.mktemp("runs")
    with terminal.one_line_errors():
        recipe.main(as_arguments(settings(material, runs) | {"learning_rate": 1e-3, "steps": 2}))
    return runs / "tiny"


@pytest.fixture
def to_write(material: Path, finished: Path, tmp_path: Path) -> Callable[..., dict[str, object]]:
    """Settings for writing twelve records, with some changed."""

    def given(**changes: object) -> dict[str, object]:
        shared: dict[str, object] = {"run": finished, "output": tmp_path / "synthetic.jsonl"}
        shared |= {"records": 12, "batch_size": 5, "max_length": 24, "tries": 60}
        return settings(material, tmp_path / "none") | shared | changes

    return given


@pytest.fixture
def write(synthesis: ModuleType, to_write: Callable[..., dict[str, object]]) -> Callable[..., Path]:
    """Write synthetic records with some settings changed; the file."""

    def run(**changes: object) -> Path:
        values = to_write(**changes)
        synthesis.main(as_arguments(values))
        return Path(str(values["output"]))

    return run


@pytest.fixture
def forged(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "forged"))
