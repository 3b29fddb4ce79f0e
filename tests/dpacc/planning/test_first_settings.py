"""What is proposed for a first run: what is learned, how it is spent, and what fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dpacc_accounting import recommend_batch_size

from dpacc.data.shape import DataShape
from dpacc.errors import ConfigurationError
from dpacc.planning.first_settings import (
    _ways_to_store,
    batch_and_steps,
    what_fits,
    what_is_learned,
)
from dpacc.planning.forecast import Machine
from dpacc.planning.traffic import Rates
from dpacc.recipe.config import TrainingConfig
from tests.tiny_models import CONFIGURATIONS

RATES = Rates(operations=1e11, network=1e9)


def shape(**fields: str) -> DataShape:
    return DataShape(rows=60, fields=fields, others=0)


TEXT, WORDS = "text", "list of texts"


@pytest.mark.parametrize(
    ("fields", "given", "learned"),
    [
        ({"text": TEXT, "title": TEXT}, {}, {"text_field": "text"}),
        ({"who": TEXT, "note": TEXT}, {"unit_field": "who"}, {"text_field": "note"}),
        ({"conversations": "chat"}, {}, {"messages_field": "conversations"}),
        ({"talk": "chat", "id": TEXT}, {}, {"messages_field": "talk"}),
        (
            {"question": TEXT, "context": TEXT, "answer": TEXT},
            {},
            {"prompt_field": "question,context", "completion_field": "answer"},
        ),
        (
            {"question": TEXT, "chosen": TEXT, "rejected": TEXT},
            {},
            {"task": "preference", "prompt_field": "question"},
        ),
        (
            {"tokens": WORDS, "ner_tags": "list of whole numbers"},
            {"labels": ("other", "place")},
            {
                "task": "token-classification",
                "words_field": "tokens",
                "label_field": "ner_tags",
                "labels": ("other", "place"),
            },
        ),
        (
            {"review": TEXT, "sentiment": TEXT},
            {"task": "sequence-classification", "labels": ("bad", "good")},
            {
                "task": "sequence-classification",
                "text_field": "review",
                "label_field": "sentiment",
                "labels": ("bad", "good"),
            },
        ),
        ({"a": TEXT, "b": TEXT}, {"text_field": "b"}, {"text_field": "b"}),
    ],
)
def test_the_task_follows_from_fields_and_what_is_given(
    fields: dict[str, str], given: dict[str, Any], learned: dict[str, Any]
) -> None:
    """Usual names, the one field of a kind, and labels that are given; what is given stands."""
    assert what_is_learned(shape=shape(**fields), given=given) == learned


@pytest.mark.parametrize(
    ("fields", "given", "said"),
    [
        ({"a": TEXT, "b": TEXT}, {}, r"a, b could each be meant.*--text_field"),
        ({"n": "number"}, {}, r"no field.*--text_field.*n \(number\)"),
        ({"text": TEXT}, {"labels": ("x", "y")}, "--label_field"),
        ({"chosen": TEXT, "rejected": TEXT}, {}, "--prompt_field"),
    ],
)
def test_what_could_be_meant_twice_is_asked(
    fields: dict[str, str], given: dict[str, Any], said: str
) -> None:
    """One line with the option that says which, and with the fields that there are."""
    with pytest.raises(ConfigurationError, match=said):
        what_is_learned(shape=shape(**fields), given=given)


def config(**changes: Any) -> TrainingConfig:
    plain: dict[str, Any] = {"model": "m", "train_data": "t", "epsilon": 3.0, "max_length": 32}
    return TrainingConfig(**plain | {"expected_batch_size": 1, "steps": 1} | changes)


def test_gradients_are_spent_as_recommended_unless_given() -> None:
    """As is recommended for three passes; of batch, steps and epochs what is given stands."""

    def spent(**given: Any) -> dict[str, Any]:
        return batch_and_steps(config=config(), given=given, dataset_size=60)

    known = recommend_batch_size(
        dataset_size=60, gradient_evaluations=180, epsilon=3.0, delta=1e-3
    ).uncorrelated
    advised = {"expected_batch_size": known.batch_size, "steps": known.steps, "epochs": None}
    assert spent() == advised
    assert spent(steps=10) == {"expected_batch_size": 18, "steps": 10, "epochs": None}
    assert spent(expected_batch_size=50) == {
        "expected_batch_size": 50,
        "epochs": 3.0,
        "steps": None,
    }
    both = {"expected_batch_size": 7, "steps": 9}
    assert spent(**both) == both | {"epochs": None}


def test_less_is_kept_where_memory_is_short(tmp_path: Path) -> None:
    """First smaller micro-batches; what is given stands; and beyond that a remedy."""
    CONFIGURATIONS["llama"].save_pretrained(tmp_path)
    run = config(model=str(tmp_path), expected_batch_size=64, steps=2, dtype="float32")
    ample = Machine(gpus=0, memory=64 * 2**30, rates=RATES)

    def fitted(machine: Machine, **given: Any) -> Any:
        return what_fits(
            config=replace(run, **given),
            given=given,
            dataset_size=600,
            machine=machine,
            path="c.yaml",
        )

    chosen, found = fitted(ample)
    assert chosen.micro_batch_tokens == 64 * 32
    assert not chosen.gradient_checkpointing
    peak = found.spreads["whole"].memory.peak
    tight = replace(ample, memory=peak - 1)
    smaller, needs = fitted(tight)
    assert smaller.micro_batch_tokens < chosen.micro_batch_tokens
    assert needs.spreads["whole"].memory.peak <= tight.memory
    with pytest.raises(ConfigurationError, match=r"does not fit in .*--memory-per-gpu"):
        fitted(replace(ample, memory=2**20))
    kept, _ = fitted(ample, micro_batch_tokens=32)
    assert kept.micro_batch_tokens == 32


def test_what_is_given_keeps_no_other_way_from_being_tried() -> None:
    """A base in 4 bits is tried though it was said whether activations are made again."""
    gpu = Machine(gpus=1, memory=2**30, rates=RATES)
    again = {"gradient_checkpointing": True}
    assert _ways_to_store(again, gpu) == [{}, {"quantization": "nf4"}]
    assert _ways_to_store({"quantization": "int8"}, gpu) == [{}, again]
