"""The server's state: what a round costs to keep, however many there were."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dpacc.errors import ConfigurationError, DiskRefused
from dpacc.federated.server.history import ClientBooks, History, RoundReport, read_history
from dpacc.federated.server.kept_state import KeptState, State

BOOKS = ClientBooks(
    epsilon=1.0,
    delta=1e-5,
    epsilon_budget=8.0,
    noise_multiplier=1.25,
    sampling_probability=0.125,
    steps_charged=1000,
    steps_taken=2,
)


def report(number: int, clients: int) -> RoundReport:
    names = tuple(f"site-{at:03}" for at in range(clients))
    return RoundReport(
        number=number,
        asked=names,
        survivors=names,
        failed={},
        filtered={},
        books={name: replace(BOOKS, steps_charged=1000 + 2 * number) for name in names},
        quality={"films": 0.5},
    )


def after(history: History) -> State:
    arrays = {"B": np.full(4, len(history.rounds), np.float32)}
    return State(run="run", agreed="agreed", history=history, arrays=arrays)


@pytest.mark.parametrize(("rounds", "clients"), [(400, 50), (2000, 1)])
def test_a_round_writes_as_much_as_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: int, clients: int
) -> None:
    """The bytes that a round adds or rewrites do not grow, and all rounds are read again."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # the disk's own time is no matter here
    kept, history, written = KeptState(tmp_path), History(), []
    history.nodes = {f"site-{at:03}": at for at in range(clients)}
    assert kept.read() is None
    kept.keep(after(history))
    lines = tmp_path / "rounds.jsonl"
    for number in range(1, rounds + 1):
        history.rounds.append(report(number, clients))
        before = lines.stat().st_size
        kept.keep(after(history))
        written.append(lines.stat().st_size - before + kept.path.stat().st_size)
    assert max(written) < 1.02 * min(written) + 20
    found = KeptState(tmp_path).read()
    assert found is not None
    assert found.history == history
    assert read_history(path=kept.path) == history
    assert found.history.steps_seen("site-000") == 1000 + 2 * rounds


def test_all_that_a_state_names_is_on_the_disk_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter, the round's line and the folder that lists them; where the disk refuses the
    adapter, the state of the round before stays.
    """
    kept, history = KeptState(tmp_path), History()
    kept.keep(after(history))
    done: list[str] = []
    sync, exchange = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    def exchanged(path: Path, target: Path) -> Path:
        done.append("exchanged")
        return exchange(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", exchanged)
    history.rounds.append(report(1, 2))
    kept.keep(after(history))
    assert done == [
        *(".adapter-0001.safetensors.partial", "exchanged", "rounds.jsonl", tmp_path.name),
        *(".state.json.partial", "exchanged", tmp_path.name),
    ]

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(DiskRefused, match="No space"):
        kept.keep(after(History(rounds=[*history.rounds, report(2, 2)])))
    monkeypatch.setattr(os, "fsync", sync)
    found = KeptState(tmp_path).read()
    assert found is not None
    assert found.history == history


def test_steps_seen_are_not_counted_anew_for_every_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each round is looked at once, and later ones are not forgotten."""
    history = History(rounds=[report(1, 3)])
    monkeypatch.setattr(History, "_books", lambda _: pytest.fail("all rounds were looked at again"))
    assert history.steps_seen("site-000") == 1002
    history.rounds.append(report(2, 1))
    assert [history.steps_seen(f"site-00{at}") for at in (0, 1, 7)] == [1004, 1002, 0]


def test_a_state_with_all_rounds_in_one_file_is_taken_up(tmp_path: Path) -> None:
    """As earlier versions wrote it; the next round puts all of them in the file of lines."""
    kept, history = KeptState(tmp_path), History(rounds=[report(1, 2), report(2, 2)])
    kept.keep(after(history))
    document = json.loads(kept.path.read_text())
    del document["rounds"]
    kept.path.write_text(json.dumps(document | {"history": history.to_json()}))
    (tmp_path / "rounds.jsonl").unlink()
    again = KeptState(tmp_path)
    found = again.read()
    assert found is not None
    assert found.history == history
    found.history.rounds.append(report(3, 2))
    again.keep(after(found.history))
    last = KeptState(tmp_path).read()
    assert last is not None
    assert [each.number for each in last.history.rounds] == [1, 2, 3]


def test_a_round_whose_state_was_not_kept_never_was(tmp_path: Path) -> None:
    """Killed between its line and the state that names it: the round before it stands."""
    kept, history = KeptState(tmp_path), History(rounds=[report(1, 2)])
    kept.keep(after(history))
    with (tmp_path / "rounds.jsonl").open("a") as file:
        file.write(json.dumps(report(2, 2).to_json()) + '\n{"number": 3, "as')
    again = KeptState(tmp_path)
    found = again.read()
    assert found is not None
    assert [each.number for each in found.history.rounds] == [1]
    found.history.rounds.append(report(2, 1))
    again.keep(after(found.history))
    last = KeptState(tmp_path).read()
    assert last is not None
    assert last.history.rounds[1].asked == ("site-000",)


def test_rounds_that_count_and_are_gone_are_refused(tmp_path: Path) -> None:
    """By the state's name, in one line: steps that clients have paid for must not be forgotten."""
    kept = KeptState(tmp_path)
    kept.keep(after(History(rounds=[report(1, 2)])))
    (tmp_path / "rounds.jsonl").unlink()
    with pytest.raises(ConfigurationError, match=r"state\.json is damaged"):
        KeptState(tmp_path).read()
