"""How a hospital's clinicians write: headings, abbreviations, denials, misspellings, wordings."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dpacc.federated.healthcare.note_templates import ABBREVIATIONS, DENIALS, NOTES

_MANNERS = ("{} :", "{} -", "** {} **", "# {}", "")
_SHORTEST_MISSPELT = 5


@dataclass(frozen=True, kw_only=True)
class Style:
    """One hospital's way of writing.

    Args:
        manner: how a heading stands; empty for none.
        short_headings: whether headings are abbreviated.
        abbreviates: the chance that a phrase is, of those that clinicians shorten.
        misspells: the chance that a word of five letters or more has a slip.
        denials: ways to say that something is not there.
        wordings: how many of a section's wordings are in use, and from which on.
        kinds: how often each kind of note is written.
        joined_doses: whether "40 mg" is one word.
        plain_names: whether the preferred name is used alone, and no synonym.
    """

    manner: str
    short_headings: bool
    abbreviates: float
    misspells: float
    denials: tuple[str, ...]
    wordings: tuple[int, int]
    kinds: Mapping[str, float]
    joined_doses: bool
    plain_names: bool

    def wording_of(self, wordings: Sequence[str], draw: random.Random) -> str:
        """One of those in use."""
        count, first = self.wordings
        return wordings[(first + draw.randrange(count)) % len(wordings)]


def style_drawn(draw: random.Random) -> Style:
    """A hospital's habits, at random.

    Args:
        draw: a generator of its own.
    """
    kinds = draw.sample(sorted(NOTES), k=3)
    return Style(
        manner=draw.choice(_MANNERS),
        short_headings=draw.random() < 0.5,
        abbreviates=draw.choice((0.0, 0.3, 0.6, 0.9)),
        misspells=draw.choice((0.0, 0.01, 0.03, 0.06)),
        denials=tuple(draw.sample(DENIALS, k=2)),
        wordings=(draw.choice((2, 3)), draw.randrange(5)),
        kinds={kind: draw.uniform(0.2, 1.0) for kind in kinds},
        joined_doses=draw.random() < 0.4,
        plain_names=draw.random() < 0.3,
    )


def abbreviated(text: str, *, chance: float, draw: random.Random) -> str:
    """The text with some of its phrases shortened.

    Args:
        text: words with blanks between them.
        chance: that a phrase which clinicians shorten is.
        draw: decides.

    >>> abbreviated("history of hypertension", chance=1.0, draw=random.Random(0))
    'h/o HTN'
    """
    for phrase, short in ABBREVIATIONS.items():
        if phrase in text and draw.random() < chance:
            text = f" {text} ".replace(f" {phrase} ", f" {short} ").strip()
    return text


def misspelt(word: str, *, chance: float, draw: random.Random) -> str:
    """The word, or one with a letter dropped, doubled or swapped with its neighbour.

    Args:
        word: short ones and numbers stay as they are.
        chance: of a slip.
        draw: decides.

    >>> misspelt("pneumonia", chance=1.0, draw=random.Random(1))
    'pneumona'
    """
    if len(word) < _SHORTEST_MISSPELT or not word.isalpha() or draw.random() >= chance:
        return word
    at = draw.randrange(1, len(word) - 1)
    slips = (
        word[:at] + word[at + 1 :],
        word[:at] + word[at] + word[at:],
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
    )
    return draw.choice(slips)
