"""Central noise that is correlated between rounds: what is released, charged, and who is in it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dpacc_accounting import LedgerError, epsilon, read_ledger
from dpacc_accounting.factorization.buffered import ToeplitzColumn
from dpacc_accounting.federation.rounds import CorrelatedRounds
from dpacc_accounting.gaussian import gaussian_epsilon
from dpacc_accounting.ledger.claims import claim_of
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from scipy import stats

from dpacc.errors import ConfigurationError, PrivacyError
from dpacc.federated.aggregation.central_noise import CentralNoise
from dpacc.federated.aggregation.client_level import ClientPrivacy
from dpacc.federated.aggregation.listed_clients import UNLISTED, ListedClients
from dpacc.federated.requests import read_packing
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.federated.server.history import History
from dpacc.federated.server.in_process_grid import LocalGrid
from dpacc.federated.server.strategy import FederatedLoRA
from dpacc.federated.updates.layout import Arrays, flat, from_record, to_record
from dpacc.randomness.run_secret import RunSecret
from tests.dpacc.federated.federations import die_in_the_second_round, server, trusting

START: Arrays = {"layer.lora_B.weight": np.zeros((5, 2), np.float32)}
DELTA, SIGMA, NORM, CLIENTS = 1e-5, 1.5, 0.5, 6
KINDS = {
    "bands": ToeplitzColumn(coefficients=(0.8, 0.5, 0.33)),
    "buffers": ToeplitzColumn(coefficients=(0.7,), weights=(0.4, 0.2), decays=(0.9, 0.3)),
    "independent": ToeplitzColumn(coefficients=(1.0,)),
}


def privacy(kind: str) -> ClientPrivacy:
    return ClientPrivacy(
        noise_multiplier=SIGMA,
        clipping_norm=NORM,
        delta=DELTA,
        correlated=CorrelatedRounds(min_separation=3, column=KINDS[kind]),
    )


def central(
    folder: Path, kind: str, *, seed: int | None = None, listed: ListedClients | None = None
) -> CentralNoise:
    return CentralNoise(
        privacy=privacy(kind),
        clients=CLIENTS,
        sampling_rate=1.0,
        ledger=folder / "ledger.jsonl",
        secret=None if seed is None else RunSecret.from_fixed_seed(seed),
        listed=listed,
    )


def sums(release: CentralNoise, given: Iterable[dict[int, float]]) -> np.ndarray:
    """What each round releases, times what it was divided by, over C: [rounds, 10]."""
    found = []
    for updates in given:
        assert release.turns is not None
        for node in updates:
            release.turns.join(node, f"site-{node}")
        arrays = {
            f"site-{node}": {name: values + np.float32(by) for name, values in START.items()}
            for node, by in updates.items()
        }
        found.append(flat(release(START, arrays).arrays))
    return np.stack(found) * (CLIENTS / 3) / NORM


def strategy(kind: str, rounds: int, restarts: tuple[int, ...] = ()) -> np.ndarray:
    """C, cut into blocks where a new secret begins."""
    said = KINDS[kind]
    column = np.array([*said.coefficients, *[0.0] * rounds][:rounds])
    for weight, decay in zip(said.weights, said.decays, strict=True):
        column[1:] += weight * decay ** np.arange(rounds - 1)
    at = np.subtract.outer(np.arange(rounds), np.arange(rounds))
    block = np.searchsorted(restarts, np.arange(rounds), side="right")
    return np.where((at >= 0) & (block[:, None] == block), column[np.maximum(at, 0)], 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_its_noise_is_the_inverses_and_a_restart_begins_a_new_block(
    tmp_path: Path, kind: str
) -> None:
    """Chi-square over 40 keys: C times the rounds' noise is white of variance σ², after a restart
    at round 4 in two blocks.
    """
    seen = []
    for key in range(40):
        rounds = []
        for seed, count in ((key, 4), (key + 1000, 3)):
            release = central(tmp_path / str(key), kind, seed=seed)
            rounds.append(sums(release, [{}] * count))
            release.close()
        seen.append(strategy(kind, 7, (4,)) @ np.concatenate(rounds) / SIGMA)
    white = np.concatenate(seen, axis=1)
    surprise = stats.chi2(white.size).cdf(np.square(white).sum())
    assert 1e-4 < surprise < 1 - 1e-4
    covariance = white @ white.T / white.shape[1]
    assert np.abs(covariance - np.eye(7)).max() < 5 / math.sqrt(white.shape[1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_moves_the_rounds_by_what_was_charged(tmp_path: Path, kind: str) -> None:
    """With the same noise, one client more in rounds 0, 3 and 6, however long its updates: C times
    the difference is as long as the ledger's S, and no longer.
    """
    others = [{2: 0.1}, {}, {}, {2: -0.1}, {}, {}, {2: 0.1}]
    turn = [{**known, 3: 1e6} if number % 3 == 0 else known for number, known in enumerate(others)]
    with_one = central(tmp_path / "with", kind, seed=5)
    without = central(tmp_path / "without", kind, seed=5)
    moved = strategy(kind, 7) @ (sums(with_one, turn) - sums(without, others))
    charged = read_ledger(path=tmp_path / "with" / "ledger.jsonl").event
    assert charged.rounds == 7
    assert np.linalg.norm(moved) == pytest.approx(charged.sensitivity, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_after_every_round_the_books_hold_what_was_released(tmp_path: Path, kind: str) -> None:
    """The ledger's price is one Gaussian's closed form, and `dpacc compose`'s, restart or not."""
    matrix = strategy(kind, 8)
    release = central(tmp_path, kind)
    for number in range(8):
        if number == 5:
            release.close()
            release = central(tmp_path, kind)
        sums(release, [{}])
        record = read_ledger(path=tmp_path / "ledger.jsonl")
        claim = claim_of(plan=record.plan, record=record)
        moved = np.linalg.norm(matrix[: number + 1, 0 : number + 1 : 3].sum(axis=1))
        exact = gaussian_epsilon(mu=float(moved) / SIGMA, delta=DELTA)
        assert claim.epsilon == pytest.approx(exact, rel=1e-9)
        history = History(client_level=release.federation())
        (price,) = history.guarantee().prices
        assert price.released.epsilon == pytest.approx(exact, rel=1e-9)


def test_participants_are_on_the_disk_before_the_charge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A charge that fails finds them there; where they cannot be written, nothing is charged."""
    release = central(tmp_path, "bands")
    whole, calls = os.fsync, []

    def refuse_the_second(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        whole(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_the_second)
    with pytest.raises(LedgerError):
        sums(release, [{3: 1.0}])
    assert '"nodes": [3]' in (tmp_path / "took_part.jsonl").read_text()
    release.close()
    monkeypatch.setattr(os, "fsync", whole)
    again = central(tmp_path, "bands")
    assert again.rounds_charged == 0
    assert again.turns is not None
    assert not again.turns.is_due(3)

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        sums(again, [{}])
    monkeypatch.setattr(os, "fsync", whole)
    assert again.rounds_charged == 0


def test_an_update_of_nobody_known_is_not_released(tmp_path: Path) -> None:
    """Whoever calls it without saying whose the updates are gets nothing, and is not charged."""
    release = central(tmp_path, "bands")
    with pytest.raises(PrivacyError, match="release nothing"):
        release(START, {"x": START})
    assert release.rounds_charged == 0


def test_a_server_without_its_list_of_participants_does_not_start(tmp_path: Path) -> None:
    """And lets go of the ledger, which can be opened again once the file is back."""
    release = central(tmp_path, "bands")
    sums(release, [{}])
    release.close()
    path = tmp_path / "took_part.jsonl"
    kept = path.read_bytes()
    path.unlink()
    with pytest.raises(ConfigurationError, match="is missing"):
        central(tmp_path, "bands")
    path.write_bytes(kept)
    central(tmp_path, "bands").close()


class Sites(LocalGrid):
    """Clients without a model: each moves every number by its own amount, if it answers."""

    def __init__(self, names: dict[int, str]) -> None:
        self.silent: set[int] = set()
        super().__init__({node: self._site(node, name) for node, name in names.items()})

    def _site(self, node: int, name: str) -> ClientApp:
        app = ClientApp()

        @app.train()
        def train(message: Message, context: Context) -> Message:
            if node in self.silent:
                raise RuntimeError("no answer")
            start = from_record(message.content.array_records["arrays"], like=START)
            update = {key: values + np.float32(0.01) for key, values in start.items()}
            packing = read_packing(message.content.config_records["config"])
            content = {
                "arrays": packing.pack(update, start=start, client=name),
                "config": ConfigRecord({"client": name}),
            }
            return Message(RecordDict(content), reply_to=message)

        return app


def rounds_of(
    folder: Path,
    grid: Sites,
    *,
    history: History,
    rounds: int,
    listed: ListedClients | None = None,
) -> History:
    """So many rounds of a server with bands, begun or restarted in that folder."""
    release = central(folder, "bands", listed=listed)
    plan = FederatedLoRA(
        start=START,
        aggregation=release,
        budget=None,
        clients=1,
        sampling_rate=1.0,
        history=history,
        connect_timeout=1.0,
        measure=lambda arrays: {},
        after_round=lambda arrays, known: None,
    )
    asked = ConfigRecord({"run": "a", "local-epochs": 1.0})
    plan.start(grid=grid, initial_arrays=to_record(START), num_rounds=rounds, train_config=asked)
    release.close()
    return history


def test_a_federation_asks_each_client_every_b_rounds_across_a_restart(tmp_path: Path) -> None:
    """Six clients, b = 3: two a round; a restarted server goes on where it was."""
    grid = Sites({node: f"site-{node}" for node in range(1, 7)})
    history = rounds_of(tmp_path, grid, history=History(), rounds=4)
    rounds_of(tmp_path, grid, history=history, rounds=4)
    turns = [sorted(report.survivors) for report in history.rounds]
    due = [["site-3", "site-6"], ["site-1", "site-4"], ["site-2", "site-5"]]
    assert turns == (due * 3)[:8]
    assert read_ledger(path=tmp_path / "ledger.jsonl").event.rounds == 8


def test_who_says_anothers_name_is_left_out_by_the_list(tmp_path: Path) -> None:
    """Of four that answer, one with another's name, one that nobody listed: it is said why."""
    listed = ListedClients(names={3: "site-3", 6: "site-6", 5: "site-5"})
    grid = Sites({3: "site-3", 6: "site-3", 5: "site-5", 9: "site-9"})
    history = rounds_of(tmp_path, grid, history=History(), rounds=4, listed=listed)
    used = [(report.number, name) for report in history.rounds for name in report.survivors]
    assert used == [(1, "site-3"), (3, "site-5"), (4, "site-3")]
    assert "node 6 says that it is site-3" in history.rounds[0].failed["node 6"]
    assert [note.subject for note in read_ledger(path=tmp_path / "ledger.jsonl").notes] == []


def test_without_a_list_the_ledger_says_what_a_client_is(tmp_path: Path) -> None:
    """Once, whatever names are given, so that the note tells nothing of who is there."""
    grid = Sites({3: "site-3", 6: "site-3"})
    history = rounds_of(tmp_path, grid, history=History(), rounds=1)
    rounds_of(tmp_path, grid, history=history, rounds=1)
    assert len(history.rounds[0].survivors) == 2
    assert read_ledger(path=tmp_path / "ledger.jsonl").notes == (UNLISTED,)


def test_who_does_not_answer_is_asked_in_the_next_round(tmp_path: Path) -> None:
    """Its turn is not lost, and its wait begins when it takes part."""
    grid = Sites({3: "site-3"})
    grid.silent = {3}
    history = rounds_of(tmp_path, grid, history=History(), rounds=2)
    grid.silent = set()
    rounds_of(tmp_path, grid, history=history, rounds=4)
    assert [len(report.asked) for report in history.rounds] == [1, 1, 1, 0, 0, 1]
    assert [len(report.survivors) for report in history.rounds] == [0, 0, 1, 0, 0, 1]


def test_a_whole_federation_and_its_restart(folder: Path) -> None:
    """A server that dies after a release runs that round again with other clients, charges it, and
    tells of three charges; its claim is that of three rounds.
    """
    told = ClientPrivacy.calibrate(
        rounds=2, min_separation=2, epsilon=8.0, delta=DELTA, clipping_norm=0.5
    )
    settings: dict[str, Any] = {"privacy_budget": None, "client_privacy": told}
    clients = [trusting(folder, n) for n in (1, 2)]
    die_in_the_second_round(server(folder, **settings), clients)
    history = server(folder, **settings).train(clients=clients)
    assert [report.survivors for report in history.rounds] == [("site-2",), ("site-2",)]
    record = read_ledger(path=folder / "server" / "ledger.jsonl")
    assert (record.event.rounds, record.event.turns) == (3, 2)
    (price,) = history.guarantee().prices
    assert price.released.epsilon == pytest.approx(
        epsilon(event=record.event, delta=DELTA).epsilon, rel=1e-12
    )
    taken = (folder / "server" / "took_part.jsonl").read_text()
    assert [line.split('"names": ')[1] for line in taken.splitlines()] == [
        '["site-2"]}',
        '["site-1"]}',
        '["site-2"]}',
    ]
    with pytest.raises(ConfigurationError, match="nodes 1 and 2 are both called site-1"):
        server(folder, **settings).train(clients=[clients[0], trusting(folder, 1)])
    with pytest.raises(ConfigurationError, match="drawn afresh could take part again too soon"):
        server(folder, **settings).train(clients=clients, client_sampling_rate=0.5)
    with pytest.raises(ConfigurationError, match="secure_sum with correlated noise"):
        server(folder, **settings, secure_sum=SecureSum(clients=2)).train(clients=clients)


def test_calibration_meets_its_target_in_what_a_ledger_says(tmp_path: Path) -> None:
    """Bands and buffers: after all rounds ε is at most the target, and nearly it."""
    for correlation in ("banded", "buffers", "independent"):
        told = ClientPrivacy.calibrate(
            rounds=12,
            min_separation=4,
            epsilon=4.0,
            delta=DELTA,
            clipping_norm=NORM,
            correlation=correlation,  # type: ignore[arg-type]
        )
        place = tmp_path / correlation
        release = CentralNoise(
            privacy=told, clients=8, sampling_rate=1.0, ledger=place / "ledger.jsonl"
        )
        for _ in range(12):
            release(START, {})
        record = read_ledger(path=place / "ledger.jsonl")
        spent = claim_of(plan=record.plan, record=record).epsilon
        assert 3.999 < spent <= 4.0


def test_what_is_no_correlation_is_refused() -> None:
    """A column that increases, a wait of no rounds, and targets out of range, in one line."""
    for wrong in ((0, (1.0,)), (2, (0.1, 0.9)), (2, ())):
        with pytest.raises(ConfigurationError, match="correlated: "):
            ClientPrivacy(
                noise_multiplier=1.0,
                clipping_norm=1.0,
                delta=DELTA,
                correlated=CorrelatedRounds(
                    min_separation=wrong[0], column=ToeplitzColumn(coefficients=wrong[1])
                ),
            )
    for changes in ({"rounds": 0}, {"epsilon": -1.0}, {"correlation": "tree"}):
        asked: dict[str, Any] = {"rounds": 5, "min_separation": 2, "epsilon": 1.0, "delta": DELTA}
        (name,) = changes
        with pytest.raises(ConfigurationError, match=f"^{name}=.*$"):
            ClientPrivacy.calibrate(**asked | changes, clipping_norm=1.0)


def test_what_servers_without_it_keep_is_as_it_was() -> None:
    """Neither words nor a ledger's plan nor `dpacc compose`'s document name what is not there."""
    usual = ClientPrivacy(noise_multiplier=1.0, clipping_norm=0.5, delta=1e-6)
    assert str(usual) == (
        "ClientPrivacy(noise_multiplier=1.0, clipping_norm=0.5, delta=1e-06, unit='client')"
    )
    assert "correlated" not in usual.stated
    assert "correlated" not in usual.federation(sampling_rate=1.0, rounds=3)
    assert "correlated" not in SecureSum(clients=3).agreed(usual)
    assert usual.min_separation == 1
