import math
import re
import statistics

import pytest
from dpacc_accounting import Adjacency, Composed, calibrate_noise, epsilon
from dpacc_accounting.calibration.noise import noise_within
from dpacc_accounting.calibration.training_runs import training
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.accounting.work import counted_work

RUN = {"dataset_size": 67_349, "batch_size": 256, "epochs": 3, "epsilon": 8.0, "delta": 1e-5}


@pytest.mark.parametrize(
    ("arguments", "method", "sigma"),
    [
        ({"dataset_size": 67_349, "batch_size": 256, "steps": 789, "epsilon": 8.0}, "pld", 0.46358),
        ({"dataset_size": 67_349, "batch_size": 256, "steps": 789, "epsilon": 8.0}, "rdp", 0.49229),
        ({"dataset_size": 10_000, "batch_size": 1, "steps": 10**6, "epsilon": 0.1}, "pld", 3.1585),
        ({"dataset_size": 10_000, "batch_size": 1, "steps": 10**6, "epsilon": 0.1}, "rdp", 3.473),
        ({"dataset_size": 10, "batch_size": 10, "steps": 50, "epsilon": 50.0}, "gaussian", 1.05897),
    ],
)
def test_published_values(arguments, method, sigma):
    """Known runs need the known noise: at most 0.01% more, and less by 0.1% at most."""
    found = calibrate_noise(**arguments, delta=1e-5, method=method).noise_multiplier
    assert sigma * 0.999 <= found <= sigma * 1.0001


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1_000, 10**6),
    st.floats(0.0005, 1.0),
    st.integers(1, 5000),
    st.floats(-1.5, 3.0).map(math.exp),
    st.floats(-18, -9).map(math.exp),
    st.sampled_from(list(Adjacency)),
)
def test_the_noise_returned_is_private_and_barely_so(
    dataset_size, rate, steps, target, delta, adjacency
):
    """ε of the returned σ is at most the target, and within a ten-thousandth or so of it."""
    plan = noise_within(
        dataset_size=dataset_size,
        batch_size=max(int(rate * dataset_size), 1),
        steps=steps,
        epsilon=target,
        delta=delta,
        adjacency=adjacency,
    )
    again = epsilon(event=plan.event, delta=delta, adjacency=adjacency)
    assert again == plan.guarantee
    assert again.epsilon <= target
    assert float(f"{plan.noise_multiplier:.6g}") == plan.noise_multiplier
    slightly_less = plan.noise_multiplier * (1 - 1e-4)
    cheaper = type(plan.event.event)(
        probability=plan.sample_rate,
        event=type(plan.event.event.event)(noise_multiplier=slightly_less),
    )
    looser = type(plan.event)(event=cheaper, times=plan.steps)
    assert epsilon(event=looser, delta=delta, adjacency=adjacency).epsilon > target * (1 - 1e-5)


@settings(max_examples=20, deadline=None)
@given(
    st.floats(-0.8, 2.0).map(math.exp),
    st.integers(10, 2000),
    st.integers(1, 5000),
    st.floats(-18, -9).map(math.exp),
    st.sampled_from(list(Adjacency)),
)
def test_the_price_of_some_noise_needs_that_noise(sigma, batch_size, steps, delta, adjacency):
    """Calibrated to its own ε, a run gets its σ back, to a ten-thousandth, on the private side."""
    event = training(rate=batch_size / 2000, noise_multiplier=sigma, steps=steps)
    target = epsilon(event=event, delta=delta, adjacency=adjacency).epsilon
    assume(target > 1e-3)
    plan = calibrate_noise(
        dataset_size=2000,
        batch_size=batch_size,
        steps=steps,
        epsilon=target,
        delta=delta,
        adjacency=adjacency,
    )
    assert plan.guarantee.epsilon <= target
    assert plan.noise_multiplier == pytest.approx(sigma, rel=1e-4)


@pytest.mark.parametrize("method", ["rdp", "pld"])
@settings(max_examples=10, deadline=None)
@given(
    sigma=st.floats(-0.8, 2.0).map(math.exp),
    rate=st.floats(-7, 0).map(math.exp),
    first=st.integers(1, 500),
    second=st.integers(1, 500),
)
def test_a_run_in_two_parts_costs_the_whole(method, sigma, rate, first, second):
    """T₁ and then T₂ steps, composed, have exactly the price of T₁ + T₂ steps."""

    def steps(count):
        return training(rate=rate, noise_multiplier=sigma, steps=count)

    parts = epsilon(event=Composed(events=(steps(first), steps(second))), delta=1e-6, method=method)
    assert parts == epsilon(event=steps(first + second), delta=1e-6, method=method)


@pytest.mark.parametrize(
    ("dataset_size", "batch_size", "epochs", "steps"),
    [
        (67_349, 256, 3, 790),
        (1000, 10, 0.1, 10),
        (1000, 10, 0.3, 30),
        (1000, 3, 1, 334),
        (10, 10, 7, 7),
        (300, 200, 1e-9, 1),
    ],
)
def test_steps_are_the_epochs_rounded_up(dataset_size, batch_size, epochs, steps):
    """T = ⌈epochs · N / B⌉ in exact arithmetic: 0.1 epochs of 100 batches are 10 steps."""
    plan = calibrate_noise(
        dataset_size=dataset_size, batch_size=batch_size, epochs=epochs, epsilon=8.0, delta=1e-5
    )
    assert plan.steps == steps
    assert plan.event.times == steps
    assert plan.sample_rate == batch_size / dataset_size
    assert plan.sampling == "poisson"


@pytest.mark.parametrize(
    ("change", "culprits"),
    [
        ({"epsilon": 0.0}, ["epsilon=0.0"]),
        ({"epsilon": -1.0}, ["epsilon=-1.0"]),
        ({"epsilon": math.inf}, ["epsilon=inf"]),
        ({"delta": 0.0}, ["delta=0.0"]),
        ({"delta": 1.5}, ["delta=1.5"]),
        ({"batch_size": 70_000}, ["batch_size=70000", "dataset_size=67349"]),
        ({"batch_size": 0}, ["batch_size=0"]),
        ({"batch_size": 2.5}, ["batch_size=2.5"]),
        ({"dataset_size": 0}, ["dataset_size=0"]),
        ({"epochs": None}, ["epochs=None", "steps=None"]),
        ({"steps": 10}, ["epochs=3", "steps=10"]),
        ({"epochs": 0}, ["epochs=0"]),
        ({"epochs": math.nan}, ["epochs=nan"]),
        ({"epochs": None, "steps": 0}, ["steps=0"]),
        ({"method": "prv"}, ["method='prv'"]),
        ({"delta": 0.01, "epochs": None, "steps": 1}, ["delta=0.01", "1/67349"]),
        ({"method": "gaussian"}, ["probability=", "method='pld'"]),
    ],
)
def test_bad_arguments_are_refused_in_one_line(change, culprits):
    """Every impossible request shows the values at fault, in one line."""
    with pytest.raises(ValueError, match=culprits[0]) as caught:
        calibrate_noise(**(RUN | change))
    assert "\n" not in str(caught.value)
    for culprit in culprits:
        assert culprit in str(caught.value)


COMMON_RUNS = [
    (size, batch, epochs, target, delta)
    for size, delta in ((9_481, 1e-4), (67_349, 1e-5), (104_743, 1e-5), (392_702, 1e-6))
    for batch, epochs, target in (
        (96, 1, 8.0),
        (256, 3, 8.0),
        (512, 3, 1.0),
        (1024, 10, 3.0),
        (2048, 20, 8.0),
        (4096, 40, 2.0),
    )
]


@pytest.mark.parametrize(("size", "batch", "epochs", "target", "delta"), COMMON_RUNS)
def test_no_grid_however_fine_needs_less_noise_by_a_2000th(size, batch, epochs, target, delta):
    """At 0.05% less noise even the certified lower bound on ε exceeds the target."""
    plan = noise_within(
        dataset_size=size, batch_size=batch, epochs=epochs, epsilon=target, delta=delta
    )
    less = training(
        rate=plan.sample_rate,
        noise_multiplier=plan.noise_multiplier * (1 - 5e-4),
        steps=plan.steps,
    )
    found = epsilon(event=less, delta=delta)
    assert found.epsilon - found.slack > target


def test_an_adjacency_may_be_given_by_its_name():
    """The text "replace-one", as read from a file, calibrates like the adjacency itself."""
    by_name = calibrate_noise(**RUN, adjacency="replace-one")
    assert by_name == calibrate_noise(**RUN, adjacency=Adjacency.REPLACE_ONE)
    assert by_name.noise_multiplier > calibrate_noise(**RUN).noise_multiplier


def test_common_runs_calibrate_with_little_work():
    """Common fine-tuning runs transform half a million numbers in median, 20 ms or so of work."""
    spent = []
    for size, batch, epochs, target, delta in COMMON_RUNS:
        with counted_work() as work:
            noise_within(
                dataset_size=size, batch_size=batch, epochs=epochs, epsilon=target, delta=delta
            )
        spent.append(work.points)
    assert 10_000 < statistics.median(spent) < 800_000
    assert max(spent) < 3_000_000


@pytest.mark.parametrize(
    "corner",
    [
        {"delta": 1e-300},
        {"delta": 0.9999, "batch_size": 67_349},
        {"epsilon": 1e-9},
        {"epsilon": 1e6},
        {"epochs": 1e5},
        {"dataset_size": 10**12, "batch_size": 10, "epochs": 1},
    ],
)
def test_corners_are_answered_with_bounded_work(corner):
    """Budgets and runs far from any use get noise that meets them, within seconds of work."""
    with counted_work() as work:
        plan = noise_within(**RUN | corner)
    assert plan.guarantee.epsilon <= (RUN | corner)["epsilon"]
    assert math.isfinite(plan.noise_multiplier)
    assert work.points < 200_000_000


@pytest.mark.parametrize(
    ("corner", "culprits"),
    [
        ({"delta": 0.99}, ["delta=0.99", "0.951"]),
        ({"epochs": 1e300}, ["epochs=1e+300", "1e+12 steps"]),
        ({"epochs": None, "steps": 10**13}, ["steps=10000000000000", "1e+12 steps"]),
        ({"epochs": None, "steps": math.inf}, ["steps=inf"]),
        ({"dataset_size": math.nan}, ["dataset_size=nan"]),
        ({"epsilon": 1e300}, ["epsilon=1e+300", "1e+09"]),
        ({"epsilon": 1e-300}, ["epsilon=1e-300", "1e-12"]),
    ],
)
def test_corners_without_an_answer_are_refused(corner, culprits):
    """What no double resolves, or what needs no noise, is refused in one line."""
    with pytest.raises(ValueError, match=re.escape(culprits[0])) as caught:
        noise_within(**RUN | corner)
    assert "\n" not in str(caught.value)
    for culprit in culprits:
        assert culprit in str(caught.value)
