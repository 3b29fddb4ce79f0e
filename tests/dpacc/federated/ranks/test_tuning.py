"""Proposals: sizes as they are sent, noise as it is calibrated, variance as it is drawn."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from dpacc.errors import ConfigurationError
from dpacc.federated.ranks.model_shape import shape_of
from dpacc.federated.ranks.tuning import (
    COMPRESSIONS,
    AdapterShape,
    Participant,
    added_variance,
    participant,
    proposals,
    recommended,
    signal_to_noise,
)
from dpacc.federated.settings import LoraSettings
from dpacc.federated.updates.compressed_updates import compress, decompress
from dpacc.federated.updates.compression import Compression, PublicCoins
from dpacc.federated.updates.layout import trainable_arrays
from tests.dpacc.federated.federations import LORA, client, server

SHAPE = AdapterShape(layers=((576, 576, 30), (192, 576, 30)))


def north(**changes: float) -> Participant:
    settings = {"dataset_size": 2000, "batch_size": 50, "rounds": 3, "local_epochs": 1.0}
    budget = {"epsilon": 8.0, "delta": 1e-4}
    return participant(name="north", **settings | budget | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["ffa", "lora"])
def test_a_models_shape_is_that_of_its_adapter(folder: Path, method: str) -> None:
    """At any rank, the numbers counted from the architecture are those the server would send."""
    for rank in (2, 5):
        lora = LoraSettings(rank=rank, method=method, target_modules=LORA.target_modules)  # type: ignore[arg-type]
        model = server(folder, lora_config=lora).model
        count = sum(values.size for values in trainable_arrays(model).values())
        assert shape_of(model=str(folder / "model"), lora=lora).trained(rank) == count


def test_a_client_is_given_the_noise_that_it_will_train_with(folder: Path) -> None:
    """σ, q and steps are those of a client of the same size, budget and rounds."""
    one = client(folder, 1)
    server(folder, num_clients=1).train(clients=[one])
    plan = one.training.plan
    found = participant(
        name="one",
        dataset_size=plan.dataset_size,
        batch_size=4,
        rounds=2,
        local_epochs=1.0,
        epsilon=20.0,
        delta=1e-3,
    )
    assert found.noise.noise_multiplier == plan.noise_multiplier
    assert found.noise.steps == plan.steps == 2 * found.steps_per_round
    assert found.noise.guarantee.epsilon <= 20.0


def test_signal_to_noise_is_that_of_sums_that_all_agree() -> None:
    """A simulation of two clients' sums of equal gradients of norm C, with their noise."""
    clients = [north(), north(batch_size=20, epsilon=2.0)]
    trained, draw = 4000, np.random.default_rng(0)
    signal, noise = np.zeros(trained), np.zeros(trained)
    direction = np.full(trained, 1 / math.sqrt(trained))
    for each in clients:
        for _ in range(each.noise.steps):
            signal += each.batch_size * direction
            noise += draw.normal(size=trained) * each.noise.noise_multiplier
    found = signal_to_noise(clients, trained=trained, compression=None)
    ratio = float(np.linalg.norm(signal) / np.linalg.norm(noise))
    assert found == pytest.approx(ratio, rel=0.05)


@pytest.mark.parametrize("compression", [each for each in COMPRESSIONS if each is not None])
def test_the_variance_that_compression_adds_is_bounded_and_not_by_far(
    compression: Compression,
) -> None:
    """Of normal numbers: what is drawn lies between two fifths of ω and ω."""
    vector = np.random.default_rng(1).normal(size=8192).astype(np.float32)
    errors = []
    for number in range(20):
        coins = PublicCoins(run="r", number=number, client="a")
        sent = compress(vector, compression=compression, coins=coins)
        arrived = decompress(sent, compression=compression, count=8192, coins=coins)
        errors.append(np.square(arrived - vector).sum() / np.square(vector).sum())
    assert 0.4 < np.mean(errors) / added_variance(compression) < 1.03


def test_proposals_fit_and_the_recommended_one_is_the_largest_with_signal_enough() -> None:
    """All within the bytes; no larger rank has the signal, no other compression of it more."""
    clients = [north()]
    found = proposals(shape=SHAPE, clients=clients, upload_bytes=1e5, download_bytes=2e6)
    assert {each.rank for each in found} == {1, 2, 4, 8, 16}
    assert all(each.upload_bytes <= 1e5 and each.download_bytes <= 2e6 for each in found)
    best = recommended(found, least_signal=2.0)
    assert best.signal_to_noise >= 2.0
    for other in found:
        if other.rank >= best.rank:
            assert other == best or other.signal_to_noise < max(2.0, best.signal_to_noise)
    hopeless = recommended(found, least_signal=1e9)
    assert hopeless.signal_to_noise == max(each.signal_to_noise for each in found)


def test_where_nothing_fits_the_least_is_named() -> None:
    """The error says what the smallest proposal takes."""
    with pytest.raises(ConfigurationError, match="rank 1 sends at least 584 bytes"):
        proposals(shape=SHAPE, clients=[north()], upload_bytes=100)


def test_a_biased_compression_has_no_variance_to_add() -> None:
    """The largest numbers, or a limit, depend on what they are given: refused."""
    for compression in (Compression(keep=0.1), Compression(bits=8, limit=1.0)):
        with pytest.raises(ConfigurationError, match="without bias"):
            added_variance(compression)
