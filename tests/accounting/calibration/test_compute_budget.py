"""Recommending a batch size: prices are those of the runs that are compared, and the rule holds."""

from __future__ import annotations

import math

import pytest
from dpacc_accounting import (
    BatchRecommendation,
    Workload,
    calibrate_banded_noise,
    calibrate_noise,
    epsilon,
    recommend_batch_size,
)
from dpacc_accounting.calibration.compute_budget import (
    LEAST_GAIN,
    LONGEST,
    SHORTEST,
    BatchChoice,
    batches,
)
from dpacc_accounting.events.participation import Participation

SIZE, BUDGET, EPSILON, DELTA = 2000, 8000, 3.0, 1e-4


@pytest.fixture(scope="module")
def found() -> BatchRecommendation:
    """Four epochs of two thousand."""
    return recommend_batch_size(
        dataset_size=SIZE, gradient_evaluations=BUDGET, epsilon=EPSILON, delta=DELTA
    )


def _best(choice: BatchChoice) -> float:
    return min(choice.independent, choice.banded)


def test_batches_are_powers_of_two_and_the_whole_within_the_budget() -> None:
    """Each in as many steps as can be paid, none in more than are compared."""
    sizes = batches(size=1000, budget=100_000)
    assert [batch for batch, _ in sizes] == [32, 64, 128, 256, 512, 1000]
    assert all(batch * steps <= 100_000 < batch * (steps + 1) for batch, steps in sizes)
    assert all(steps <= LONGEST for _, steps in sizes)
    assert batches(size=10, budget=10**9) == [(10, LONGEST)]
    assert batches(size=1000, budget=5) == [(1, 5), (2, 2), (4, 1), (5, 1)]


def test_each_noise_is_that_of_the_run_it_stands_for(found: BatchRecommendation) -> None:
    """σ, and what accumulates, as when each batch size is calibrated alone."""
    for choice in found.choices[1::3]:
        sizes = {
            "dataset_size": SIZE,
            "batch_size": choice.batch_size,
            "steps": choice.steps,
            "epsilon": EPSILON,
            "delta": DELTA,
        }
        usual = calibrate_noise(**sizes)  # type: ignore[arg-type]
        workload = Workload.constant(steps=choice.steps, momentum=0.9, averaged=0.5)
        banded = calibrate_banded_noise(**sizes, workload=workload)  # type: ignore[arg-type]
        scale = choice.batch_size * math.sqrt(choice.steps)
        assert choice.noise_multiplier == usual.noise_multiplier
        assert choice.independent == pytest.approx(usual.noise_multiplier / scale)
        assert (choice.bands, choice.banded_noise) == (
            banded.bands,
            banded.calibration.noise_multiplier,
        )
        assert choice.banded == pytest.approx(banded.error * choice.independent, rel=0.02)


def test_what_is_recommended_keeps_the_budget(found: BatchRecommendation) -> None:
    """The ε that is stated is that of all its steps, priced anew."""
    made, chosen = found.calibration.calibration, found.chosen
    assert made.steps == chosen.steps
    assert chosen.batch_size * chosen.steps <= BUDGET
    run = Participation(
        dataset_size=SIZE,
        expected_batch_size=chosen.batch_size,
        noise_multiplier=made.noise_multiplier,
        bands=found.calibration.bands,
    )
    spent = epsilon(event=run.event(steps=chosen.steps), delta=DELTA)
    assert made.guarantee.epsilon == spent.epsilon <= EPSILON
    assert made.guarantee.delta == DELTA


def test_the_whole_data_in_each_step_is_one_release(found: BatchRecommendation) -> None:
    """Composed Gaussians cost what one costs: nothing is lost to sampling there."""
    whole = found.choices[-1]
    assert whole.batch_size == SIZE
    assert whole.independent == pytest.approx(found.single_release, rel=1e-4)
    assert whole.doubling == 0
    assert all(each.independent > 0.999 * found.single_release for each in found.choices)


def test_twice_the_compute_is_what_it_leaves(found: BatchRecommendation) -> None:
    """In as many steps, a batch twice as large: a row of the doubled budget's own comparison."""
    doubled = recommend_batch_size(
        dataset_size=SIZE, gradient_evaluations=2 * BUDGET, epsilon=EPSILON, delta=DELTA
    )
    there = {(each.batch_size, each.steps): _best(each) for each in doubled.choices}
    seen = 0
    for each in found.choices:
        if (2 * each.batch_size, each.steps) in there:
            left = there[2 * each.batch_size, each.steps] / _best(each)
            assert each.doubling == pytest.approx(1 - left)
            seen += 1
    assert seen > 4


def test_the_knee_is_the_most_steps_for_which_more_gains_little() -> None:
    """All that are longer would gain more; what is shorter than a run is no knee."""
    rich, poor = (
        recommend_batch_size(
            dataset_size=500, gradient_evaluations=budget, epsilon=EPSILON, delta=DELTA
        )
        for budget in (6000, 700)
    )
    assert rich.knee is not None
    assert rich.chosen is rich.knee
    assert rich.knee.steps >= SHORTEST
    assert rich.knee.doubling < LEAST_GAIN
    longer = [each for each in rich.choices if each.steps > rich.knee.steps]
    assert all(each.doubling >= LEAST_GAIN for each in longer)
    plain = rich.uncorrelated
    assert plain.doubling_independent < LEAST_GAIN
    longer = [each for each in rich.choices if each.steps > plain.steps]
    assert all(each.doubling_independent >= LEAST_GAIN for each in longer)
    assert poor.knee is None
    assert poor.chosen.doubling >= LEAST_GAIN
    assert poor.chosen.steps == min(e.steps for e in poor.choices if e.steps >= SHORTEST)


def test_a_course_of_its_own_is_compared_for_it() -> None:
    """Without momentum or a mean of iterates other numbers of bands leave least, or leave more."""
    usual, plain = (
        recommend_batch_size(
            dataset_size=500,
            gradient_evaluations=700,
            epsilon=EPSILON,
            delta=DELTA,
            momentum=momentum,
            averaged=averaged,
        )
        for momentum, averaged in ((0.9, 0.5), (0.0, 0.0))
    )
    assert usual.choices[0].independent == plain.choices[0].independent
    assert usual.choices[0].banded < plain.choices[0].banded


def test_progress_sees_every_batch_size() -> None:
    """Before it is compared."""
    seen: list[tuple[int, int]] = []

    def track(sizes):  # type: ignore[no-untyped-def]
        for each in sizes:
            seen.append(each)
            yield each

    recommend_batch_size(
        dataset_size=100, gradient_evaluations=100, epsilon=3.0, delta=1e-3, track=track
    )
    assert seen == batches(size=100, budget=100)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"gradient_evaluations": 0}, "gradient_evaluations"),
        ({"gradient_evaluations": 1.5}, "gradient_evaluations"),
        ({"dataset_size": 0}, "dataset_size"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"delta": 0.01}, "1/2000"),
    ],
)
def test_senseless_budgets_are_refused(wrong: dict[str, object], told: str) -> None:
    """With the value's name and the remedy."""
    asked = {
        "dataset_size": SIZE,
        "gradient_evaluations": BUDGET,
        "epsilon": EPSILON,
        "delta": DELTA,
    }
    with pytest.raises(ValueError, match=told):
        recommend_batch_size(**(asked | wrong))  # type: ignore[arg-type]
