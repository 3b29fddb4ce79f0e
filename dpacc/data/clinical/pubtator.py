"""PubTator's format, in which BC5CDR and the NCBI disease corpus are handed out.

A document is `number|t|title`, `number|a|abstract`, and a line a mention: number, first character,
the character after the last, the words, the kind, identifiers; parted by tabulators. Characters are
counted over title, one blank and abstract. Lines of other shapes (relations) are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from dpacc.data.clinical.annotated_text import AnnotatedText, Mention, require_inside
from dpacc.errors import ConfigurationError

BC5CDR: Mapping[str, str] = {"Chemical": "chemical", "Disease": "disease"}
"""Kinds of the BioCreative V chemical-disease corpus (Li et al. 2016)."""

NCBI_DISEASE: Mapping[str, str] = dict.fromkeys(
    ("SpecificDisease", "DiseaseClass", "CompositeMention", "Modifier"), "disease"
)
"""Kinds of the NCBI disease corpus (Doğan et al. 2014), all of them diseases."""

_TEXT = re.compile(r"(\d+)\|([ta])\|(.*)")
_LEAST_FIELDS = 5


def read_pubtator(path: Path | str) -> list[AnnotatedText]:
    """Every document of a file.

    Args:
        path: of a file in PubTator's format.

    Raises:
        ConfigurationError: it cannot be read, holds no document, or a mention's characters are not
            the words that it names; by the number of the line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {type(error).__name__}") from None
    texts: dict[str, dict[str, str]] = {}
    mentions: dict[str, list[Mention]] = {}
    for number, line in enumerate(lines, 1):
        place, begun = f"{path}, line {number},", _TEXT.fullmatch(line)
        if begun is not None:
            texts.setdefault(begun[1], {})[begun[2]] = begun[3]
            continue
        fields = line.split("\t")
        if len(fields) >= _LEAST_FIELDS and fields[1].isdecimal() and fields[2].isdecimal():
            if fields[0] not in texts:
                raise ConfigurationError(f"{place} marks a document that has not begun")
            text = _whole(texts[fields[0]])
            mention = Mention(fields[4], int(fields[1]), int(fields[2]))
            require_inside(mention, text=text, place=place)
            if text[mention.start : mention.stop] != fields[3]:
                raise ConfigurationError(
                    f"{place} names other words than stand at its characters: take the file as it "
                    "was handed out, with its line ends"
                )
            mentions.setdefault(fields[0], []).append(mention)
    if not texts:
        raise ConfigurationError(
            f"{path} holds no line number|t|title: it is not PubTator's format"
        )
    return [
        AnnotatedText(document=name, text=_whole(parts), mentions=mentions.get(name, []))
        for name, parts in texts.items()
    ]


def _whole(parts: Mapping[str, str]) -> str:
    return f"{parts.get('t', '')} {parts.get('a', '')}"
