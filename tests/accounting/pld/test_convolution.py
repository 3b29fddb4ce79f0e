import mpmath
import numpy as np
import pytest
from dpacc_accounting.pld.connect_the_dots import (
    DiscretizedLoss,
    discretized_above,
    discretized_below,
)
from dpacc_accounting.pld.convolution import compose
from dpacc_accounting.pld.dominating_pairs import Pair
from dpacc_accounting.pld.saddlepoint import Cumulants, Window, tilt_around, window_around
from scipy.stats import binom


def window(pair: Pair, times: int, epsilon: float, delta: float):
    """The window that a certified computation would use."""
    cumulants = Cumulants(pairs=[pair], times=[times], outside=1e-7 * delta / times)
    tilt = tilt_around(cumulants=cumulants, epsilon=epsilon)
    return window_around(
        cumulants=cumulants, epsilon=epsilon, log_delta=float(np.log(delta)), tilt=tilt
    )


def power_in_extended_precision(
    law: DiscretizedLoss, times: int, epsilon: float, size: int
) -> float:
    """δ(ε) of the composed law by a plain Fourier power, without tilt, in long double."""
    circle = np.zeros(size, dtype=np.longdouble)
    mean = round(float((law.masses * np.arange(len(law.masses))).sum()))
    np.add.at(circle, (np.arange(len(law.masses)) - mean) % size, law.masses)
    spectrum = np.fft.rfft(circle)
    composed = np.fft.irfft(np.exp(times * np.log(spectrum)), size)
    losses = float(law.losses()[mean]) * times + law.step * np.arange(-size // 2, size // 2)
    composed = np.roll(composed, size // 2)
    above = losses > epsilon
    return float((composed[above] * -np.expm1(epsilon - losses[above])).sum())


def test_a_tiny_delta_is_relatively_accurate():
    """After half a million releases δ = 1.6e-9 agrees with extended precision to 1e-4.

    In double precision the same untilted power is off by a percent, and on the unsafe side.
    """
    pair, times, epsilon, step = Pair(2.082e-4, 0.0, 1 / 0.4594), 536_100, 14.297, 4e-4
    law = discretized_above(pair=pair, step=step, outside=1e-22)
    composed = compose(laws=[law], times=[times], window=window(pair, times, epsilon, 1.6e-9))
    exact = power_in_extended_precision(law, times, epsilon, 1 << 19)
    assert composed.delta_above(epsilon) == pytest.approx(exact, rel=1e-4)
    assert composed.delta_above(epsilon) >= exact * (1 - 1e-6)


@pytest.mark.parametrize("times", [1, 2, 7])
def test_few_releases_equal_direct_convolution(times):
    """Between the bounds lies the δ of the law convolved with itself term by term."""
    pair, step, epsilon = Pair(0.05, 0.0, 1.0), 0.01, 0.8
    law = discretized_above(pair=pair, step=step, outside=1e-11 / times)
    composed = compose(laws=[law], times=[times], window=window(pair, times, epsilon, 1e-4))
    masses, first = law.masses, law.first
    for _ in range(times - 1):
        masses, first = np.convolve(masses, law.masses), first + law.first
    losses = times * law.shift + step * (first + np.arange(len(masses)))
    above = losses > epsilon
    exact = float((masses[above] * -np.expm1(epsilon - losses[above])).sum())
    assert composed.delta_below(epsilon) <= exact <= composed.delta_above(epsilon)
    assert composed.delta_above(epsilon) == pytest.approx(exact, rel=1e-5)


def test_laws_on_shifted_grids_compose_in_either_order():
    """The grids of two laws need not share their origin, and their order does not matter."""
    one, other, step, epsilon = Pair(0.05, 0.0, 1.0), Pair(0.2, 0.0, 0.5), 0.004, 1.0
    laws = [discretized_below(pair=pair, step=step, outside=1e-16) for pair in (one, other)]
    cumulants = Cumulants(pairs=[one, other], times=[30, 20], outside=1e-16)
    tilt = tilt_around(cumulants=cumulants, epsilon=epsilon)
    plan = window_around(cumulants=cumulants, epsilon=epsilon, log_delta=-9.0, tilt=tilt)
    there = compose(laws=laws, times=[30, 20], window=plan).delta_below(epsilon)
    back = compose(laws=laws[::-1], times=[20, 30], window=plan).delta_below(epsilon)
    assert there == pytest.approx(back, rel=1e-10)
    assert there > 0


def binomial_masses(trials: int, chance: float, first: int, size: int) -> np.ndarray:
    """The binomial probabilities of `size` counts from `first`, by their ratios, in long double."""
    with mpmath.workdps(40):
        ways = mpmath.loggamma(trials + 1) - mpmath.loggamma(first + 1)
        ways -= mpmath.loggamma(trials - first + 1)
        odds = mpmath.mpf(chance) / (1 - mpmath.mpf(chance))
        start = float(mpmath.exp(ways + first * mpmath.log(odds) + trials * mpmath.log1p(-chance)))
    counts = np.arange(first, first + size - 1, dtype=np.longdouble)
    ratios = (trials - counts) / (counts + 1) * np.longdouble(float(odds))
    return start * np.append(np.longdouble(1), np.cumprod(ratios))


@pytest.mark.parametrize(("places", "chance", "times"), [(1, 0.5, 10**6), (40, 0.25, 10**7)])
def test_an_often_moved_loss_agrees_with_the_binomial_law(places, chance, times):
    """A binomial loss, released up to ten million times, is a binomial law again, known exactly.

    δ lies between the two bounds, which are within a millionth of it.
    """
    step, trials = 1e-4, places * times
    law = DiscretizedLoss(step, 0.0, 0, binom.pmf(np.arange(places + 1), places, chance), 0.0)
    centre, deviation = step * trials * chance, step * (trials * chance * (1 - chance)) ** 0.5
    epsilon, tilt = centre + 2 * deviation, 2 / deviation
    plan = Window(
        tilt=tilt,
        epsilon=epsilon,
        low=epsilon - 9 * deviation,
        high=epsilon + 9 * deviation,
        clean_from=epsilon,
        low_tilt=tilt - 9 / deviation,
        high_tilt=tilt + 9 / deviation,
        wrap_tilt=tilt + 9 / deviation,
    )
    composed = compose(laws=[law], times=[times], window=plan)
    first, size = round(epsilon / step), round(9 * deviation / step)
    losses = step * np.arange(first, first + size)
    gains = np.maximum(-np.expm1(epsilon - losses), 0.0)
    exact = float((binomial_masses(trials, chance, first, size) * gains).sum())
    assert composed.delta_below(epsilon) <= exact <= composed.delta_above(epsilon)
    assert composed.delta_above(epsilon) <= composed.delta_below(epsilon) * (1 + 1e-6)


def test_below_what_is_clean_nothing_is_claimed_from_below():
    """Large losses beyond the window return at its bottom, and count neither there nor above."""
    places, chances = [0, 60, 100], [0.9, 0.05, 0.05]
    masses = np.zeros(101)
    masses[places] = chances
    law = DiscretizedLoss(0.01, -0.05, 0, masses, 0.0)
    plan = Window(
        tilt=2.0,
        epsilon=0.9,
        low=-0.1,
        high=0.6,
        clean_from=0.85,
        low_tilt=-100.0,
        high_tilt=30.0,
        wrap_tilt=30.0,
    )
    composed = compose(laws=[law], times=[3], window=plan)
    assert composed.losses[-1] < 3 * law.losses()[-1]
    sums = np.add.outer(np.add.outer(law.losses(), law.losses()), law.losses())
    joint = np.multiply.outer(np.multiply.outer(masses, masses), masses)
    for epsilon in (0.86, 0.9, 1.0):
        exact = float((joint * np.maximum(-np.expm1(epsilon - sums), 0)).sum())
        assert 0 < composed.delta_below(epsilon) <= exact <= composed.delta_above(epsilon)
    assert composed.delta_below(0.84) == 0.0
