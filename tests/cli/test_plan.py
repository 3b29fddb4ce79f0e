"""`dpacc plan`: a table, a document, and errors that say what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.tiny_models import CONFIGURATIONS


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration of a tiny model and ten examples."""
    CONFIGURATIONS["llama"].save_pretrained(tmp_path / "model")
    (tmp_path / "train.jsonl").write_text('{"text": "a secret"}\n' * 10)
    path = tmp_path / "run.yaml"
    path.write_text(
        f"model: {tmp_path}/model\ntrain_data: {tmp_path}/train.jsonl\nmax_length: 32\n"
        "epsilon: 8\nexpected_batch_size: 4\nsteps: 3\n"
    )
    return path


def test_the_document_holds_the_plan(dpacc: Run, config: Path) -> None:
    """Examples are counted, settings overridden, four ways to spread it priced."""
    outcome = dpacc("plan", config, "--gpus", 4, "--lora_rank", 4, "--json")
    assert outcome.code == 0, outcome.err
    said = json.loads(outcome.out)
    assert said["dataset_size"] == 10
    assert said["noise_multiplier"] > 0
    assert said["guarantee"]["epsilon"] <= 8
    assert set(said["spreads"]) == {"whole", "zero2", "zero3", "fsdp2"}
    for spread in said["spreads"].values():
        assert sum(spread["parts_bytes"].values()) == spread["peak_bytes"] > 0
        assert spread["sent_bytes_per_step"]["bf16"] < spread["sent_bytes_per_step"]["fp32"]
    more = json.loads(dpacc("plan", config, "--lora_rank", 8, "--json").out)
    assert more["trainable_parameters"] == 2 * said["trainable_parameters"]
    assert "secret" not in outcome.out


def test_the_table_ends_with_a_launch_line(dpacc: Run, config: Path) -> None:
    """Noise, memory by part, and the line that starts the run."""
    outcome = dpacc("plan", config, "--gpus", 0)
    assert outcome.code == 0, outcome.err
    for words in ("noise multiplier σ", "add-or-remove", "optimizer", "launch_configs/cpu.yaml"):
        assert words in outcome.out


def test_too_little_memory_is_said_with_remedies(dpacc: Run, config: Path) -> None:
    """Nothing is recommended that would not fit."""
    outcome = dpacc("plan", config, "--memory-per-gpu", "100MB")
    assert outcome.code == 0
    assert "nothing fits; try" in outcome.out


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["--memory-per-gpu", "much"], "24GB"),
        (["--model", "./nowhere"], "check the path"),
        (["--lora_rnak", "4"], "did you mean lora_rank"),
        (["--train_data", "some/dataset"], "--dataset-size"),
        (["--lora_target_modules", "no_such"], "choose from"),
    ],
)
def test_mistakes_are_one_line_with_the_remedy(
    dpacc: Run, config: Path, words: list[str], remedy: str
) -> None:
    """Exit code 2, one line on stderr."""
    outcome = dpacc("plan", config, *words)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert remedy in outcome.err
