"""Each client's part of public records, as large as its own data, and what is held out."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dpacc.errors import ConfigurationError

HELD_OUT = "held_out_"
Lines = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PublicShares:
    """Public records by client, and held-out ones by kind, as lines of JSON.

    Args:
        clients: of each client as many as it has of its own.
        held_out: what quality is measured on; the same for every seed.
        overlap: whether one record may be at several clients, for want of enough.
    """

    clients: Mapping[str, Lines]
    held_out: Mapping[str, Lines]
    overlap: bool = False

    def write(self, folder: Path) -> None:
        """One file a client and one a kind, as clients and server read them."""
        folder.mkdir(parents=True, exist_ok=True)
        named = {HELD_OUT + kind: lines for kind, lines in self.held_out.items()}
        for name, lines in {**self.clients, **named}.items():
            (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


def shares(path: Path, *, sizes: Mapping[str, int], held_out: int, seed: int) -> PublicShares:
    """Divide public records.

    A folder holds a file `<client>.jsonl` for each client and `held_out_<kind>.jsonl`, so that
    clients may differ as they do in truth. Of one file, `held_out` records are set aside, and the
    others are drawn evenly.

    Args:
        path: the folder, or the file.
        sizes: N of each client.
        held_out: how many of a file's records are held out.
        seed: of the draw; what is held out does not depend on it.

    Raises:
        ConfigurationError: something is missing, or there are too few records.
    """
    draw = random.Random(seed)
    if path.is_dir():
        own = {name: _some(path / f"{name}.jsonl", n, draw) for name, n in sizes.items()}
        files = sorted(path.glob(f"{HELD_OUT}*.jsonl"))
        if not files:
            raise ConfigurationError(f"{path} holds no {HELD_OUT}<kind>.jsonl to measure on")
        kinds = {file.stem.removeprefix(HELD_OUT): _lines(file) for file in files}
        measured = {line for each in kinds.values() for line in each}
        for name, drawn in own.items():
            if not measured.isdisjoint(drawn):
                raise ConfigurationError(
                    f"some records of {path / name}.jsonl are held out as well"
                )
        return PublicShares(clients=own, held_out=kinds)
    lines = list(_lines(path))
    random.Random(0).shuffle(lines)
    aside, rest = tuple(lines[:held_out]), lines[held_out:]
    most = max(sizes.values())
    if not aside or len(rest) < most:
        raise ConfigurationError(
            f"{path} holds {len(lines):,} records, of which {held_out:,} are held out, and the "
            f"largest client has {most:,}: give more, hold out fewer with --held-out, or name a "
            "smaller client"
        )
    if len(rest) < sum(sizes.values()):
        each = {name: tuple(draw.sample(rest, n)) for name, n in sizes.items()}
        return PublicShares(clients=each, held_out={"held_out": aside}, overlap=True)
    draw.shuffle(rest)
    left = iter(rest)
    apart = {name: tuple(itertools.islice(left, n)) for name, n in sizes.items()}
    return PublicShares(clients=apart, held_out={"held_out": aside})


def _some(file: Path, count: int, draw: random.Random) -> Lines:
    lines = _lines(file)
    if len(lines) < count:
        raise ConfigurationError(
            f"{file} holds {len(lines):,} records and its client has {count:,}: give more, or name "
            "a smaller client"
        )
    return tuple(draw.sample(lines, count))


def _lines(file: Path) -> Lines:
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ConfigurationError(f"public records {file} cannot be read: {why}") from None
    return tuple(dict.fromkeys(line for line in text.splitlines() if line.strip()))
