"""Code that a base brings along is never run, whatever a terminal answers."""

from __future__ import annotations

import ast
import io
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dpacc.errors import ConfigurationError
from dpacc.planning.architectures import read_architecture
from dpacc.planning.skeleton import build_skeleton
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.models import load_base
from tests.tiny_models import save_tiny_llama

ROOT = Path(__file__).parents[3]
SOURCES = sorted(
    path
    for folder in ("dpacc", "recipes", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
    if "from_pretrained" in path.read_text() or "from_config" in path.read_text()
)
OWN = """from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

Path({ran!r}).touch()

class OwnConfig(LlamaConfig): ...
class OwnModel(LlamaForCausalLM): ...
class OwnTokenizer(PreTrainedTokenizerFast): ...
"""


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where code leaves a mark that was run although it should not; every question gets a "y"."""
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 100))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "c"))
    return tmp_path / "ran"


def folder_with_code(tmp_path: Path, ran: Path, *, part: str) -> Path:
    """A tiny Llama whose configuration, model or tokenizer is code of its own."""
    folder = tmp_path / "model"
    save_tiny_llama(folder, words=["a", "b"])
    (folder / "own.py").write_text(OWN.format(ran=str(ran)))
    changed = folder / ("tokenizer_config.json" if part == "tokenizer" else "config.json")
    settings = json.loads(changed.read_text())
    maps: dict[str, Any] = {
        "configuration": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"},
        "tokenizer": {"AutoTokenizer": [None, "own.OwnTokenizer"]},
    }
    settings["auto_map"] = maps[part]
    settings["model_type" if part == "configuration" else "tokenizer_class"] = "OwnTokenizer"
    changed.write_text(json.dumps(settings))
    return folder


def planned(model: str) -> Any:
    config = TrainingConfig(model=model, train_data="", epsilon=1.0, expected_batch_size=1, steps=1)
    return build_skeleton(config=config, architecture=read_architecture(model=model))


@pytest.mark.parametrize("part", ["configuration", "tokenizer"])
@pytest.mark.parametrize("load", [lambda model: load_base(model=model), planned])
def test_a_folder_with_code_of_its_own_is_refused_though_somebody_says_yes(
    tmp_path: Path, ran: Path, part: str, load: Callable[[str], Any]
) -> None:
    """A base whose files ask for their own Python leaves no trace of it having run."""
    folder = folder_with_code(tmp_path, ran, part=part)
    with suppress(ConfigurationError):  # a plan reads no tokenizer, and needs no refusal
        load(str(folder))
    assert not ran.exists()


def test_a_configuration_that_asks_for_a_model_of_its_own_is_not_followed(
    tmp_path: Path, ran: Path
) -> None:
    """With a known type, and an unknown model beside it: the known one is built, or none."""
    folder = folder_with_code(tmp_path, ran, part="configuration")
    settings = json.loads((folder / "config.json").read_text())
    settings["model_type"] = "llama"
    del settings["auto_map"]["AutoConfig"]
    (folder / "config.json").write_text(json.dumps(settings))
    assert type(load_base(model=str(folder)).model).__module__.startswith("transformers.")
    planned(str(folder))
    assert not ran.exists()


def unanswered(tree: ast.AST) -> list[str]:
    """Calls of transformers' own loaders that leave it to a terminal to trust code."""
    found = []
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner = ast.unparse(node.func.value)
        loads = node.func.attr in ("from_pretrained", "from_config")
        if loads and owner.startswith(("Auto", "FAMILIES", "transformers.")):
            told = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if told.get("trust_remote_code") != "False":
                found.append(ast.unparse(node.func))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_loader_is_told_not_to_run_code(path: Path) -> None:
    """Each call that may load a model, a configuration or a tokenizer says so itself."""
    assert unanswered(ast.parse(path.read_text())) == []


def test_the_check_sees_a_loader_that_was_told_nothing() -> None:
    """The same walk finds a call without the word, and one with a True."""
    tree = ast.parse(
        "AutoModel.from_config(c)\nFAMILIES[t].from_pretrained(m, trust_remote_code=True)\n"
        "AutoTokenizer.from_pretrained(m, trust_remote_code=False)"
    )
    assert len(unanswered(tree)) == 2
