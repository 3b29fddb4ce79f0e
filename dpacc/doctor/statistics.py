"""Tests of recorded draws and recorded noise against what the plan says they are."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from dpacc.doctor.finding import Finding, by_chance

_MOST_FOR_SHAPE = 100_000
_FEW = 100


def sampling_finding(
    *,
    draws: Sequence[npt.NDArray[np.intp]],
    dataset_size: int,
    probability: float,
    groups: int = 1,
) -> Finding:
    """Does every example join every step with the plan's probability, independently of all else?

    Tests of the mean and the spread of batch sizes, of how often each example joined, and of how
    many examples two consecutive steps share: N·q² each. Shuffled batches have equal sizes,
    share none, and let every example join equally often.

    Args:
        draws: the examples of each step.
        dataset_size: N.
        probability: q.
        groups: b, where units take turns: the steps of one cycle are one Poisson sample of
            probability bq, and nobody joins out of turn.
    """
    subject = "sampling"
    if early := _out_of_turn(draws, dataset_size, groups):
        words = f"example {early[0]} joined steps that are no multiple of {groups} apart"
        return Finding(subject=subject, healthy=False, words=words)
    if groups > 1:
        draws = [np.concatenate(cycle) for cycle in _whole_cycles(draws, groups)]
        probability *= groups
    steps = len(draws)
    sizes = np.array([len(each) for each in draws], dtype=np.float64)
    if probability == 1.0:
        whole = bool((sizes == dataset_size).all())
        words = "every example joins every step" if whole else "examples are missing from steps"
        return Finding(subject=subject, healthy=whole, words=words)
    joined = np.bincount(np.concatenate(draws).astype(int), minlength=dataset_size)
    shared = sum(len(np.intersect1d(a, b)) for a, b in itertools.pairwise(draws))
    chances = {
        "mean batch size": _two_sided(
            (sizes.sum() - probability * dataset_size * steps)
            / np.sqrt(dataset_size * steps * probability * (1 - probability))
        ),
        "spread of batch sizes": _spread(sizes, trials=dataset_size, probability=probability),
        "examples' shares": _spread(joined, trials=steps, probability=probability),
        "overlap of steps": _overlap(shared, dataset_size * (steps - 1), probability),
    }
    return by_chance(
        subject=subject,
        chances=chances,
        good=f"Poisson with q = {probability:.6g}, as priced, over {steps} rehearsed steps",
        bad="NOT Poisson with the plan's probability, so that ε is not what it is said to be",
    )


def draws_needed(*, least: int, groups: int) -> int:
    """How many steps show enough of the draws: at least so many, and a tenth as many cycles.

    >>> draws_needed(least=200, groups=1), draws_needed(least=200, groups=64)
    (200, 1280)
    """
    return max(least, groups * least // 10)


def _whole_cycles(
    draws: Sequence[npt.NDArray[np.intp]], groups: int
) -> list[Sequence[npt.NDArray[np.intp]]]:
    return [draws[at : at + groups] for at in range(0, len(draws) - groups + 1, groups)]


def _out_of_turn(
    draws: Sequence[npt.NDArray[np.intp]], dataset_size: int, groups: int
) -> list[int]:
    """Examples that joined steps of different turns."""
    turn = np.full(dataset_size, -1)
    early: list[int] = []
    for step, drawn in enumerate(draws if groups > 1 else ()):
        known = turn[drawn]
        early += drawn[(known >= 0) & (known != step % groups)].tolist()
        turn[drawn] = step % groups
    return early


def uncorrelated(
    *, noise: npt.NDArray[np.floating], coefficients: Sequence[float]
) -> npt.NDArray[np.float64]:
    """C·w, [steps, width]: what C⁻¹ correlated, from the first step on.

    >>> uncorrelated(noise=np.array([[1.0], [1.0]]), coefficients=(0.8, 0.6)).tolist()
    [[0.8], [1.4]]
    """
    drawn = np.zeros(noise.shape)
    for lag, coefficient in enumerate(coefficients[: len(noise)]):
        drawn[lag:] += coefficient * noise[: len(noise) - lag].astype(np.float64)
    return drawn


def noise_finding(
    *, noise: npt.NDArray[np.floating], standard_deviation: float, gaussian: bool = True
) -> Finding:
    """Is the noise as large as was charged, Gaussian, and fresh in every step?

    Chi-square of the scale, Kolmogorov–Smirnov of the shape, correlation of consecutive steps.

    Args:
        noise: [steps, width], what was added to each element of the sum.
        standard_deviation: σC, as the plan says.
        gaussian: whether the shape is that; discrete noise is tested by its scale alone.
    """
    scaled = noise.astype(np.float64) / standard_deviation
    chances = {"scale": _chi_square(float(np.square(scaled).sum()), scaled.size)}
    if gaussian:
        chances["shape"] = float(stats.kstest(scaled.ravel()[:_MOST_FOR_SHAPE], "norm").pvalue)
    if len(scaled) > 1:
        product = float((scaled[:-1] * scaled[1:]).sum())
        chances["steps' independence"] = _two_sided(product / np.sqrt(scaled[1:].size))
    measured = float(np.sqrt(np.square(scaled).mean()))
    return by_chance(
        subject="noise",
        chances=chances,
        good=f"{measured:.4f} of what was charged, over {scaled.size:,} numbers",
        bad=f"NOT what was charged: {measured:.4f} of it, or not fresh in every step",
    )


def _spread(counts: npt.NDArray[Any], *, trials: int, probability: float) -> float:
    """Whether counts spread as Binomial(trials, probability) does.

    Their summed squared deviations have mean n·s² and variance n·(2s⁴ + s²(1 − 6p(1 − p))), with
    s² = trials·p(1 − p): compared with the gamma law of these, a chi-square where counts are large.
    """
    square = trials * probability * (1 - probability)
    mean = len(counts) * square
    variance = len(counts) * (2 * square**2 + square * (1 - 6 * square / trials))
    seen = float(np.square(counts - trials * probability).sum())
    law = stats.gamma(a=mean**2 / variance, scale=variance / mean)
    return float(2 * min(law.cdf(seen), law.sf(seen)))


def _overlap(shared: int, pairs: int, probability: float) -> float:
    """Whether `shared` of `pairs` (an example, two consecutive steps) joined both steps."""
    q = probability
    mean = pairs * q**2
    if mean < _FEW:
        law = stats.poisson(mean)
        return float(min(1.0, 2 * min(law.cdf(shared), law.sf(shared - 1))))
    # Overlaps of steps t−1, t and of t, t+1 have step t in common, hence the second term.
    variance = pairs * (q**2 * (1 - q**2) + 2 * q**3 * (1 - q))
    return _two_sided((shared - mean) / np.sqrt(variance))


def _chi_square(surprise: float, freedom: int) -> float:
    law = stats.chi2(freedom)
    return float(2 * min(law.cdf(surprise), law.sf(surprise)))


def _two_sided(deviations: float) -> float:
    return float(2 * stats.norm.sf(abs(deviations)))
