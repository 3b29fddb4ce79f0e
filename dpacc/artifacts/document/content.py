"""What a report is made of: plain data, that every kind of page renders alike.

No text here is markup. Whoever renders it escapes it, so that no name in a file can become a
heading, a link or a claim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from dpacc_accounting import Guarantee

Standing: TypeAlias = Literal["holds", "qualified", "broken", "unclaimed"]
"""Whether what is claimed may be relied on: as it is, beside what qualifies it, or not at all; or
whether nothing was claimed."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What stands in large letters on the first page.

    Args:
        standing: whether it may be relied on.
        headline: one sentence.
        conditions: under what it is meant: adjacency, sampling, method.
        reasons: what qualifies the headline, or breaks what was claimed.
    """

    standing: Standing
    headline: str
    conditions: str = ""
    reasons: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The standing in words."""
        return {
            "holds": "The promise holds",
            "qualified": "The promise holds, with qualifications",
            "broken": "Not to be relied on",
            "unclaimed": "No promise is made",
        }[self.standing]


@dataclass(frozen=True, kw_only=True)
class Heading:
    """Of a section (level 2) or of parts of it; the document's title is level 1."""

    level: Literal[2, 3, 4]
    words: str

    @property
    def lowered(self) -> Heading:
        """The same where its section is a part of another."""
        return Heading(level=3 if self.level == 2 else 4, words=self.words)


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    """Sentences."""

    words: str


@dataclass(frozen=True, kw_only=True)
class Points:
    """A list. Each point is what it is about, in bold, and what is said of it."""

    points: tuple[tuple[str, str], ...]
    numbered: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells under column headings; the first cell of each row heads the row."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A vector graphic, with words for whoever cannot see it."""

    svg: bytes
    alternative: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class Commands:
    """Lines to type, each after what it shows."""

    lines: tuple[tuple[str, str], ...]


Block: TypeAlias = Verdict | Heading | Paragraph | Points | Table | Figure | Commands


@dataclass(frozen=True, kw_only=True)
class Document:
    """A report.

    Args:
        title: level 1.
        subtitle: what it is about, in a line.
        verdict: what the first page begins with.
        first_page: what follows it there, in plain words.
        body: all that follows on further pages.
        claims: every guarantee that the report is about, by a name for each; none where nothing
            is claimed.
    """

    title: str
    subtitle: str
    verdict: Verdict
    first_page: tuple[Block, ...]
    body: tuple[Block, ...]
    claims: tuple[tuple[str, Guarantee], ...] = ()


def facts(caption: str, rows: list[tuple[str, str]]) -> Table:
    """A table of names and values."""
    return Table(caption=caption, columns=("what", "value"), rows=tuple(rows))
