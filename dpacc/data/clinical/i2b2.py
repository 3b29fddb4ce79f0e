"""The formats of the i2b2 and n2c2 challenges, for those whom their data were given.

Concepts of 2010: a text of one sentence a line, and a file of lines such as
`c="chest pain" 12:3 12:4||t="problem"`, which counts lines from 1 and blank-parted words from 0.
Standoff of n2c2 2018, as brat writes it: `T1<tab>Drug 10 17<tab>aspirin`, which counts characters;
what is in several parts (`Drug 10 17;18 22`) is taken from its first to its last.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dpacc.data.clinical.annotated_text import AnnotatedText, Mention, require_inside
from dpacc.data.entity_spans import Entity, tags_of
from dpacc.errors import ConfigurationError

_CONCEPT = re.compile(r'c=".*" (\d+):(\d+) (\d+):(\d+)\|\|t="([^"]+)".*')
_STANDOFF = re.compile(r"T\d+\t(\S+) ((?:\d+ \d+;?)+)\t.*")


def read_i2b2_concepts(*, text: Path | str, concepts: Path | str) -> list[dict[str, Any]]:
    """A record of `words` and `label` for each line of a text that has words.

    Args:
        text: the note, a sentence a line.
        concepts: its `.con` file.

    Raises:
        ConfigurationError: a file cannot be read, or a concept spans lines, lies outside its line
            or on another; by the number of the line.
    """
    sentences = [line.split() for line in _lines(text)]
    found: dict[int, list[Entity]] = {}
    for number, line in enumerate(_lines(concepts), 1):
        place = f"{concepts}, line {number},"
        said = _CONCEPT.fullmatch(line.strip())
        if said is None:
            if line.strip():
                raise ConfigurationError(f'{place} is no concept such as c="…" 1:0 1:1||t="…"')
            continue
        first, start, last, end = (int(each) for each in said.groups()[:4])
        if first != last or not 1 <= first <= len(sentences):
            raise ConfigurationError(f"{place} is of lines {first} to {last} of {len(sentences)}")
        found.setdefault(first - 1, []).append(Entity(said[5], start, end + 1))
    document = Path(text).stem
    return [
        {
            "words": words,
            "label": tags_of(found.get(at, ()), words=len(words)),
            "document": document,
        }
        for at, words in enumerate(sentences)
        if words
    ]


def read_standoff(*, text: Path | str, annotations: Path | str) -> AnnotatedText:
    """A note with its mentions.

    Args:
        text: the note.
        annotations: its `.ann` file; of its lines, those that begin with T are read.

    Raises:
        ConfigurationError: a file cannot be read, or a mention lies outside the text or is written
            in another way; by the number of the line.
    """
    note = _read(text)
    mentions = []
    for number, line in enumerate(_lines(annotations), 1):
        if not line.startswith("T"):
            continue
        place, said = f"{annotations}, line {number},", _STANDOFF.fullmatch(line)
        if said is None:
            raise ConfigurationError(f"{place} is no mention such as T1<tab>Drug 10 17<tab>…")
        ends = [int(each) for each in re.findall(r"\d+", said[2])]
        mention = Mention(said[1], ends[0], ends[-1])
        require_inside(mention, text=note, place=place)
        mentions.append(mention)
    return AnnotatedText(document=Path(text).stem, text=note, mentions=mentions)


def _lines(path: Path | str) -> list[str]:
    # Other line ends than this one are counted by neither format.
    return _read(path).split("\n")


def _read(path: Path | str) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {type(error).__name__}") from None
