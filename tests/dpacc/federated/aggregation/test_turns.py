"""Who took part waits: as the file says, across restarts, or nothing goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from dpacc.errors import ConfigurationError, PrivacyError
from dpacc.federated.aggregation.listed_clients import ListedClients, read_listed_clients
from dpacc.federated.aggregation.turns import Turns

SEPARATION = 3
NODES = {n: f"site-{n}" for n in (3, 7, 8, 11)}


def turns(folder: Path, *, charged: int = 0, listed: ListedClients | None = None) -> Turns:
    path = folder / "took_part.jsonl"
    return Turns(path=path, separation=SEPARATION, charged=charged, listed=listed)


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


def test_a_name_that_is_anothers_moves_nobodys_turn(tmp_path: Path) -> None:
    """Neighbours: with site-3 or without it, node 6, which says that it is site-3, is let in and
    asked in the same rounds, so that no sum differs by more than site-3's own updates.
    """
    seen = []
    for place, honest in (("with", (3,)), ("without", ())):
        known, let_in = turns(tmp_path / place), []
        for number in range(7):
            due = [node for node in (*honest, 6) if known.is_due(node)]
            for node in due:
                known.join(node, "site-3")
            known.keep(number=number, updates=len(due))
            let_in.append([node for node in due if node == 6])
        seen.append(let_in)
    assert seen[0] == seen[1] == [[6], [], [], [6], [], [], [6]]


def test_a_node_takes_part_once_in_b_rounds_and_keeps_its_name(tmp_path: Path) -> None:
    """Twice in one round, too soon, and under another name than before, after a restart as well."""
    known = turns(tmp_path)
    known.join(3, "site-3")
    with pytest.raises(ConfigurationError, match="in this round already"):
        known.join(3, "site-3")
    known.keep(number=0, updates=1)
    known.keep(number=1, updates=0)
    with pytest.raises(ConfigurationError, match="2 rounds before, and min_separation is 3"):
        known.join(3, "site-3")
    known.keep(number=2, updates=0)
    for each in (known, turns(tmp_path, charged=3)):
        with pytest.raises(ConfigurationError, match="it is other, and was site-3"):
            each.join(3, "other")
    known.join(3, "site-3")


def test_by_a_list_a_name_is_one_nodes(tmp_path: Path) -> None:
    """Who says another's name, or is on no list, is refused by its number, whoever is there; a
    client with another key waits as long as with its first one, after a restart as well.
    """
    listed = ListedClients(names={3: "site-3", 6: "site-6"})
    known = turns(tmp_path, listed=listed)
    assert [known.is_due(node) for node in (3, 6, 9)] == [True, True, False]
    for node, name, why in (
        (6, "site-3", "node 6 says that it is site-3, and is site-6"),
        (9, "site-9", "node 9 is not on the server's list"),
    ):
        with pytest.raises(ConfigurationError, match=why):
            known.join(node, name)
    known.join(3, "site-3")
    known.keep(number=0, updates=1)
    rekeyed = ListedClients(names={12: "site-3", 6: "site-6"})
    again = turns(tmp_path, charged=1, listed=rekeyed)
    assert [again.is_due(node) for node in (3, 6, 12)] == [False, True, False]
    with pytest.raises(ConfigurationError, match="1 rounds before"):
        again.join(12, "site-3")


def test_a_list_that_contradicts_who_took_part_is_refused(tmp_path: Path) -> None:
    """A node that was in a round as somebody else: nothing goes on until it is known who waits."""
    known = turns(tmp_path)
    known.join(6, "site-3")
    known.keep(number=0, updates=1)
    with pytest.raises(ConfigurationError, match=r"node 6 took part as site-3 .* and is site-6 by"):
        turns(tmp_path, charged=1, listed=ListedClients(names={6: "site-6"}))
    turns(tmp_path, charged=1, listed=ListedClients(names={3: "site-3"}))


def test_a_list_is_read_from_a_file(tmp_path: Path) -> None:
    """A line a client; twice the same name or node, no number, or nothing is named."""
    path = tmp_path / "clients.toml"
    path.write_text(f"north = 7\n'south-east' = {2**64 - 1}\n")
    assert read_listed_clients(path).names == {7: "north", 2**64 - 1: "south-east"}
    for wrong, why in (
        ("", "names none"),
        ("north = 7\nsouth = 7", "one node two names"),
        ("north = 7\nnorth = 8", "cannot be read"),
        ("north = '7'", "north has no number"),
        ("north", "cannot be read"),
    ):
        path.write_text(wrong)
        with pytest.raises(ConfigurationError, match=why):
            read_listed_clients(path)
    with pytest.raises(ConfigurationError, match="nodes 1 and 2 are both called north"):
        ListedClients(names={1: "north", 2: "north"})


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
