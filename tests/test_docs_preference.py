"""The page on preferences: its program runs, its YAML is read, and what it refuses is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from dpacc_accounting import read_ledger
from transformers import AutoTokenizer

from dpacc.recipe.config import TrainingConfig
from tests.tiny_models import save_tiny_llama, tiny_model

PAGE = (Path(__file__).parents[1] / "docs/preference.md").read_text()
WORDS = ["the", "film", "was", "good", "bad", "very", "dull", "fine"]


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    return str(found)


def test_the_program_trains_on_pairs_and_measures_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four charged steps, an accuracy with its error and margin, and the guarantee."""
    monkeypatch.chdir(tmp_path)
    save_tiny_llama(tmp_path / "base", words=WORDS)
    records = [
        {"prompt": f"the {a}", "chosen": f" was {b} {a}", "rejected": f" {b}"}
        for a in WORDS
        for b in WORDS[:4]
    ]
    names = {
        "model": tiny_model("llama"),
        "tokenizer": AutoTokenizer.from_pretrained(tmp_path / "base"),
        "records": records,
        "public_records": [{"prompt": "film", "chosen": " fine", "rejected": " dull dull"}],
    }
    exec(compile(block("python"), "preference.md", "exec"), names)
    said, guarantee = capsys.readouterr().out.strip().split("\n", 1)
    assert re.fullmatch(r"\d+% ± \d+% of 1, margin [+-]\d\.\d{4}", said)
    assert "δ = 0.001" in guarantee
    assert len(read_ledger(path=tmp_path / "run/ledger.jsonl").releases) == 4


def test_the_yaml_is_a_recipes() -> None:
    """With a model and a budget it is a whole configuration."""
    config = TrainingConfig(
        model="m", epsilon=8.0, expected_batch_size=8, steps=2, **yaml.safe_load(block("yaml"))
    )
    assert (config.task, config.unit, config.metric) == (
        "preference",
        "preference pair",
        "accuracy",
    )
