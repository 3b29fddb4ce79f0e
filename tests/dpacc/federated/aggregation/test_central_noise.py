"""A trusted server's noise: updates clipped and summed, and charged before the release."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dpacc_accounting import (
    Gaussian,
    LedgerError,
    PoissonSampled,
    price_federation,
    read_federation,
    read_ledger,
)
from dpacc_accounting.ledger.claims import claim_of
from scipy import stats

from dpacc.errors import PrivacyError
from dpacc.federated.aggregation.central_noise import CentralNoise
from dpacc.federated.aggregation.client_level import ClientPrivacy
from dpacc.federated.server.history import History
from dpacc.federated.updates.layout import Arrays, flat, trainable_arrays
from dpacc.randomness.run_secret import RunSecret
from tests.dpacc.federated.federations import (
    DELTA,
    die_in_the_second_round,
    server,
    trusting,
)

START: Arrays = {"a": np.zeros((2, 3), np.float32), "b": np.full(4, 0.5, np.float32)}


def privacy(**changes: float) -> ClientPrivacy:
    settings: dict[str, Any] = {"noise_multiplier": 1.0, "clipping_norm": 0.5, "delta": DELTA}
    return ClientPrivacy(**settings | changes)


def noise(folder: Path, *, seed: int = 0, rate: float = 1.0, **changes: float) -> CentralNoise:
    return CentralNoise(
        privacy=privacy(**changes),
        clients=4,
        sampling_rate=rate,
        ledger=folder / f"ledger-{seed}.jsonl",
        secret=RunSecret.from_fixed_seed(seed),
    )


def moved(by: float) -> Arrays:
    return {name: values + np.float32(by) for name, values in START.items()}


def test_the_release_is_the_clipped_sum_over_a_fixed_number(tmp_path: Path) -> None:
    """With almost no noise: Σ Δᵢ·min(1, C/‖Δᵢ‖) over p·n, however many took part."""
    release = noise(tmp_path, rate=0.75, noise_multiplier=1e-9)
    found = flat(release(START, {"a": moved(0.01), "b": moved(-7.0)}).arrays) - flat(START)
    length = np.sqrt(10)
    expected = (0.01 - 0.5 / length) / (4 * 0.75)
    assert np.allclose(found, expected, atol=1e-6)


def test_no_client_moves_the_release_by_more_than_its_share(tmp_path: Path) -> None:
    """With the same noise, one update more, however long, moves the sum by at most C."""
    others = {"a": moved(0.02), "b": moved(0.03)}
    without = flat(noise(tmp_path / "1")(START, others).arrays)
    with_one = flat(noise(tmp_path / "2")(START, {**others, "c": moved(1e6)}).arrays)
    assert np.linalg.norm(with_one - without) * 4 == pytest.approx(0.5, rel=1e-4)


def test_nobody_is_left_out_for_who_came_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a sum is full the round ends: else who is in it would decide who else is."""
    monkeypatch.setattr("dpacc.federated.aggregation.central_noise.MOST_TERMS", 2)
    running = noise(tmp_path).begin(START)
    for node in (1, 2):
        running.add(node, START)
    with pytest.raises(PrivacyError, match="more than 2 updates came in one round"):
        running.add(3, START)


def test_the_noise_is_gaussian_of_the_promised_size(tmp_path: Path) -> None:
    """Over many empty rounds, its elements are N(0, (σC)²): nobody there looks like anybody."""
    release = noise(tmp_path, noise_multiplier=2.0)
    rounds = [flat(release(START, {}).arrays) - flat(START) for _ in range(200)]
    drawn = np.concatenate(rounds) * 4
    assert stats.kstest(drawn, "norm", args=(0, 2.0 * 0.5)).pvalue > 1e-3
    assert release.rounds_charged == 200


def test_each_round_is_charged_before_it_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger holds the sampled Gaussian; where the disk refuses it, nothing comes out."""
    release = noise(tmp_path, rate=0.5)
    release(START, {"a": moved(1.0)})
    event = PoissonSampled(probability=0.5, event=Gaussian(noise_multiplier=1.0))
    assert read_ledger(path=tmp_path / "ledger-0.jsonl").event == event

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(LedgerError):
        release(START, {"a": moved(1.0)})


def test_a_federation_composes_to_what_its_ledger_holds(folder: Path) -> None:
    """Three rounds at rate ½: no ε against the server, that of its books for what is released."""
    federation = server(
        folder, rounds=3, privacy_budget=None, client_privacy=privacy(noise_multiplier=2.0)
    )
    before = trainable_arrays(federation.model)
    clients = [trusting(folder, n) for n in (1, 2)]
    history = federation.train(clients=clients, client_sampling_rate=0.5)
    record = read_ledger(path=folder / "server" / "ledger.jsonl")
    assert len(record.releases) == 3
    (price,) = history.guarantee().prices
    assert price.server.epsilon == float("inf")
    assert 0 < price.released.epsilon < 10
    assert history.federation()["rounds"] == 3
    after = trainable_arrays(federation.model)
    assert any(not np.array_equal(before[name], after[name]) for name in before)
    assert all(not report.failed for report in history.rounds)


def test_a_round_that_was_charged_and_not_kept_is_charged_again(folder: Path) -> None:
    """A server that dies between release and state tells of three charges for its two rounds."""
    clients = [trusting(folder, n) for n in (1, 2)]
    settings: dict[str, Any] = {"privacy_budget": None, "client_privacy": privacy()}
    die_in_the_second_round(server(folder, **settings), clients)
    history = server(folder, **settings).train(clients=clients)
    assert len(history.rounds) == 2
    assert history.federation()["rounds"] == 3
    assert len(read_ledger(path=folder / "server" / "ledger.jsonl").releases) == 3


def test_a_round_that_nobody_joined_looks_like_any_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all coins say no, the adapter moves by noise, and the round is charged."""
    federation = server(folder, rounds=1, privacy_budget=None, client_privacy=privacy())
    before = trainable_arrays(federation.model)
    monkeypatch.setattr(secrets.SystemRandom, "random", lambda self: 1.0)
    history = federation.train(
        clients=[trusting(folder, n) for n in (1, 2)], client_sampling_rate=0.5
    )
    assert history.rounds[0].asked == ()
    after = trainable_arrays(federation.model)
    assert all(not np.array_equal(before[name], after[name]) for name in before)
    assert len(read_ledger(path=folder / "server" / "ledger.jsonl").releases) == 1


def test_a_servers_fixed_seed_voids_its_ledger(tmp_path: Path) -> None:
    """Its ledger can be priced as it is, names the seed, and then claims no ε."""
    release = noise(tmp_path, seed=5)
    release(START, {"a": moved(0.01)})
    release.close()
    record = read_ledger(path=tmp_path / "ledger-5.jsonl")
    claim = claim_of(plan=record.plan, record=record)
    assert (claim.unit, claim.delta) == ("client", DELTA)
    assert claim.void_because == ("the noise came from the fixed seed 5",)


def test_a_servers_fixed_seed_is_in_what_compose_reads(tmp_path: Path) -> None:
    """Also from a ledger whose later rounds came from a secret: one guessable round is enough."""
    path, settings = tmp_path / "ledger.jsonl", {"clients": 4, "sampling_rate": 0.5}
    seeded = RunSecret.from_fixed_seed(5)
    for secret in (seeded, None):
        release = CentralNoise(privacy=privacy(), ledger=path, secret=secret, **settings)
        release(START, {"a": moved(0.01)})
        release.close()
    document = release.federation()
    assert document["rounds"] == 2
    (price,) = price_federation(federation=read_federation(document=document)).prices
    assert price.released.void_because == ("the noise came from the fixed seed 5",)
    assert price.released.epsilon == float("inf")
    history = History(client_level=document)
    assert History.from_json(json.loads(json.dumps(history.to_json()))).guarantee().prices == (
        price,
    )


def test_a_servers_secret_leaves_nothing_to_say(tmp_path: Path) -> None:
    """What is not so is not told: the document of a proper run holds no such field."""
    release = CentralNoise(
        privacy=privacy(), clients=4, sampling_rate=0.5, ledger=tmp_path / "ledger.jsonl"
    )
    release(START, {"a": moved(0.01)})
    release.close()
    assert not {"void_because", "qualified_by"} & release.federation().keys()
