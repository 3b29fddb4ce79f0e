"""docs/healthcare.md does what it says."""

from __future__ import annotations

import copy
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModel

from dpacc.federated.healthcare.hospitals import hospitals_drawn, write_hospitals
from dpacc.federated.healthcare.vocabulary import small_vocabulary
from tests.dpacc.data.clinical.test_corpora import PUBTATOR
from tests.tiny_models import CONFIGURATIONS, tiny_tokenizer

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/healthcare.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_every_command_names_files_that_exist() -> None:
    """Recipes and configurations; that these are read tests/recipes/test_healthcare.py shows."""
    (block,) = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    words = [word for line in block.splitlines() for word in shlex.split(line)]
    named = [word for word in words if word.startswith("recipes/")]
    assert len(named) == 7
    assert all((ROOT / each).is_file() for each in named)


def test_corpora_are_read_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first block runs on files in the three formats."""
    (tmp_path / "corpus.PubTator.txt").write_text(PUBTATOR)
    (tmp_path / "note.txt").write_text("has chest pain\n")
    (tmp_path / "note.con").write_text('c="chest pain" 1:1 1:2||t="problem"')
    (tmp_path / "note.ann").write_text("T1\tReason 4 14\tchest pain")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(BLOCKS[0], "healthcare.md", "exec"), names)
    assert names["records"]
    found = [{"O", "B-problem", "I-problem"}, {"O", "B-Reason", "I-Reason"}]
    assert [{*names[each][0]["label"]} for each in ("concepts", "standoff")] == found  # type: ignore[index]


def test_the_scenario_trains_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second block runs a round of two hospitals, and prints a patient's ε."""
    vocabulary = small_vocabulary()
    hospitals = hospitals_drawn(vocabulary=vocabulary, count=2, fewest=8, most=8)
    write_hospitals(
        folder=tmp_path / "hospitals", hospitals=hospitals, vocabulary=vocabulary, held_out=2
    )
    tiny_tokenizer(["no", "syncope", "pruritus"]).save_pretrained(tmp_path / "model")
    torch.manual_seed(0)
    AutoModel.from_config(copy.deepcopy(CONFIGURATIONS["bert"])).save_pretrained(tmp_path / "model")
    clients = {each.name: {"epsilon": 5.0, "expected_batch_size": 4} for each in hospitals}
    (tmp_path / "budgets.yaml").write_text(yaml.safe_dump({"delta": 1e-3, "clients": clients}))
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[1], "healthcare.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "unit='patient'" in printed
    assert "'cardiology-north': 0" in printed


def test_every_setting_on_the_page_exists() -> None:
    """What is said to be set is a setting of the recipe or of a budget."""
    import dataclasses

    from dpacc.federated import DPSettings

    recipe = (ROOT / "recipes/healthcare.py").read_text()
    budgets = {field.name for field in dataclasses.fields(DPSettings)}
    said = {*re.findall(r"--(\w+)", PAGE), "notes_seed", "max_length", "unit_field"}
    assert {name for name in said if f"    {name}: " not in recipe} <= budgets
