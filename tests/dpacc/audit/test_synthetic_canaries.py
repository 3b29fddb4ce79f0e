"""Canaries in the training text are found in synthetic text that repeats them, and nowhere else."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from dpacc.audit.claims import Claim
from dpacc.audit.synthetic_canaries import NgramModel, echo_scores, echoing_records
from dpacc.audit.text_canaries import planted
from dpacc.audit.verdict import Audit, judge
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig

WORDS = [f"word{at}" for at in range(60)]


def config(**fields: Any) -> TrainingConfig:
    return TrainingConfig(
        model="m", train_data="t", epsilon=1.0, expected_batch_size=2, steps=1, **fields
    )


def texts(count: int, *, seed: int) -> list[Any]:
    draw = np.random.default_rng(seed)
    return [{"text": " ".join(draw.choice(WORDS, size=9))} for _ in range(count)]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_ngrams_share_out_all_probability(n: int) -> None:
    """All texts of up to two words and their longer ones have probability 1, seen or not."""
    model = NgramModel([("a", "b"), ("a",), ("b", "a", "a")], vocabulary=3, n=n)
    ended = sum(
        math.exp(model.log_probability(text))
        for length in range(12)
        for text in itertools.product("ab", repeat=length)
    )
    # A text of twelve words or more ended at none of the places before.
    assert 0.98 < ended < 1


def test_the_bigrams_of_one_text_are_those_by_hand() -> None:
    """p(a | begins) = (1 + p(a)) / 2 with p(a) = (1 + ¼) / 4, and so on to the end."""
    model = NgramModel([("a", "b")], vocabulary=4, n=2)
    alone = (1 + 1 / 4) / (3 + 1)
    assert model.log_probability(("a", "b")) == pytest.approx(3 * math.log((1 + alone) / 2))
    unseen = (0 + 1 / 4) / (3 + 1)
    assert model.log_probability(("c",)) == pytest.approx(
        math.log(unseen / 2) + math.log(alone)  # after c nothing was counted
    )


def audit(*, echoes: float, claimed: float) -> Audit:
    """What 200 canaries prove where a share of those that are in stands in the synthetic texts."""
    public, draw = texts(100, seed=1), np.random.default_rng(2)
    canaries = echoing_records(public=public, config=config(), canaries=200, begun=3, words=6)
    included = draw.random(200) < 0.5
    echoed = [c for c, inside in zip(canaries, included, strict=True) if inside]
    synthetic = texts(300, seed=3) + echoed[: round(echoes * len(echoed))]
    scores = echo_scores(canaries=canaries, synthetic=synthetic, public=public, config=config())
    claim = Claim.of_epsilon(epsilon=claimed, delta=1e-5)
    return judge(included=included, scores=scores, claim=claim)


def test_a_writer_that_repeats_canaries_is_found_out_by_its_texts_alone() -> None:
    """If each is said once, ε = 1 is refuted; if every fifth or none is, nothing is proved."""
    caught, faint, honest = (audit(echoes=share, claimed=1.0) for share in (1.0, 0.2, 0.0))
    assert caught.refuted
    assert caught.epsilon > 1
    assert not faint.refuted
    assert not honest.refuted
    assert faint.epsilon == honest.epsilon == 0


def test_canaries_that_are_out_teach_nothing() -> None:
    """They stay among the examples, so that N tells nothing, and have no token to learn."""
    examples = [{"input_ids": [1, 2, 3], "labels": [-100, 2, 3]} for _ in range(4)]
    placed = planted(examples, np.array([True, False, False, True]))
    assert [each["labels"][1:] for each in placed] == [[2, 3], [-100] * 2, [-100] * 2, [2, 3]]
    assert all(each["input_ids"] == [1, 2, 3] for each in placed)


def test_canaries_begin_as_public_texts_do_and_keep_their_labels() -> None:
    """Three words of one, then six of any, drawn anew for each; the prompt stays."""
    public = [{"code": "good", "say": text["text"]} for text in texts(50, seed=4)]
    fields = config(prompt_field="code", completion_field="say")
    made = echoing_records(public=public, config=fields, canaries=40, begun=3, words=6)
    beginnings = {tuple(each["say"].split()[:3]) for each in public}
    assert all(tuple(each["say"].split()[:3]) in beginnings for each in made)
    assert all(len(each["say"].split()) == 9 and each["code"] == "good" for each in made)
    assert len({each["say"] for each in made}) == 40
    assert not {each["say"] for each in made} & {each["say"] for each in public}


@pytest.mark.parametrize(
    ("fields", "said", "words"),
    [
        ({"messages_field": "text"}, "a b", "leave messages_field and answers out"),
        ({}, [{"role": "user", "content": "a"}], "holds messages"),
        ({}, " ", "no word that canaries could be made of"),
    ],
)
def test_what_holds_no_canaries_is_refused(fields: dict[str, str], said: Any, words: str) -> None:
    """Chats, and texts without a word."""
    with pytest.raises(ConfigurationError, match=words):
        echoing_records(
            public=[{"text": said}], config=config(**fields), canaries=2, begun=1, words=1
        )
