"""A text in which mentions are marked by characters, and its words with tags."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dpacc.data.entity_spans import Entity, tags_of
from dpacc.errors import ConfigurationError

_WORD = re.compile(r"\w+|[^\w\s]")
_ENDS = frozenset(".!?")


class Mention(NamedTuple):
    """A run of characters.

    Args:
        kind: what it is, as the corpus calls it.
        start: its first character.
        stop: the character after its last.
    """

    kind: str
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class AnnotatedText:
    """One document.

    Args:
        document: its name or number.
        text: all of it.
        mentions: what is marked, in any order.
    """

    document: str
    text: str
    mentions: Sequence[Mention]

    def records(
        self, *, kinds: Mapping[str, str] | None = None, most_words: int = 60
    ) -> list[dict[str, Any]]:
        """Records of `words` and their `label`s, each with its `document`.

        Words are runs of letters and digits, and single other characters. A word that a mention
        touches belongs to it. Of mentions that overlap the longest is kept. A record ends after a
        sentence, or where the next would make it too long, and never inside a mention.

        Args:
            kinds: what each of the corpus's kinds is called; kinds that it lacks are left out. By
                default all are taken as they are.
            most_words: of one record, as far as sentences allow.

        >>> note = AnnotatedText(document="7", text="Took aspirin. No rash.",
        ...                      mentions=[Mention("Drug", 5, 12), Mention("Sign", 17, 21)])
        >>> note.records(kinds={"Drug": "drug"}, most_words=3)[0]
        {'words': ['Took', 'aspirin', '.'], 'label': ['O', 'B-drug', 'O'], 'document': '7'}
        """
        places = [match.span() for match in _WORD.finditer(self.text)]
        words = [self.text[start:stop] for start, stop in places]
        wanted = [
            mention._replace(kind=mention.kind if kinds is None else kinds[mention.kind])
            for mention in self.mentions
            if kinds is None or mention.kind in kinds
        ]
        tags = tags_of(_entities(wanted, places), words=len(words))
        return [
            {"words": words[start:stop], "label": tags[start:stop], "document": self.document}
            for start, stop in _cut(words, tags, most_words)
        ]


def require_inside(mention: Mention, *, text: str, place: str) -> None:
    """A mention lies in its text.

    Raises:
        ConfigurationError: naming the place, and no word of the text.
    """
    if not 0 <= mention.start < mention.stop <= len(text):
        raise ConfigurationError(
            f"{place} marks characters {mention.start} to {mention.stop} of {len(text)}: take the "
            "text and the annotations of one release"
        )


def _entities(mentions: Sequence[Mention], places: Sequence[tuple[int, int]]) -> list[Entity]:
    """The words that mentions touch, the longest mention first where they overlap."""
    found: list[Entity] = []
    taken: set[int] = set()
    for kind, start, stop in sorted(mentions, key=lambda each: each.start - each.stop):
        touched = [at for at, (first, end) in enumerate(places) if first < stop and end > start]
        if touched and not taken & {*touched}:
            taken |= {*touched}
            found.append(Entity(kind, touched[0], touched[-1] + 1))
    return found


def _cut(words: Sequence[str], tags: Sequence[str], most: int) -> Iterator[tuple[int, int]]:
    """Where records begin and end: whole sentences, as many as fit."""
    ends = [
        at + 1
        for at, word in enumerate(words)
        if word in _ENDS and not (at + 1 < len(tags) and tags[at + 1].startswith("I-"))
    ]
    start = stop = 0
    for end in dict.fromkeys([*ends, len(words)]):
        if end - start > most and stop > start:
            yield start, stop
            start = stop
        stop = end
    if stop > start:
        yield start, stop
