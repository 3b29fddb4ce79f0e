import math

import numpy as np
import pytest
from dpacc_accounting import Adjacency, Composed, Gaussian, Laplace, epsilon
from dpacc_accounting.pld.composed_loss import ComposedLoss
from dpacc_accounting.pld.connect_the_dots import (
    DiscretizedLoss,
    discretized_above,
    discretized_below,
)
from dpacc_accounting.pld.dominating_pairs import Pair
from dpacc_accounting.pld.event_losses import directed_branches
from hypothesis import given, settings
from hypothesis import strategies as st


def delta(law: DiscretizedLoss, epsilon: float) -> float:
    """δ(ε) of one draw of a grid law, with the bulk's rounding left out."""
    losses = law.losses()
    above = losses > epsilon
    return float((law.masses[above] * -np.expm1(epsilon - losses[above])).sum()) + law.infinite


CASES = [
    Pair(0.01, 0.0, 1.0),
    Pair(0.0, 0.01, 1.0),
    Pair(0.004, 0.0, 2.2),
    Pair(0.0, 0.004, 2.2),
    Pair(0.3, 0.3, 0.5),
    Pair(1.0, 0.0, 0.3),
    Pair(1e-5, 0.0, 3.0),
]


@settings(deadline=None)
@given(st.sampled_from(CASES), st.floats(1e-3, 0.3), st.floats(-0.5, 6.0))
def test_the_curve_lies_between_its_dots(pair, step, epsilon):
    """δ of the law above is never below the exact δ, and δ of the law below never above it."""
    above = discretized_above(pair=pair, step=step, outside=1e-14)
    below = discretized_below(pair=pair, step=step, outside=1e-14)
    assert below.masses.min() >= 0
    if epsilon < 0:
        # For ε < 0 the exact curve is that of the reversed pair; only the order is checked.
        assert delta(below, epsilon) <= delta(above, epsilon) + 1e-12
    else:
        exact = pair.delta(epsilon)
        assert delta(below, epsilon) - 1e-13 <= exact <= delta(above, epsilon) + 1e-13


@pytest.mark.parametrize("step", [0.02, 0.1, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("pair", [*CASES, Pair(0.01, 0.0, 3.0), Pair(0.0, 0.2, 2.0)])
def test_the_law_below_stays_below_within_every_cell(pair, step):
    """Also in the outermost cells, where the lowered curve meets its asymptotes."""
    below = discretized_below(pair=pair, step=step, outside=1e-14)
    checked = 0
    for bottom in below.losses()[:-1][:: max(len(below.masses) // 100, 1)]:
        for within in (0.05, 0.5, 0.95):
            exact = pair.delta(float(bottom + within * step))
            assert delta(below, float(bottom + within * step)) <= exact * (1 + 1e-9) + 1e-15
            checked += exact > 0
    assert checked > 0


@pytest.mark.parametrize("pair", CASES[:-1])
def test_the_dots_close_in_on_the_curve(pair):
    """Ten times finer dots are about a hundred times closer: the error is of second order."""
    spread = float(np.ptp(pair.loss(np.array([-1.0, 1.0]))))
    gaps = []
    for step in (spread / 5, spread / 50):
        above = discretized_above(pair=pair, step=step, outside=1e-14)
        below = discretized_below(pair=pair, step=step, outside=1e-14)
        moments = [law.log_moment(2.0) for law in (above, below)]
        gaps.append(moments[0] - moments[1])
    assert gaps[1] < gaps[0] / 30


def test_at_its_own_points_the_law_above_is_exact():
    """Connecting the dots touches the curve at every grid point."""
    pair, step = Pair(0.05, 0.0, 1.0), 0.01
    law = discretized_above(pair=pair, step=step, outside=1e-16)
    for loss in law.losses()[10:400:37]:
        if loss > 0:
            assert delta(law, float(loss)) == pytest.approx(pair.delta(float(loss)), rel=1e-9)


@pytest.mark.parametrize("largest", [590.0, 610.0, 650.0])
@pytest.mark.parametrize("at_delta", [1e-5, 0.01, 0.4])
def test_losses_beyond_a_double_are_bounded_on_both_sides(largest, at_delta):
    """A Laplace release of 1/b has ε(δ) = 1/b + 2·ln(1 − δ), also where e^ε overflows.

    On the grid itself, which pure ε caps in a price.
    """
    exact = largest + 2 * math.log1p(-at_delta)
    event = Laplace(noise_multiplier=1 / largest)
    branch, _ = directed_branches(event=event, adjacency=Adjacency.ADD_OR_REMOVE)
    loss = ComposedLoss(branch.laws, branch.times)
    high, grid = loss.epsilon_above(delta=at_delta)
    assert loss.epsilon_below(delta=at_delta, high=high, grid=grid) <= exact <= high
    found = epsilon(event=event, delta=at_delta)
    assert found.epsilon - found.slack <= exact <= found.epsilon


@pytest.mark.parametrize("adjacency", list(Adjacency))
def test_a_quiet_gaussian_beside_another_release_is_priced(adjacency):
    """At σ = 0.02 P has no mass where Q has its own; the price is still that of both releases."""
    quiet = Gaussian(noise_multiplier=0.02)
    both = Composed(events=(quiet, Laplace(noise_multiplier=1.0)))
    alone = epsilon(event=quiet, delta=1e-5, adjacency=adjacency).epsilon
    assert alone <= epsilon(event=both, delta=1e-5, adjacency=adjacency).epsilon <= alone + 4
