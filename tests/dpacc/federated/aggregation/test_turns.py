"""Who took part waits: as the file says, across restarts, or nothing goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from dpacc.errors import ConfigurationError, PrivacyError
from dpacc.federated.aggregation.turns import Turns

SEPARATION = 3
NODES = {n: f"site-{n}" for n in (3, 7, 8, 11)}


def turns(folder: Path, *, charged: int = 0) -> Turns:
    return Turns(path=folder / "took_part.jsonl", separation=SEPARATION, charged=charged)


def play(
    known: Turns, rounds: range, *, nodes: Iterable[int] = tuple(NODES)
) -> dict[int, list[int]]:
    """Everybody whose turn it is takes part, round after round."""
    told = {}
    for number in rounds:
        told[number] = [node for node in nodes if known.is_due(node)]
        for node in told[number]:
            known.join(node, NODES[node])
        known.keep(number=number, updates=len(told[number]))
    return told


def test_turns_are_spread_and_come_once_in_b_rounds(tmp_path: Path) -> None:
    """First by the node's number, then every third round."""
    told = play(turns(tmp_path), range(9))
    assert told == {
        n: [node for node in NODES if node % SEPARATION == n % SEPARATION] for n in range(9)
    }


def test_one_clients_turns_do_not_depend_on_anothers(tmp_path: Path) -> None:
    """Without one of them, all others are asked in the same rounds."""
    whole = play(turns(tmp_path), range(7))
    without = play(turns(tmp_path / "without"), range(7), nodes=(3, 7, 11))
    assert without == {n: [node for node in nodes if node != 8] for n, nodes in whole.items()}


def test_who_gave_nothing_is_asked_again(tmp_path: Path) -> None:
    """In each round until it takes part, and then waits."""
    known = turns(tmp_path)
    for number in range(5):
        assert known.is_due(3)
        known.keep(number=number, updates=0)
    known.join(3, "site-3")
    known.keep(number=5, updates=1)
    waits = []
    for number in (6, 7, 8):
        waits.append(known.is_due(3))
        known.keep(number=number, updates=0)
    assert waits == [False, False, True]


def test_neither_another_key_nor_another_name_shortens_the_wait(tmp_path: Path) -> None:
    """Node and name must each have waited; of two that are the same one counts."""
    known = turns(tmp_path)
    known.join(3, "site-3")
    for node, name in ((3, "site-3"), (3, "other"), (6, "site-3")):
        with pytest.raises(ConfigurationError, match="in this round already"):
            known.join(node, name)
    known.keep(number=0, updates=1)
    known.keep(number=1, updates=0)
    for node, name in ((3, "other"), (6, "site-3")):
        with pytest.raises(ConfigurationError, match="2 rounds before, and min_separation is 3"):
            known.join(node, name)
    known.keep(number=2, updates=0)
    known.join(3, "site-3")


@pytest.mark.parametrize("charged", [4, 5])
def test_a_restart_remembers(tmp_path: Path, charged: int) -> None:
    """Also a round whose participants were written and that was never charged."""
    play(turns(tmp_path), range(5))
    again = turns(tmp_path, charged=charged)
    due = [node for node in NODES if again.is_due(node)]
    # Node 7 was in round 4, nodes 8 and 11 in round 2, node 3 in round 3.
    assert due == ([] if charged == 4 else [8, 11])


def test_what_does_not_belong_to_the_ledger_is_refused(tmp_path: Path) -> None:
    """Missing, an older copy, one that lacks a round, or one whose ledger is gone."""
    path = tmp_path / "took_part.jsonl"
    with pytest.raises(ConfigurationError, match="is missing"):
        turns(tmp_path, charged=1)
    play(turns(tmp_path), range(6))
    lines = path.read_text().splitlines(keepends=True)
    for kept, charged in ((lines[:4], 6), (lines[:2] + lines[3:], 6), (lines, 0), (lines, 4)):
        path.write_text("".join(kept))
        with pytest.raises(ConfigurationError, match="do not belong together"):
            turns(tmp_path, charged=charged)
    path.write_text("")
    with pytest.raises(ConfigurationError, match="the file none"):
        turns(tmp_path, charged=6)


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        "{}",
        '{"round": 0, "nodes": [1], "names": []}',
        '{"round": "1", "nodes": [], "names": []}',
        '{"round": 5, "nodes": ["x"], "names": ["x"]}',
        '{"round": -1, "nodes": [], "names": []}',
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    """Nobody may be asked while it is not known who must wait."""
    play(turns(tmp_path), range(2))
    path = tmp_path / "took_part.jsonl"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ConfigurationError, match="line 3, is damaged"):
        turns(tmp_path, charged=2)


def test_a_torn_last_line_was_followed_by_no_charge(tmp_path: Path) -> None:
    """It is left out and written over; a round that was charged must be whole."""
    play(turns(tmp_path), range(4))
    path = tmp_path / "took_part.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    again = turns(tmp_path, charged=3)
    again.keep(number=3, updates=0)
    told = [json.loads(line) for line in path.read_text().splitlines()]
    assert [each["round"] for each in told] == [0, 1, 2, 3]
    path.write_bytes(whole[:-5])
    with pytest.raises(ConfigurationError, match="do not belong together"):
        turns(tmp_path, charged=4)


def test_a_round_of_others_is_not_released(tmp_path: Path) -> None:
    """An update whose client was not let in, or another round than the ledger's next."""
    known = turns(tmp_path)
    known.join(3, "site-3")
    for number, updates in ((0, 2), (0, 0), (1, 1)):
        with pytest.raises(PrivacyError, match="release nothing"):
            known.keep(number=number, updates=updates)
    assert not (tmp_path / "took_part.jsonl").exists()


def test_it_reaches_the_disk_and_is_its_owners_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every line is synced, and nobody else may read it; where the disk refuses, so does it."""
    synced: list[int] = []
    whole = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(1), whole(descriptor))[1])
    play(turns(tmp_path), range(3))
    assert len(synced) == 3
    assert (tmp_path / "took_part.jsonl").stat().st_mode & 0o777 == 0o600

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        turns(tmp_path, charged=3).keep(number=3, updates=0)
