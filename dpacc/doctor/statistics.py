"""Tests of recorded draws and recorded noise against what the plan says they are."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from dpacc_accounting.events.participation import phase_starts
from scipy import stats

from dpacc.doctor.finding import Finding, by_chance
from dpacc.plan import PrivacyPlan
from dpacc.randomness.run_secret import RunSecret
from dpacc.randomness.sampling import AllocatedSampler, PhasedSampler, Sampler

_MOST_FOR_SHAPE = 100_000
_FEW = 100


def draws_finding(*, sampler: Sampler, plan: PrivacyPlan, least: int) -> Finding:
    """Does the sampler of a run draw as its plan is priced?

    Args:
        sampler: what the engine draws with.
        plan: what is priced.
        least: how many steps to draw, or more where that shows too little.
    """
    if isinstance(sampler, PhasedSampler) and plan.phases:
        return _phased_finding(sampler, plan, least)
    if (plan.sampling == "allocated") != isinstance(sampler, AllocatedSampler):
        words = f"the plan is priced as {plan.sampling}, and {type(sampler).__name__} draws"
        return Finding(subject="sampling", healthy=False, words=words)
    cycle = plan.participation.cycle
    if plan.sampling == "allocated":
        steps = cycle * max(2, -(-least // cycle))
        return allocation_finding(
            draws=[sampler.draw(step=step) for step in range(steps)],
            dataset_size=plan.dataset_size,
            steps_an_epoch=cycle,
        )
    return sampling_finding(
        draws=[sampler.draw(step=step) for step in range(draws_needed(least=least, groups=cycle))],
        dataset_size=plan.dataset_size,
        probability=plan.sampling_probability,
        groups=cycle,
    )


def _phased_finding(sampler: PhasedSampler, plan: PrivacyPlan, least: int) -> Finding:
    """Every phase's own steps, drawn with as many fresh secrets as show enough of them."""
    found = []
    for start, each in zip(phase_starts(plan.phases), plan.each_phase, strict=True):
        secrets = [RunSecret.from_fixed_seed(at) for at in range(-(-least // each.steps))]
        drawn = sampling_finding(
            draws=[
                replace(sampler, secret=secret).draw(step=step)
                for secret in secrets
                for step in range(start, start + each.steps)
            ],
            dataset_size=plan.dataset_size,
            probability=each.sampling_probability,
        )
        words = f"from step {start}: {drawn.words}"
        found.append(replace(drawn, words=words))
    return next((each for each in found if not each.healthy), found[-1])


def allocation_finding(
    *, draws: Sequence[npt.NDArray[np.intp]], dataset_size: int, steps_an_epoch: int
) -> Finding:
    """Is every example in exactly one step of each epoch, any, independently of all else?

    Tests of how much the sizes of batches differ, and of how often two neighbours are in one step,
    and an example in the same step of two epochs: in one of E each. Shuffled batches have equal
    sizes; an order that stays has the same steps.

    Args:
        draws: the examples of each step; those of an unfinished epoch are left aside.
        dataset_size: N.
        steps_an_epoch: E.
    """
    places = []
    for number, epoch in enumerate(_whole_cycles(draws, steps_an_epoch)):
        often = np.bincount(np.concatenate(epoch), minlength=dataset_size)
        if len(often) != dataset_size or (often != 1).any():
            odd = int(np.argmax(often != 1))
            words = f"example {odd} is in {often[odd]} steps of epoch {number}, and not in one"
            return Finding(subject="sampling", healthy=False, words=words)
        place = np.zeros(dataset_size, dtype=np.intp)
        for at, drawn in enumerate(epoch):
            place[drawn] = at
        places.append(place)
    held = np.array(places)
    good = f"each in one of {steps_an_epoch} steps of each of {len(held)} epochs, as priced"
    if steps_an_epoch == 1:
        return Finding(subject="sampling", healthy=True, words=good)
    sizes = np.array([[len(drawn) for drawn in draws[: held.shape[0] * steps_an_epoch]]])
    return by_chance(
        subject="sampling",
        chances={
            "spread of batch sizes": _uniform(sizes.reshape(len(held), -1)),
            "neighbours in one step": _equal(held[:, 1:] == held[:, :-1], steps_an_epoch),
            "the same step again": _equal(held[1:] == held[:-1], steps_an_epoch),
        },
        good=good,
        bad="NOT a fresh and uniform allocation, so that ε is not what it is said to be",
    )


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


def _uniform(counts: npt.NDArray[np.intp]) -> float:
    """Whether each row of counts spreads as a uniform multinomial does.

    Pearson's statistic of n units in k steps has mean k − 1 and variance 2(k − 1)(n − 1)/n.
    """
    rows, steps = counts.shape
    units = int(counts[0].sum())
    if units < 2:
        return 1.0
    expected = units / steps
    seen = float((np.square(counts - expected) / expected).sum())
    mean, variance = rows * (steps - 1), 2 * rows * (steps - 1) * (units - 1) / units
    law = stats.gamma(a=mean**2 / variance, scale=variance / mean)
    return float(2 * min(law.cdf(seen), law.sf(seen)))


def _equal(pairs: npt.NDArray[np.bool_], steps: int) -> float:
    """Whether one in `steps` of pairs, which are independent two by two, is equal."""
    law = stats.binom(pairs.size, 1 / steps)
    seen = int(pairs.sum())
    return float(min(1.0, 2 * min(law.cdf(seen), law.sf(seen - 1))))


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
