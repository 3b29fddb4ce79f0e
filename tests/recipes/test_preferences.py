"""The training recipe on preference pairs: trained, told, measured, merged, planned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dpacc.cli.main import dpacc
from dpacc.errors import ConfigurationError
from dpacc.federated.settings import Task
from dpacc.recipe.config import TrainingConfig
from tests.recipes.training import WORDS, Train, as_arguments, listed, settings
from tests.scripts import load_script

RECIPES = Path(__file__).parents[2] / "recipes"


def write_pairs(path: Path, *, count: int, beginning: str = "the") -> Path:
    """Pairs of twenty authors; long answers are chosen over short ones."""
    records = [
        {
            "prompt": f"{beginning} {WORDS[i % 7]}",
            "chosen": " " + " ".join(WORDS[i % 5 : i % 5 + 3 + i % 4]),
            "rejected": f" {WORDS[i % 11]} {WORDS[i % 3]}",
            "author": f"{beginning} {i % 20}",
        }
        for i in range(count)
    ]
    return listed(path, *records)


def everything(capsys: pytest.CaptureFixture[str]) -> str:
    """What was shown, without where its lines end."""
    shown = capsys.readouterr()
    return " ".join((shown.out + shown.err).split())


def test_a_pair_is_learned_and_told(
    train: Train,
    material: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From files to a card and a statement that name the pair; the evaluation says the same."""
    told: dict[str, Any] = {
        "task": "preference",
        "train_data": write_pairs(tmp_path / "private.jsonl", count=60),
        "held_out_data": write_pairs(tmp_path / "public.jsonl", count=10, beginning="joy"),
        "beta": 0.5,
        "learning_rate": 0.1,
        "lora_top_layers": 1,
        "cache_frozen_activations": True,
    }
    runs = train(**told)
    out = everything(capsys)
    assert "step 0: held-out accuracy 50.0%" in out
    assert "margin 0.0000" in out
    assert "60 private preference pairs" in out
    card = (runs / "tiny" / "README.md").read_text()
    assert "preference pairs (dpo)" in card
    assert "| beta | 0.5 |" in card
    assert "**Privacy unit:** one preference pair" in card
    assert "held-out accuracy" in card
    ledger = (runs / "tiny" / "ledger.jsonl").read_text()
    assert "joy" not in ledger
    evaluation = load_script(RECIPES / "evaluate.py")
    values = settings(material, tmp_path) | told | {"as_json": True}
    values = {name: value for name, value in values.items() if name != "cache_frozen_activations"}
    evaluation.main(as_arguments(values | {"adapter": runs / "tiny"}))
    found = json.loads(capsys.readouterr().out)
    assert f"{found['accuracy']:.1%}" in card
    assert found["margin"] != 0
    merging = load_script(RECIPES / "merge.py")
    merging.main(as_arguments({"adapter": runs / "tiny", "output": tmp_path / "merged"}))
    assert "preference pair" in (tmp_path / "merged/README.md").read_text()


def test_losses_without_a_reference_protect_authors(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SimPO with `unit_field`: twenty units of three pairs each."""
    pairs = write_pairs(tmp_path / "private.jsonl", count=60)
    train(
        task="preference",
        train_data=pairs,
        held_out_data="null",
        preference_loss="simpo",
        unit_field="author",
        expected_batch_size=5,
        steps=2,
    )
    assert "20 private authors" in everything(capsys)


def config(**settings: Any) -> TrainingConfig:
    needed = {"model": "m", "train_data": "t", "epsilon": 8.0, "expected_batch_size": 8, "steps": 2}
    return TrainingConfig(**needed | settings)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"task": "preference", "completion_field": "c"}, "completion_field"),
        ({"task": "preference", "messages_field": "m"}, "messages_field"),
        ({"task": "preference", "prompt_field": "a,b"}, "prompt_field=a,b"),
        ({"task": "preference", "labels": ("a", "b")}, "labels=a,b"),
        ({"task": "preference", "lora_method": "whitened", "held_out_data": "h"}, "whitened"),
        ({"task": "preference", "preference_loss": "ipo", "label_smoothing": 0.1}, "dpo's"),
        ({"task": "preference", "simpo_gamma": 0.5}, "simpo's"),
        ({"beta": 0.1}, "beta=0.1 with task=causal-lm"),
        ({"preference_loss": "ipo"}, "preference_loss=ipo with task=causal-lm"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    settings: dict[str, Any], named: str
) -> None:
    """Each by its name, with what to do."""
    with pytest.raises(ConfigurationError, match=named):
        config(**settings)


def test_what_compares_no_answers_says_so() -> None:
    """Sweeps, audits and federations have no form for pairs, and name who has."""
    with pytest.raises(ConfigurationError, match=r"federation.*recipes/train.py"):
        Task(fields={"task": "preference"})
    needed = {"model": "m", "train_data": "t", "epsilon": 8.0, "expected_batch_size": 8, "steps": 2}
    for name, kind, more in (
        ("sweep", "SweepConfig", {"vary": ("beta=1 2",), "held_out_data": "h"}),
        ("audit", "AuditConfig", {"learning_rate": 5e-3}),
    ):
        made = getattr(load_script(RECIPES / f"{name}.py"), kind)
        with pytest.raises(ConfigurationError, match=r"compares no answers"):
            made(**needed, **more, task="preference")


def test_a_private_answer_may_not_be_held_out_in_another_pair(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even beside an answer that nobody trained on."""
    private = write_pairs(tmp_path / "private.jsonl", count=60)
    first = json.loads(private.read_text().splitlines()[0])
    other = tmp_path / "public.jsonl"
    other.write_text(json.dumps(first | {"rejected": " joy joy joy"}) + "\n")
    with pytest.raises(SystemExit) as caught:
        train(task="preference", train_data=private, held_out_data=other)
    assert caught.value.code == 2
    assert "1 of its examples stand in the private training data" in capsys.readouterr().err


def test_the_plan_counts_both_answers(material: Path, tmp_path: Path) -> None:
    """Half as many pairs as texts fit a micro-batch, and each needs twice the tokens."""
    found = {}
    for task in ("preference", "causal-lm"):
        path = tmp_path / f"{task}.yaml"
        path.write_text(
            f"model: {material / 'model'}\ntrain_data: none.jsonl\nepsilon: 8\nsteps: 2\n"
            f"expected_batch_size: 8\nmax_length: 64\nmicro_batch_tokens: 512\ntask: {task}\n"
        )
        asked = ["plan", str(path), "--dataset-size", "100", "--gpus", "0", "--json"]
        done = CliRunner().invoke(dpacc, asked, catch_exceptions=False)
        found[task] = json.loads(done.stdout)["micro_batch"]
    pairs, texts = found["preference"], found["causal-lm"]
    assert (pairs["examples"], pairs["tokens_per_example"]) == (4, 128)
    assert (texts["examples"], texts["tokens_per_example"]) == (8, 64)
