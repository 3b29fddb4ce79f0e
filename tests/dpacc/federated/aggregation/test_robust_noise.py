"""Robust rules on updates that are mostly noise, as they are at a real ε."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.averaging import ffa
from dpacc.federated.aggregation.robust import (
    LEAST_SIGNAL,
    Defence,
    defended,
    require_fitting,
)
from dpacc.federated.ranks.tuning import participant, update_signal
from tests.dpacc.federated.federations import client, server
from tests.scripts import load_script


def mostly_noise(signal: float, *, width: int = 20_000, clients: int = 10) -> np.ndarray:
    """Updates of one direction, each in noise of its own of length 1."""
    draw = np.random.default_rng(1)
    direction = np.zeros(width)
    direction[0] = signal
    return direction + draw.normal(size=(clients, width)) / np.sqrt(width)


def progress(rule: Any, moved: np.ndarray, *, signal: float) -> tuple[float, set[str]]:
    """How much of the honest direction is kept, and who was left out."""
    start = {"B": np.zeros(moved.shape[1], np.float32)}
    updates = {str(at): {"B": row.astype(np.float32)} for at, row in enumerate(moved)}
    found = defended(Defence(rule=rule, attackers=2), ffa)(start, updates)
    return float(found.arrays["B"][0]) / signal, set(found.filtered)


@pytest.mark.parametrize("strength", [0.3, 1.0, 3.0])
def test_a_clipped_mean_of_noised_updates_goes_forward(strength: float) -> None:
    """At signal/noise 0.1, two of ten that push back, with noise of their own or without."""
    for own_noise in (0.0, 1.0):
        moved = mostly_noise(0.1)
        moved[:2] *= own_noise
        moved[:2, 0] = -strength
        kept, _ = progress("clipped-mean", moved, signal=0.1)
        assert kept > 0.1


def test_krum_goes_where_a_quiet_attacker_wants() -> None:
    """Two that add no noise are closest to all; the clipped mean finds them too alike."""
    moved = mostly_noise(0.1)
    moved[:2] = 0.0
    moved[:2, 1] = 0.3  # across everybody's direction, so that no cosine tells
    assert progress("krum", moved, signal=0.1) == (0.0, {str(at) for at in range(1, 10)})
    kept, left_out = progress("clipped-mean", moved, signal=0.1)
    assert kept > 0.8
    assert left_out == {"0", "1"}


def test_a_clipped_mean_leaves_out_no_honest_client_and_nobody_weighs_more() -> None:
    """At any signal/noise; one that is twice as long moves the mean by the median length alone."""
    for signal in (0.05, 0.3, 3.0):
        kept, left_out = progress("clipped-mean", mostly_noise(signal), signal=signal)
        assert kept == pytest.approx(1.0, abs=0.1)
        assert left_out == set()
    moved = np.eye(5) * [1.0, 1.0, 1.0, 2.0, 1.0]
    start = {"B": np.zeros(5, np.float32)}
    updates = {str(at): {"B": row.astype(np.float32)} for at, row in enumerate(moved)}
    found = defended(Defence(rule="clipped-mean", attackers=1), ffa)(start, updates)
    assert np.allclose(found.arrays["B"], 0.2)


def test_two_that_push_together_do_not_drive_the_others_out() -> None:
    """In few numbers their direction is the median's: the cosine test would leave them alone."""
    moved = mostly_noise(0.1, width=2000)
    moved[:2] = -3 * moved[2:].mean(axis=0)
    kept, left_out = progress("clipped-mean", moved, signal=0.1)
    assert left_out == {"0", "1"}
    assert kept > 0.5


BENCHMARK = load_script(Path(__file__).parents[4] / "benchmarks/robust_rules.py")
WORST = [name for name in BENCHMARK.ATTACKS if "across" in name]


def worst(rule: str, signal: float) -> float:
    """How far off the result is, as a share of the signal, under the attack that hurts most."""
    pushes = [BENCHMARK.ATTACKS[name] for name in WORST]
    return max(BENCHMARK.error(rule, push, signal, numbers=2000, draws=2) for push in pushes)


@pytest.mark.parametrize("rule", sorted(LEAST_SIGNAL))
def test_a_rule_is_refused_where_it_is_worse_than_none(rule: str) -> None:
    """From its least signal/noise on it is no worse than the plain mean, and below it is."""
    least = LEAST_SIGNAL[rule]
    assert worst(rule, least) <= worst("none", least)
    assert worst(rule, 0.6 * least) > worst("none", 0.6 * least)
    for enough in (Defence(rule=rule, attackers=2, signal_to_noise=least), knowingly(rule)):  # type: ignore[arg-type]
        require_fitting(enough, aggregation="ffa", clients=11)
    low = Defence(rule=rule, attackers=2, signal_to_noise=0.99 * least)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=f"below {least:g} .*clipped-mean.*smaller rank"):
        require_fitting(low, aggregation="ffa", clients=11)
    with pytest.raises(ConfigurationError, match="nobody said what it is"):
        require_fitting(Defence(rule=rule, attackers=2), aggregation="ffa", clients=11)  # type: ignore[arg-type]


def knowingly(rule: str) -> Defence:
    return Defence(rule=rule, attackers=2, despite_noise=True)  # type: ignore[arg-type]


def test_what_survives_any_noise_asks_for_no_signal() -> None:
    """Neither the tests of length and angle nor the clipped mean are refused anywhere."""
    for rule in ("none", "clipped-mean"):
        require_fitting(Defence(rule=rule, attackers=2), aggregation="ffa", clients=11)  # type: ignore[arg-type]


def test_at_a_real_epsilon_a_federation_refuses_what_noise_turns(folder: Path) -> None:
    """At ε = 1 the server computes what one update can hold, and stops before anybody is charged;
    the clipped mean, more signal, and a person who insists all get their rounds.
    """
    dp = {"epsilon": 1.0, "expected_batch_size": 2}
    members = [client(folder, number, dp=dp) for number in range(1, 6)]
    federation = server(folder, num_clients=5, rounds=1)
    with pytest.raises(ConfigurationError, match=r"at a signal-to-noise of at most 0.2.*below 2 "):
        federation.train(clients=members, defence=Defence(rule="krum", attackers=1))
    assert not any((folder / f"site-{number}").exists() for number in range(1, 6))
    insisting = Defence(rule="krum", attackers=1, despite_noise=True)
    assert len(federation.train(clients=members, defence=insisting).rounds) == 1


def test_the_bound_is_that_of_updates_whose_gradients_all_agree() -> None:
    """B·t gradients of norm C along u, in the noise of t steps at the σ of ε = 1: multi-krum takes
    two quiet attackers in, and ends further off than the plain mean.
    """
    one = participant(
        name="a", dataset_size=1200, batch_size=60, rounds=5, local_epochs=1.0, epsilon=1.0,
        delta=1e-5,
    )  # fmt: skip
    numbers, draw = 100_000, np.random.default_rng(0)
    bound = update_signal([one], trained=numbers, compression=None)
    assert 0.1 < bound < LEAST_SIGNAL["multi-krum"]
    steps, deviation = one.steps_per_round, one.noise.noise_multiplier
    summed = deviation * np.sqrt(steps) * draw.normal(size=(11, numbers))
    summed[:, 0] += one.batch_size * steps
    scale = np.linalg.norm(summed[2, 1:])
    assert summed[2:, 0].mean() / scale == pytest.approx(bound, rel=0.05)
    summed[:2] = 0.0
    summed[:2, 0], summed[:2, 1] = one.batch_size * steps, 0.9 * scale
    off = {}
    for rule in ("none", "multi-krum"):
        start = {"B": np.zeros(numbers, np.float32)}
        sent = {str(at): {"B": row.astype(np.float32)} for at, row in enumerate(summed)}
        made = defended(Defence(rule=rule, attackers=2), ffa)(start, sent).arrays["B"]  # type: ignore[arg-type]
        off[rule] = abs(made[1]) / (one.batch_size * steps)
    assert off["multi-krum"] > 1.1 * off["none"]
