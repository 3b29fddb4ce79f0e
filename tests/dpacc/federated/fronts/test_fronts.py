"""Names of dp-federated-lora-lab make this package's own settings, or say what to use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from dpacc_accounting import Gaussian, PoissonSampled, Repeated, epsilon

from dpacc.errors import ConfigurationError
from dpacc.federated import (
    AdaptiveRankSelector,
    ByzantineRobustAggregator,
    CompressedDPLoRA,
    Compression,
    Defence,
    PersonalizedDPLoRA,
    PrivacyAccountant,
    PrivateRank,
    SecureAggregator,
    SecureClient,
    SecureSum,
    largest_budget,
)
from dpacc.federated.server.history import History, RoundReport
from tests.dpacc.federated.federations import client, server


def test_each_front_is_the_settings_that_it_stands_for() -> None:
    """Field by field, with shares of clients rounded up, and decimals as they are written."""
    summed = SecureAggregator(clients=10, protocol="masking", colluding=1)
    assert asdict(summed) == asdict(SecureSum(clients=10, protocol="pairwise", colluding=1))
    assert SecureAggregator(clients=5, protocol="homomorphic").protocol == "ckks"
    assert [SecureAggregator(clients=n, threshold=0.7).fewest for n in (10, 11)] == [7, 8]
    assert SecureAggregator(clients=10, threshold=7).fewest == 7
    robust = ByzantineRobustAggregator(clients=30, method="trimmed_mean", byzantine_fraction=0.1)
    assert asdict(robust) == asdict(Defence(rule="trimmed-mean", attackers=3))
    median = ByzantineRobustAggregator(
        clients=7, method="coordinate_median", byzantine_fraction=0.2
    )
    assert (median.rule, median.attackers) == ("median", 2)
    packed = CompressedDPLoRA(compression_rate=0.1, quantization_bits=8)
    assert packed.words == Compression(bits=8, keep=0.1, selection="random").words
    chosen = AdaptiveRankSelector(min_rank=4, max_rank=20, privacy_budget_per_selection=0.1)
    assert asdict(chosen) == asdict(PrivateRank(epsilon=0.1, candidates=(4, 8, 16, 20)))


def test_the_fronts_go_where_the_settings_go(folder: Path) -> None:
    """A client chooses its rank by one; a federation sums by another, agreed with a SecureSum."""
    ranked = client(
        folder,
        1,
        rank=AdaptiveRankSelector(min_rank=1, max_rank=2, privacy_budget_per_selection=0.1),
    )
    assert ranked._own_rank.set_aside == 0.1
    clients = [
        SecureClient(client=client(folder, n), secure_sum=kind(clients=2))
        for n, kind in ((2, SecureSum), (3, SecureAggregator))
    ]
    run = server(folder, rounds=1, secure_sum=SecureAggregator(clients=2))
    report = run.train(clients=clients).rounds[0]
    assert report.survivors == ("site-2", "site-3"), report.failed


def test_personal_budgets_are_a_mapping_of_settings() -> None:
    """Shared settings with each client's own ε; another δ is refused where it is named."""
    personal = PersonalizedDPLoRA(expected_batch_size=16, learning_rate=0.01)
    personal.set_client_privacy("strict", {"epsilon": 1.0, "delta": 1e-5})
    personal.set_client_privacy("relaxed", {"epsilon": 8.0, "delta": 1e-5, "learning_rate": 0.1})
    assert [*personal] == ["strict", "relaxed"]
    assert personal["strict"].learning_rate == 0.01
    assert personal["relaxed"].learning_rate == 0.1
    assert largest_budget(personal).epsilon == 8.0
    with pytest.raises(ConfigurationError, match=r"lab's delta=0.0001 and strict's 1e-05"):
        personal.set_client_privacy("lab", {"epsilon": 50.0, "delta": 1e-4})
    assert len(personal) == 2


def test_the_accountant_prices_by_certified_bounds() -> None:
    """Ten steps counted, or ten composed: the ε of the event, with all that belongs to it."""
    books = PrivacyAccountant(mechanism="gaussian", sampling_rate=0.1, noise_multiplier=1.1)
    for _ in range(10):
        books.step()
    step = PoissonSampled(probability=0.1, event=Gaussian(noise_multiplier=1.1))
    exact = epsilon(event=Repeated(event=step, times=10), delta=1e-5)
    assert books.guarantee(delta=1e-5) == exact
    assert books.get_epsilon(delta=1e-5) == exact.epsilon
    assert books.compute_epsilon(num_compositions=10, delta=1e-5) == exact.epsilon
    looser = books.compute_epsilon(num_compositions=10, delta=1e-5, method="rdp")
    assert looser > exact.epsilon


def history_of(**quality: float) -> History:
    report = RoundReport(
        number=1, asked=(), survivors=(), failed={}, filtered={}, books={}, quality=quality
    )
    return History(rounds=[report])


def test_the_final_accuracy_is_what_was_measured_last() -> None:
    """Where the server's measure finds one."""
    assert history_of(accuracy=0.75, loss=0.5).final_accuracy == 0.75


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "Krum inside a sum": (
        lambda: SecureAggregator(clients=10, byzantine_robust=True),
        "look at single updates",
    ),
    "a function of single updates": (
        lambda: SecureAggregator(clients=10).secure_computation(print),
        "nor weights by numbers of examples",
    ),
    "a share for a sum that a server could open": (
        lambda: SecureAggregator(clients=10, threshold=0.5),
        "take 6 to 10",
    ),
    "a share beyond all": (lambda: SecureAggregator(clients=10, threshold=2.5), "at most 1"),
    "no number of clients": (lambda: SecureAggregator(threshold=0.7), "needs clients="),  # type: ignore[call-arg]
    "a protocol that is none": (
        lambda: SecureAggregator(clients=4, protocol="magic"),
        "secagg, pairwise, ckks",
    ),
    "a rule that is none": (
        lambda: ByzantineRobustAggregator(clients=9, method="kram", byzantine_fraction=0.1),
        "rule='kram' must be one of",
    ),
    "all are hostile, and more": (
        lambda: ByzantineRobustAggregator(clients=9, method="krum", byzantine_fraction=1.2),
        "byzantine_fraction=1.2",
    ),
    "aggregating by hand": (
        lambda: ByzantineRobustAggregator(
            clients=9, method="krum", byzantine_fraction=0.1
        ).aggregate(client_updates=[], similarity_metric="cosine"),
        "server.train as defence=",
    ),
    "compressing before the noise": (
        lambda: CompressedDPLoRA(compression_rate=0.1, privacy_aware_compression=False),
        "after their noise",
    ),
    "six bits": (lambda: CompressedDPLoRA(quantization_bits=6), "bits=6 must be 32, 8 or 4"),
    "a target alone": (
        lambda: CompressedDPLoRA(compression_rate=0.1).optimize_compression_privacy_tradeoff(
            target_accuracy=0.85
        ),
        "dpacc federate tune",
    ),
    "statistics that leave a client": (
        lambda: AdaptiveRankSelector(
            min_rank=4, max_rank=8, privacy_budget_per_selection=0.1
        ).select_rank(client_data={}),
        "no statistics of a client's data leave it",
    ),
    "ranks the wrong way round": (
        lambda: AdaptiveRankSelector(min_rank=4, max_rank=2, privacy_budget_per_selection=0.1),
        "max_rank=2 must be a whole number of at least 4",
    ),
    "an unknown shared setting": (lambda: PersonalizedDPLoRA(batch=8), "no entry 'batch'"),
    "training a client by hand": (
        lambda: PersonalizedDPLoRA().train_client(client_id="a"),
        "server.train",
    ),
    "another mechanism": (
        lambda: PrivacyAccountant(sampling_rate=0.1, noise_multiplier=1, mechanism="laplace"),
        "dpacc_accounting.Accountant",
    ),
    "a rate above one": (
        lambda: PrivacyAccountant(sampling_rate=1.1, noise_multiplier=1),
        "sampling_rate=1.1",
    ),
    "another composition": (
        lambda: PrivacyAccountant(sampling_rate=0.1, noise_multiplier=1).compute_epsilon(
            num_compositions=5, delta=1e-5, method="strong"
        ),
        "method='strong'",
    ),
    "one ε for all clients": (lambda: history_of(accuracy=0.5).total_epsilon, "no total ε"),
    "an accuracy that nobody measured": (
        lambda: history_of(movies=0.5).final_accuracy,
        "names movies, and no accuracy",
    ),
    "an accuracy before any round": (lambda: History().final_accuracy, "names nothing"),
}


@pytest.mark.parametrize("named", list(REFUSED))
def test_what_is_unsound_or_unknown_is_answered(named: str) -> None:
    """In one line, with what to use."""
    call, why = REFUSED[named]
    with pytest.raises(ConfigurationError) as refused:
        call()
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)
