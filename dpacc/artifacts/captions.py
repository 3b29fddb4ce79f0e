"""What stands beneath a figure that shows ε: what voids or qualifies it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from dpacc_accounting.guarantee import Note


def beneath(notes: Iterable[Note], *, width: int = 80) -> str:
    """Lines for the foot of a figure, each begun anew; nothing where there is nothing to say.

    >>> beneath([Note("whitening", "whitened by public notes")])
    '\\nε is qualified: whitened by public notes'
    """
    each = tuple(dict.fromkeys(notes))
    words = {
        "NOT private": "; ".join(note.text for note in each if note.voids),
        "ε is qualified": "; ".join(note.text for note in each if not note.voids),
    }
    return "".join(
        "\n" + textwrap.fill(f"{how}: {said}", width=width) for how, said in words.items() if said
    )
