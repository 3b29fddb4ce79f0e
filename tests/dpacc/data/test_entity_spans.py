"""Entities are counted as seqeval 1.2.2 counts them in its default mode."""

from __future__ import annotations

import random

import pytest

from dpacc.data.entity_spans import Entity, entities_in, entity_scores, tags_of
from dpacc.errors import ConfigurationError

# Tags, and what seqeval.metrics.sequence_labeling.get_entities finds: ends are inclusive there.
SEQEVAL = [
    ("B-PER I-PER O B-LOC", [("PER", 0, 1), ("LOC", 3, 3)]),
    ("I-PER I-PER O", [("PER", 0, 1)]),
    ("B-PER B-PER I-PER", [("PER", 0, 0), ("PER", 1, 2)]),
    ("B-PER I-LOC I-LOC", [("PER", 0, 0), ("LOC", 1, 2)]),
    ("O I-LOC O I-LOC", [("LOC", 1, 1), ("LOC", 3, 3)]),
    ("I-PER B-PER I-LOC I-PER", [("PER", 0, 0), ("PER", 1, 1), ("LOC", 2, 2), ("PER", 3, 3)]),
    ("O O", []),
    ("", []),
]


@pytest.mark.parametrize(("tags", "found"), SEQEVAL)
def test_entities_are_seqevals(tags: str, found: list[tuple[str, int, int]]) -> None:
    """Whatever follows what, even where no beginning is marked."""
    assert entities_in(tags.split()) == [(kind, start, end + 1) for kind, start, end in found]


def test_scores_are_seqevals() -> None:
    """Precision, recall and F1 of one report, by kind and over all, to all digits."""
    true = ["O O O B-MISC I-MISC I-MISC O", "B-PER I-PER O"]
    said = ["O O B-MISC I-MISC I-MISC I-MISC O", "B-PER I-PER O"]
    found = entity_scores(
        predicted=[each.split() for each in said], true=[each.split() for each in true]
    )
    assert (found["MISC"].f1, found["PER"].f1, found["all"].f1) == (0.0, 1.0, 0.5)
    assert (found["all"].precision, found["all"].recall, found["all"].support) == (0.5, 0.5, 2)


def test_the_f1_of_all_counts_every_entity_alike() -> None:
    """Nine drugs found and one dose missed: 18 of 19, and not the mean of 1 and 0."""
    true = [["B-drug"]] * 9 + [["B-dose"]]
    found = entity_scores(predicted=[["B-drug"]] * 9 + [["O"]], true=true)
    assert found["all"].f1 == 18 / 19
    assert (found["dose"].f1, found["dose"].support) == (0.0, 1)


def test_half_an_entity_is_none() -> None:
    """A right kind with a wrong end is a claim that is wrong, and an entity that is missed."""
    found = entity_scores(predicted=[["B-drug", "O"]], true=[["B-drug", "I-drug"]])
    assert found["drug"].f1 == 0.0


def test_entities_and_tags_are_each_others_inverse() -> None:
    """Of any well-formed tags."""
    draw = random.Random(0)
    for _ in range(50):
        places = sorted(draw.sample(range(30), k=8))
        made = [
            Entity(draw.choice(["drug", "dose"]), start, stop)
            for start, stop in zip(places[::2], places[1::2], strict=True)
        ]
        assert entities_in(tags_of(made, words=30)) == made


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: entities_in(["S-drug"]), "S-drug"),
        (lambda: entities_in(["B-"]), "must be O"),
        (lambda: tags_of([Entity("a", 0, 2), Entity("b", 1, 3)], words=4), "overlap"),
        (lambda: tags_of([Entity("a", 3, 5)], words=4), "outside"),
        (lambda: entity_scores(predicted=[["O"]], true=[["O", "O"]]), "as many tags"),
    ],
)
def test_what_makes_no_sense_is_refused(call: object, words: str) -> None:
    """Another scheme's tags, entities on one another, texts of other lengths."""
    with pytest.raises(ConfigurationError, match=words):
        call()  # type: ignore[operator]
