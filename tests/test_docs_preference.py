"""The page on preferences: its program runs, its YAML is read, and what it refuses is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from datasets import Dataset
from dpacc_accounting import read_ledger
from peft import LoraConfig
from transformers import AutoTokenizer

from dpacc.recipe.config import TrainingConfig
from tests.tiny_models import save_tiny_llama, tiny_base, tiny_model

PAGE = (Path(__file__).parents[1] / "docs/preference.md").read_text()
WORDS = ["the", "film", "was", "good", "bad", "very", "dull", "fine"]


def block(language: str, *, with_word: str = "") -> str:
    found = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    (only,) = [each for each in found if with_word in each]
    return str(only)


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
    exec(compile(block("python", with_word="engine.steps"), "preference.md", "exec"), names)
    said, guarantee = capsys.readouterr().out.strip().split("\n", 1)
    assert re.fullmatch(r"\d+% ± \d+% of 1, margin [+-]\d\.\d{4}", said)
    assert "δ = 0.001" in guarantee
    assert len(read_ledger(path=tmp_path / "run/ledger.jsonl").releases) == 4


def test_trls_trainer_learns_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block on TRL, as it is: four charged steps."""
    pytest.importorskip("trl")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    save_tiny_llama(tmp_path / "base", words=WORDS)
    names = {
        "base": tiny_base("llama"),
        "lora": LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"),
        "tokenizer": AutoTokenizer.from_pretrained(tmp_path / "base"),
        "preferences": Dataset.from_list(
            [
                {"prompt": "the film", "chosen": f" was {a} {b}", "rejected": f" {b}"}
                for a in WORDS
                for b in WORDS[:3]
            ]
        ),
    }
    program = block("python", with_word="DPOTrainer").replace(
        "max_steps=4", "max_steps=4, bf16=False"
    )
    exec(compile(program, "preference.md", "exec"), names)
    assert len(read_ledger(path=tmp_path / "dpo/ledger.jsonl").releases) == 4


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
