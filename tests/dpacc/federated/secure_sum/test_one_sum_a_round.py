"""An update goes into one sum: two sums of it would differ by whoever is in one of them alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from dpacc_accounting import read_ledger
from flwr.app import ConfigRecord

from dpacc.federated.secure_sum import rounds_summed
from dpacc.federated.secure_sum.settings import ProtocolName, SecureSum
from dpacc.federated.secure_sum.summing_client import SecureClient
from dpacc.federated.updates.layout import to_record
from tests.dpacc.federated.federations import server
from tests.dpacc.federated.secure_sum.sums import STAGES, Federation, updates
from tests.dpacc.federated.secure_sum.test_federation import secure

FIVE = SecureSum(clients=5, threshold=3)
DRAWN = SecureSum(clients=10, neighbours=4)
Asked: TypeAlias = Callable[[int], bool]


def test_five_then_four_do_not_show_the_fifth(tmp_path: Path) -> None:
    """A server that asks for round 1 again, of four, is told why not, and its adapter stays.

    The second sum would have been the first less one client's update, in all its numbers.
    """
    given = updates(5)
    federation = Federation(given, FIVE)
    assert federation.round().survivors == tuple(f"site-{n}" for n in range(1, 6))
    of_five = federation.moved * 5
    federation.history.rounds.clear()  # as one that restarts after a failed measurement
    federation.strategy.arrays = federation.start
    federation.grid._gone = {5}
    report = federation.round()
    assert report.survivors == ()
    assert "went into a sum before" in report.failed["site-1"]
    np.testing.assert_array_equal(federation.moved, 0)
    assert np.abs(of_five - sum(given)).max() < 1e-4
    assert [each.asked for each in federation.fixed] == [1] * 5


def refuses(asked: Asked) -> Callable[[int], None]:
    """A disk that takes all but files, or but their folders' lists of them."""

    def fsync(descriptor: int) -> None:
        if asked(os.fstat(descriptor).st_mode):
            raise OSError(28, "No space left on device")

    return fsync


@pytest.mark.parametrize("asked", [stat.S_ISREG, stat.S_ISDIR], ids=["file", "folder"])
def test_it_is_on_the_disk_before_anything_leaves(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that restarts knows its sums; where they cannot be written, nothing leaves."""
    federation = Federation(updates(5), FIVE)
    federation.round()
    again = Federation(updates(5), FIVE)
    for old, new in zip(federation.fixed, again.fixed, strict=True):
        new.folder = old.folder
    clients = [SecureClient(client=each, secure_sum=FIVE) for each in again.fixed]
    again.grid._apps = {n: each.app for n, each in enumerate(clients, start=1)}
    assert again.round().survivors == ()
    assert "rounds_summed.jsonl" in {path.name for path in federation.fixed[0].folder.iterdir()}
    other = Federation(updates(5), FIVE)
    monkeypatch.setattr("os.fsync", refuses(asked))
    assert other.round().survivors == ()
    assert not other.masked()


def test_the_next_round_and_another_run_are_summed(tmp_path: Path) -> None:
    """Each is a new update: what is refused is the same round alone."""
    federation = Federation(updates(5), FIVE)
    assert [len(federation.round().survivors) for _ in range(3)] == [5, 5, 5]


@pytest.mark.parametrize("protocol", ["secagg", "pairwise"])
def test_a_server_that_died_after_a_sum_goes_on_with_the_next(
    folder: Path, protocol: ProtocolName
) -> None:
    """The round that it lost is lost: two of three change the adapter, and all three are paid."""
    settings = SecureSum(clients=2, protocol=protocol)
    clients = [secure(folder, n, settings) for n in (1, 2)]
    dying = server(folder, rounds=3, secure_sum=settings)

    def die(model: object) -> dict[str, float]:
        if len(dying.history.rounds) == 1:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        dying.train(clients=clients, measure=die)
    history = server(folder, rounds=3, secure_sum=settings).train(clients=clients)
    assert [len(report.survivors) for report in history.rounds] == [2, 0, 2]
    assert all("before" in why for why in history.rounds[1].failed.values())
    assert len(read_ledger(path=folder / "site-1/ledger.jsonl").releases) == 9
    assert len(history.federation()["clients"]) == 2
    counted = history.federation()["clients"][0]["schedule"]
    assert sum(each["rounds"] * each["local_steps"] for each in counted) == 9


def drawn(sums: Federation) -> int:
    """How many clients tell whom they drew for a sum that the server begins and gives up."""
    before = len(sums.grid.seen)
    asked = ConfigRecord({"run": "a run", "privacy": sums.level})
    sums.strategy.configure_train(1, to_record(sums.start), asked, sums.grid)
    return sum(
        stage == STAGES[1] and not reply.has_error() for stage, _, reply in sums.grid.seen[before:]
    )


def test_no_server_begins_sums_until_a_draw_suits_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two draws that came to nothing are the most here: the third is refused, after a restart as
    well, until an owner has looked; one that is trained for begins the count anew.
    """
    monkeypatch.setattr(rounds_summed, "MOST_DRAWS", 2)
    federation = Federation(updates(10), DRAWN, folder=tmp_path)
    assert drawn(federation) == 10
    assert len(federation.round().survivors) == 10
    assert [drawn(federation) for _ in range(3)] == [10, 10, 0]
    refused = federation.strategy._exchange.refused
    assert "drew neighbours for 2 sums in a row" in refused[1]
    again = Federation(updates(10), DRAWN, folder=tmp_path)
    assert drawn(again) == 0
    (tmp_path / "site-1" / "sums_begun.jsonl").unlink()
    assert drawn(again) == 1


@pytest.mark.parametrize("asked", [stat.S_ISREG, stat.S_ISDIR], ids=["file", "folder"])
def test_a_draw_is_on_the_disk_before_it_is_told(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it cannot be written nobody is told of it; where all share secrets nothing is drawn."""
    federation = Federation(updates(10), DRAWN, folder=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", refuses(asked))
        assert drawn(federation) == 0
    everybody = Federation(updates(5), FIVE, folder=tmp_path / "all")
    assert drawn(everybody) == 5
    assert not list((tmp_path / "all").rglob("sums_begun.jsonl"))
