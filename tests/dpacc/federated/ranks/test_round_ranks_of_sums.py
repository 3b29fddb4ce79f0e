"""One rank a round for all where the server adds the noise, or sees sums alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dpacc_accounting import Gaussian, read_ledger
from flwr.app import Array, ArrayRecord, Message

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.client_level import ClientPrivacy
from dpacc.federated.clients.trusting_client import TrustingClient
from dpacc.federated.ranks.round_ranks import FirstRanks
from dpacc.federated.requests import COULD_NOT
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.federated.secure_sum.summing_client import SecureClient
from dpacc.federated.updates.layout import flat, trainable_arrays
from dpacc.randomness.run_secret import RunSecret
from tests.dpacc.federated.federations import client, trusting
from tests.dpacc.federated.ranks.test_round_ranks import (
    LORA,
    ROUNDS,
    Watched,
    begun,
    drawn,
    exactly,
)

NORM = 0.5
PRIVACY = ClientPrivacy(noise_multiplier=2.0, clipping_norm=NORM, delta=1e-3)
TURNS = ClientPrivacy.calibrate(
    rounds=ROUNDS, min_separation=2, epsilon=8.0, delta=1e-3, clipping_norm=NORM
)
SUM = SecureSum(clients=2)


def members(place: Path, kind: str) -> Sequence[Any]:
    """Two clients of a federation of that kind."""
    if kind == "hidden":
        private = [client(place, n, lora_config=LORA) for n in (1, 2)]
        return [SecureClient(client=each, secure_sum=SUM) for each in private]
    open_ones = [trusting(place, n, lora_config=LORA) for n in (1, 2)]
    if kind != "shared":
        return open_ones
    own: dict[str, Any] = {"secure_sum": SUM, "privacy": PRIVACY, "most_rounds": 9}
    return [SecureClient(client=each, **own) for each in open_ones]


SERVERS: dict[str, dict[str, Any]] = {
    "central": {"privacy_budget": None, "client_privacy": PRIVACY},
    "turns": {"privacy_budget": None, "client_privacy": TURNS},
    "shared": {"privacy_budget": None, "client_privacy": PRIVACY, "secure_sum": SUM},
    "hidden": {"secure_sum": SUM},
}


@pytest.mark.parametrize("kind", SERVERS)
def test_beyond_a_rounds_rank_no_sum_moves_anything(folder: Path, kind: str) -> None:
    """Noise falls on all first rows and columns, and on no other: of independent noise, of noise
    that is taken back, of shares in a sum, and of each client's own.
    """
    seen, federation = Watched(), begun(folder, **SERVERS[kind])
    history = federation.train(clients=members(folder, kind), aggregation="average", measure=seen)
    assert len(history.rounds) == ROUNDS
    assert not any(report.failed for report in history.rounds)
    assert seen.moved == exactly(drawn())


class Huge(TrustingClient):
    """Sends a millionfold of what it trained."""

    def answer(self, message: Message) -> Message:
        """An honest answer, scaled."""
        reply = super().answer(message)
        arrays = reply.content.array_records["arrays"]
        reply.content["arrays"] = ArrayRecord(
            {n: Array(1e6 * a.numpy()) for n, a in arrays.items()}
        )
        return reply


class Silent(TrustingClient):
    """Gives nothing."""

    def answer(self, message: Message) -> Message:
        """Fails."""
        self._standstill.path.parent.mkdir(exist_ok=True)
        self._standstill.path.write_text("{}")
        return super().answer(message)


def test_a_client_more_moves_the_first_rows_by_the_norm_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same noise, one client more, however long its update, moves the sum by C, within the
    round's rank, and nothing beyond it; each round costs one Gaussian of σ, at whatever rank.
    """
    monkeypatch.setattr(RunSecret, "generate", lambda: RunSecret.from_fixed_seed(3))
    found = {}
    for kind in (Huge, Silent):
        place = folder / kind.__name__
        place.mkdir()
        (place / "model").symlink_to(folder / "model")
        honest, other = members(place, "central")
        other.__class__ = kind
        federation = begun(place, rounds=1, **SERVERS["central"])
        start = trainable_arrays(federation.model)
        random.seed(0)  # orders the honest one's batches
        (report,) = federation.train(clients=[honest, other], aggregation="average").rounds
        assert len(report.survivors) == (2 if kind is Huge else 1)
        assert [*report.failed.values()] == ([] if kind is Huge else [COULD_NOT])
        found[kind] = trainable_arrays(federation.model)
        event = read_ledger(path=place / "server" / "ledger.jsonl").event
        assert event == Gaussian(noise_multiplier=PRIVACY.noise_multiplier)
    (rank,) = drawn(rounds=1)
    first = FirstRanks(rank=rank, whole=start)
    for after in found.values():
        assert all(np.array_equal(first.kept(after)[name], after[name]) for name in after)
    moved = 2 * (flat(found[Huge]) - flat(found[Silent]))
    assert np.linalg.norm(moved) == pytest.approx(NORM, rel=1e-3)


def test_a_trusting_client_trains_the_adapter_cut_to_the_rank(folder: Path) -> None:
    """What does not learn is zero in its forwards, and stays zero while it trains."""
    federation = begun(folder, rounds=1, **SERVERS["central"])
    only, _ = clients = members(folder, "central")
    federation.train(clients=clients, aggregation="average")
    trained = trainable_arrays(only._training._model)
    (rank,) = drawn(rounds=1)
    first = FirstRanks(rank=rank, whole=trained)
    assert all(np.array_equal(first.silenced(trained)[name], trained[name]) for name in trained)
    assert all(values.any() for values in first.narrow(trained).values())


def test_plain_factors_are_still_not_summed(folder: Path) -> None:
    """Both factors at every rank, whose mean is no model's, stay refused at client level."""
    plain = {"lora_config": replace(LORA, method="lora")}
    with pytest.raises(ConfigurationError, match="client_privacy with aggregation='average'"):
        begun(folder, **SERVERS["central"], **plain).train(
            clients=[trusting(folder, n, **plain) for n in (1, 2)], aggregation="average"
        )
