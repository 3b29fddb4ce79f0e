"""The noise of random allocation: the budget is kept, and it is less than Poisson sampling's."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from dpacc_accounting import (
    Adjacency,
    Gaussian,
    RandomlyAllocated,
    Repeated,
    calibrate_allocated_noise,
    calibrate_noise,
    epsilon,
)
from dpacc_accounting.calibration.allocated_noise import allocated_steps
from dpacc_accounting.events.participation import EpochAllocation
from dpacc_accounting.pricing.certified_bounds import event_leading_epsilon

TABLE = [(8_192, 512, 2, 8.0, 0.89), (1_000, 250, 3, 4.0, 0.89)]
"""N, B, epochs, ε, and σ relative to Poisson sampling's."""


@pytest.mark.parametrize(("size", "batch", "epochs", "budget", "ratio"), TABLE)
def test_less_noise_than_poisson_sampling_at_the_same_budget(
    size: int, batch: int, epochs: int, budget: float, ratio: float
) -> None:
    """σ is a little more than a tenth lower in short epochs, and ε is the target's, from below."""
    asked = {"dataset_size": size, "batch_size": batch, "epochs": epochs, "epsilon": budget}
    found = calibrate_allocated_noise(**asked, delta=size**-1.1)  # type: ignore[arg-type]
    poisson = calibrate_noise(**asked, delta=size**-1.1)  # type: ignore[arg-type]
    assert found.noise_multiplier / poisson.noise_multiplier == pytest.approx(ratio, abs=0.01)
    assert 0.9995 * budget < found.guarantee.epsilon <= budget
    assert found.steps == poisson.steps == epochs * size // batch
    assert (found.sampling, found.sample_rate) == ("allocated", batch / size)
    assert isinstance(found.event, Repeated)
    assert isinstance(found.event.event, RandomlyAllocated)
    assert (found.event.times, found.event.event.steps) == (epochs, size // batch)
    again = epsilon(event=found.event, delta=size**-1.1)
    assert again.epsilon == found.guarantee.epsilon


def test_simulated_runs_lose_no_more_than_was_asked_for() -> None:
    """400,000 runs of three epochs of 4 steps: δ at the target's ε, within five standard errors."""
    target, small, draw = 1.5, 1e-3, np.random.default_rng(8)
    found = calibrate_allocated_noise(
        dataset_size=400, batch_size=100, epochs=3, epsilon=target, delta=small
    )
    mu = 1 / found.noise_multiplier
    with_it, without = (np.zeros(400_000) for _ in range(2))
    for _ in range(3):
        outputs = draw.normal(size=(len(with_it), 4))
        without += np.log(np.exp(mu * outputs - mu**2 / 2).mean(axis=1))
        outputs[:, 0] += mu
        with_it += np.log(np.exp(mu * outputs - mu**2 / 2).mean(axis=1))
    lost = np.maximum(-np.expm1(target - with_it), 0), np.maximum(-np.expm1(target + without), 0)
    errors = [sample.std() / math.sqrt(len(sample)) for sample in lost]
    assert lost[0].mean() == pytest.approx(small, abs=5 * errors[0] + 1e-3 * small)
    assert lost[1].mean() <= small + 5 * errors[1]


def test_the_table_on_the_page_holds() -> None:
    """Each allocated σ keeps its ε, within half a percent of the least; Poisson's are the least."""
    page = (Path(__file__).parents[3] / "docs/accounting.md").read_text()
    rows = re.findall(r"^\| ([\d,]+) \| (\d+) \| (\d+) \| (\d+) \| (\d) \| (.*) \|$", page, re.M)
    assert len(rows) == 4
    for size, batch, epochs, steps, budget, figures in rows:
        poisson, allocated, ratio = map(float, figures.split(" | "))
        count, units = int(steps), int(size.replace(",", ""))
        run = EpochAllocation(
            dataset_size=units,
            expected_batch_size=int(batch),
            noise_multiplier=allocated,
            planned_steps=count,
        )
        assert count == int(epochs) * run.cycle
        asked = {"adjacency": Adjacency.ADD_OR_REMOVE, "delta": units**-1.1}
        found = event_leading_epsilon(event=run.event(steps=count), **asked)
        assert 0.995 * float(budget) < found <= float(budget)
        least = calibrate_noise(
            dataset_size=units,
            batch_size=int(batch),
            steps=count,
            epsilon=float(budget),
            delta=units**-1.1,
        )
        assert poisson == pytest.approx(least.noise_multiplier, abs=1.01e-4)
        assert ratio == pytest.approx(allocated / poisson, abs=1e-3)


def test_one_allocation_for_all_epochs_would_cost_more_than_is_charged() -> None:
    """Ten epochs' outputs of one step add up to one of noise σ/√10: ε is thrice what is priced."""
    epoch = RandomlyAllocated(steps=16, event=Gaussian(noise_multiplier=1.0))
    afresh = epsilon(event=Repeated(event=epoch, times=10), delta=1e-5).epsilon
    louder = Gaussian(noise_multiplier=1 / math.sqrt(10))
    kept = epsilon(event=RandomlyAllocated(steps=16, event=louder), delta=1e-5).epsilon
    assert afresh == pytest.approx(4.76, abs=0.02)
    assert kept == pytest.approx(15.09, abs=0.05)


def test_epochs_are_of_whole_steps_and_may_end_early() -> None:
    """1,000 units in batches of 300 are four steps an epoch; half an epoch is two of them."""
    asked = {"dataset_size": 1000, "batch_size": 300}
    assert [allocated_steps(**asked, epochs=e, steps=None) for e in (1, 2, 0.5, 2.25, 0.1)] == [
        4,
        8,
        2,
        9,
        1,
    ]
    assert allocated_steps(**asked, epochs=None, steps=7) == 7
    half = calibrate_allocated_noise(**asked, epochs=0.5, epsilon=2.0, delta=1e-4)
    whole = calibrate_allocated_noise(**asked, epochs=1, epsilon=2.0, delta=1e-4)
    assert half.noise_multiplier < whole.noise_multiplier
    assert half.guarantee.epsilon <= 2.0


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"adjacency": Adjacency.REPLACE_ONE}, "add-or-remove"),
        ({"adjacency": Adjacency.ZERO_OUT}, "add-or-remove"),
        ({"steps": 3}, "exactly one"),
        ({"epochs": None}, "exactly one"),
        ({"epochs": math.nan}, "epochs=nan"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 2000}, "exceeds"),
        ({"delta": 0.01}, "delta=0.01"),
    ],
)
def test_what_cannot_be_priced_is_refused(wrong: dict[str, object], told: str) -> None:
    """Each by the argument at fault."""
    asked: dict[str, object] = {
        "dataset_size": 1000,
        "batch_size": 300,
        "epochs": 1,
        "epsilon": 2.0,
        "delta": 1e-4,
    }
    with pytest.raises(ValueError, match=told):
        calibrate_allocated_noise(**{**asked, **wrong})  # type: ignore[arg-type]
