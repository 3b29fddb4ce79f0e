"""Entities in tagged words, and how many of them are found.

Tags are IOB2's: `B-drug` begins a drug, `I-drug` goes on with it, `O` is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dpacc.errors import ConfigurationError


class Entity(NamedTuple):
    """A run of words.

    Args:
        kind: what it is.
        start: its first word.
        stop: the word after its last.
    """

    kind: str
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class EntityScore:
    """How well entities are found; one is found if its kind and both its ends are right.

    Args:
        precision: the share of what was claimed that is right; 0 where nothing was claimed.
        recall: the share of what there is that was found.
        f1: 2·precision·recall / (precision + recall); 0 where none is right.
        support: how many there are.
    """

    precision: float
    recall: float
    f1: float
    support: int


def entities_in(tags: Sequence[str]) -> list[Entity]:
    """The entities that a sequence of tags marks, by seqeval's definition.

    One begins at a `B`, or at an `I` that does not go on with an entity of its own kind, and ends
    before the next word that does not go on with it.

    Args:
        tags: of a text's words.

    Raises:
        ConfigurationError: a tag that is neither `O`, nor begins with `B-` or `I-`.

    >>> entities_in(["B-drug", "I-drug", "O", "I-drug", "B-drug", "I-dose"])
    [Entity(kind='drug', start=0, stop=2), Entity(kind='drug', start=3, stop=4), \
Entity(kind='drug', start=4, stop=5), Entity(kind='dose', start=5, stop=6)]
    """
    found: list[Entity] = []
    for place, tag in enumerate(tags):
        position, _, kind = tag.partition("-")
        if tag == "O":
            continue
        if position not in ("B", "I") or not kind:
            raise ConfigurationError(f"the tag {tag!r} must be O, or begin with B- or I-")
        last = found[-1] if found else None
        if position == "I" and last is not None and (last.kind, last.stop) == (kind, place):
            found[-1] = last._replace(stop=place + 1)
        else:
            found.append(Entity(kind, place, place + 1))
    return found


def tags_of(entities: Iterable[Entity], *, words: int) -> list[str]:
    """The tags of a text in which these entities are marked.

    Args:
        entities: of which no two share a word.
        words: how many the text has.

    Raises:
        ConfigurationError: two share a word, or one lies outside the text.

    >>> tags_of([Entity("drug", 1, 3)], words=4)
    ['O', 'B-drug', 'I-drug', 'O']
    """
    tags = ["O"] * words
    for kind, start, stop in entities:
        if not 0 <= start < stop <= words or any(tag != "O" for tag in tags[start:stop]):
            raise ConfigurationError(
                f"an entity of words {start} to {stop} of {words} lies outside the text or on "
                "another; keep one of those that overlap"
            )
        tags[start:stop] = [f"B-{kind}", *[f"I-{kind}"] * (stop - start - 1)]
    return tags


def entity_scores(
    *, predicted: Sequence[Sequence[str]], true: Sequence[Sequence[str]]
) -> dict[str, EntityScore]:
    """Precision, recall and F1 of each kind of entity, and of `all` of them together.

    `all` counts every entity alike, which is seqeval's micro average.

    Args:
        predicted: the tags of each text.
        true: what they should be.

    Raises:
        ConfigurationError: another number of texts, or of tags in one.

    >>> found = entity_scores(predicted=[["B-drug", "O"]], true=[["B-drug", "B-dose"]])
    >>> found["drug"].f1, found["dose"].f1, round(found["all"].f1, 3)
    (1.0, 0.0, 0.667)
    """
    if [*map(len, predicted)] != [*map(len, true)]:
        raise ConfigurationError("predicted and true must have as many texts, each as many tags")
    claimed = [(text, each) for text, tags in enumerate(predicted) for each in entities_in(tags)]
    there = [(text, each) for text, tags in enumerate(true) for each in entities_in(tags)]
    right = {*claimed} & {*there}
    kinds = sorted({each.kind for _, each in (*claimed, *there)})
    scores = {
        kind: _score(*(sum(e.kind == kind for _, e in group) for group in (right, claimed, there)))
        for kind in kinds
    }
    return {**scores, "all": _score(len(right), len(claimed), len(there))}


def _score(right: int, claimed: int, there: int) -> EntityScore:
    return EntityScore(
        precision=right / claimed if claimed else 0.0,
        recall=right / there if there else 0.0,
        f1=2 * right / (claimed + there) if right else 0.0,
        support=there,
    )
