"""Held-out data that holds private examples is found by what the examples say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from dpacc_accounting import read_ledger, statement
from torch.utils.data import Subset

from dpacc.errors import ConfigurationError
from dpacc.data.overlap import require_apart, shared_examples, shared_units
from tests.dpacc.trainer.test_private_trainer import HELD_OUT, PRIVATE, private, trainer
from tests.tiny_models import examples

TEXTS = [{"text": f"The film number {i}", "label": i % 2} for i in range(6)]
CHATS = [{"messages": [{"role": "user", "content": f"Ask {i}"}]} for i in range(4)]
PADDED = [
    {
        "input_ids": [*each["input_ids"], 0, 0],
        "attention_mask": [1] * len(each["input_ids"]) + [0, 0],
    }
    for each in PRIVATE[:3]
]
ROWS = [torch.arange(3) + i for i in range(5)]

SAME: dict[str, tuple[Any, Any, int]] = {
    "itself": (PRIVATE, PRIVATE, len(PRIVATE)),
    "copies": (PRIVATE, [dict(each) for each in PRIVATE[2:4]], 2),
    "selected": (Dataset.from_list(PRIVATE), Dataset.from_list(PRIVATE).select([1, 3]), 2),
    "subset": (PRIVATE, Subset(PRIVATE, [0, 4]), 2),  # type: ignore[arg-type]
    "as tensors": (PRIVATE, Dataset.from_list(PRIVATE).with_format("torch"), len(PRIVATE)),
    "padded": (PRIVATE, PADDED, 3),
    "other labels": (PRIVATE, [{**PRIVATE[0], "labels": [-100] * 9}], 1),
    "other order": (PRIVATE, PRIVATE[::-1], len(PRIVATE)),
    "part of it": (PRIVATE, [*HELD_OUT, PRIVATE[5]], 1),
    "streamed": (Dataset.from_list(PRIVATE), Dataset.from_list(PRIVATE).to_iterable_dataset(), 10),
    "texts": (TEXTS, [{"text": " the  FILM number 3\n", "label": 0}], 1),
    "further fields": (TEXTS, [{"text": "The film number 3", "stars": 5}], 1),
    "chats": (CHATS, CHATS[1:2], 1),
    "rows of a tensor": (ROWS, ROWS[2:3], 1),
    "none": (PRIVATE, HELD_OUT, 0),
    "no other texts": (TEXTS, [{"text": "The film number 33"}], 0),
    "no other rows": (ROWS, [torch.arange(3) + 50], 0),
    "nothing": (PRIVATE, [], 0),
}


@pytest.mark.parametrize(("train", "others", "count"), SAME.values(), ids=SAME)
def test_the_same_example_is_found_however_it_is_held(train: Any, others: Any, count: int) -> None:
    """Copies, selections, subsets, padded and relabelled ones; and none where there is none."""
    assert shared_examples(private=train, others=others) == count


def test_what_cannot_be_compared_is_refused_and_nothing_is_quoted() -> None:
    """Texts beside token ids have no field in common; a refusal tells counts."""
    with pytest.raises(ConfigurationError, match="no field in common"):
        shared_examples(private=PRIVATE, others=TEXTS)
    with pytest.raises(ConfigurationError, match="2 of its examples") as refused:
        require_apart(private=TEXTS, held_out=TEXTS[:2], what="eval_dataset", remedy="stop")
    assert "film" not in str(refused.value).lower()


def test_a_protected_person_may_not_stand_in_held_out_data() -> None:
    """Even by other rows: the guarantee is for all that somebody has."""
    assert shared_units(private=["Ann", "Bob"], others=["bob", "Eve"]) == 1
    assert shared_units(private=[7, 8], others=["7"]) == 1
    with pytest.raises(ConfigurationError, match="1 of its owners"):
        require_apart(
            private=PRIVATE,
            held_out=HELD_OUT,
            what="held_out_data",
            remedy="stop",
            owners=["Ann"] * len(PRIVATE),
            held_out_owners=["Eve", "ann"],
        )


@pytest.mark.parametrize(
    "held_out",
    [
        PRIVATE[3:5],
        {"news": HELD_OUT, "mine": [*HELD_OUT, dict(PRIVATE[0])]},
        Subset(PRIVATE, [2]),  # type: ignore[arg-type]
        Dataset.from_list(PRIVATE).select([1]),
    ],
    ids=["list", "one of several", "subset", "selected"],
)
def test_a_trainer_evaluates_no_private_example(tmp_path: Path, held_out: Any) -> None:
    """Exact losses of private data would stand in trainer_state.json; nothing is trained."""
    run = trainer(tmp_path / "run", eval_dataset=held_out)
    with pytest.raises(ConfigurationError, match=r"eval_dataset: \d+ of its.*allow_eval_overlap"):
        run.train()
    assert not (tmp_path / "run/ledger.jsonl").exists()
    with pytest.raises(ConfigurationError, match="private training data"):
        run.evaluate()


def test_data_that_is_given_later_is_compared_too(tmp_path: Path) -> None:
    """`evaluate` and `predict` take data of their own, before and after training."""
    run = trainer(tmp_path / "run", max_steps=1)
    for ask in (run.evaluate, run.predict):
        with pytest.raises(ConfigurationError, match="private training data"):
            ask(PRIVATE[:2])
    run.train()
    with pytest.raises(ConfigurationError, match="private training data"):
        run.evaluate(PRIVATE[:2])
    assert run.evaluate(HELD_OUT)["eval_loss"] > 0


@pytest.mark.parametrize("later", [False, True])
def test_an_allowed_overlap_is_in_ledger_and_statement(tmp_path: Path, later: bool) -> None:
    """Whether it is there from the beginning or comes after training, and once."""
    changes = {} if later else {"eval_dataset": PRIVATE[:2], "eval_strategy": "epoch"}
    allowed = private(allow_eval_overlap=True)
    run = trainer(tmp_path / "run", privacy=allowed, max_steps=2, **changes)
    run.train()
    if later:
        run.evaluate(PRIVATE[:2])
    record = read_ledger(path=tmp_path / "run/ledger.jsonl")
    assert [note.subject for note in record.notes].count("non-private-metrics") == 1
    assert "metrics were computed without noise" in statement(plan=record.plan, record=record)


def test_private_data_that_is_called_public_may_not_steer(tmp_path: Path) -> None:
    """A choice by private metrics is not free, whatever was allowed."""
    both = private(allow_eval_overlap=True, eval_data_is_public=True)
    run = trainer(tmp_path / "run", privacy=both, eval_dataset=PRIVATE[:2])
    with pytest.raises(ConfigurationError, match="do not call it public"):
        run.train()


def test_states_hold_no_metric_of_private_examples(tmp_path: Path) -> None:
    """With other data, what the Trainer writes are that data's losses."""
    run = trainer(tmp_path / "run", eval_strategy="epoch", max_steps=2, save_strategy="epoch")
    run.train()
    states = list((tmp_path / "run").rglob("trainer_state.json"))
    assert states
    assert any("eval_loss" in row for row in json.loads(states[0].read_text())["log_history"])
    assert shared_examples(private=PRIVATE, others=examples([4], seed=7)) == 0
