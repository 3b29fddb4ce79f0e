"""An event in words, for statements and reports."""

from __future__ import annotations

import math

from dpacc_accounting.events.clipped_sums import MixtureOfGaussians
from dpacc_accounting.events.event import (
    ZCDP,
    AdaptivelyClipped,
    ApproximateDP,
    Composed,
    CyclicPoissonSampled,
    DiscreteGaussian,
    DiscreteLaplace,
    Event,
    ExponentialMechanism,
    Gaussian,
    Laplace,
    Mixture,
    PermuteAndFlip,
    PoissonSampled,
    RandomizedResponse,
    RandomlyAllocated,
    Repeated,
    SampledWithoutReplacement,
    Selected,
    SeparatedParticipation,
    Shuffled,
    Skellam,
    TruncatedPoissonSampled,
)
from dpacc_accounting.events.finite_mechanisms import TruncatedDiscreteGaussian


def described(*, event: Event, unit: str = "example") -> str:
    """What `event` releases, and about whom, as one phrase.

    Args:
        event: what was run.
        unit: whose data one unit is.

    >>> described(event=RandomlyAllocated(steps=10, event=Gaussian(noise_multiplier=1.0)))
    'in each of 10 steps, every example in exactly one of them by a secret uniform draw: \
a clipped sum with Gaussian noise of multiplier 1'
    """
    match event:
        case Composed(events=()):
            return "nothing"
        case Composed(events=parts):
            return "; and ".join(described(event=part, unit=unit) for part in parts)
        case Mixture(weights=weights, events=parts):
            chances = zip(weights, parts, strict=True)
            said = "; or ".join(
                f"with chance {w:.4g} {described(event=e, unit=unit)}" for w, e in chances
            )
            return f"by a secret coin, one of: {said}"
        case (
            PoissonSampled(event=inner)
            | SampledWithoutReplacement(event=inner)
            | TruncatedPoissonSampled(event=inner)
            | CyclicPoissonSampled(event=inner)
            | RandomlyAllocated(event=inner)
            | Repeated(event=inner)
            | Selected(event=inner)
            | Shuffled(event=inner)
        ):
            return f"{_frame(event, unit)}: {described(event=inner, unit=unit)}"
    if isinstance(event, SeparatedParticipation):
        return _in_separate_rounds(event, unit)
    return _told(event) or _released(event)


def _frame(event: Event, unit: str) -> str:
    """What is done around the nested event."""
    match event:
        case PoissonSampled(probability=q):
            return f"on a Poisson sample that each {unit} joins with probability {q:.6g}"
        case TruncatedPoissonSampled(probability=q, largest_batch=most, dataset_size=size):
            return (
                f"on a Poisson sample that each of {size} {unit}s joins with probability {q:.6g}, "
                f"cut to at most {most} of them"
            )
        case SampledWithoutReplacement(sample_size=n, dataset_size=size):
            return f"on exactly {n} of {size} {unit}s, drawn afresh"
        case CyclicPoissonSampled(probability=q, groups=b, steps=t):
            return (
                f"in each of {t} steps, on a Poisson sample that each {unit} of one of {b} groups "
                f"joins with probability {q:.6g}, group after group"
            )
        case RandomlyAllocated(steps=t, participations=k):
            often = "one" if k == 1 else str(k)
            return (
                f"in each of {t} steps, every {unit} in exactly {often} of them by a secret "
                "uniform draw"
            )
        case Repeated(times=times):
            return f"{times} times"
        case Selected(mean_runs=mean):
            return f"the best of {mean:g} runs on average, their number {_law(event.shape)}"
        case _:
            return "on batches cut from a shuffled order"


def _law(shape: float) -> str:
    named = {0.0: "logarithmic", 1.0: "geometric", math.inf: "Poisson"}
    return named.get(shape, f"truncated negative binomial of shape {shape:g}")


def _in_separate_rounds(event: SeparatedParticipation, unit: str) -> str:
    since = f", after {event.after} before them," if event.after else ""
    buffers = len(event.weights)
    by = f"{buffers} buffers" if buffers else f"{len(event.coefficients)} bands"
    at_most = "" if event.participations is None else f" and at most {event.participations} times"
    return (
        f"in {event.rounds} rounds{since} of which each {unit} takes part in any at least "
        f"{event.separation} apart{at_most}: a clipped sum with Gaussian noise of multiplier "
        f"{event.noise_multiplier:g}, correlated between rounds by {by}: together one Gaussian of "
        f"multiplier {event.joint_noise_multiplier:.6g}"
    )


def _told(event: Event) -> str:
    """What is released by a mechanism of few outcomes; empty for others."""
    match event:
        case ApproximateDP(epsilon=epsilon, delta=delta):
            return f"anything that is ({epsilon:g}, {delta:g})-private"
        case RandomizedResponse(noise=noise, options=options):
            return f"one of {options} answers, with chance {noise:g} a uniform one"
        case DiscreteLaplace(decay=decay, sensitivity=most):
            return f"an integer of sensitivity {most} with discrete Laplace noise, decay {decay:g}"
        case TruncatedDiscreteGaussian(sigma=sigma, sensitivity=most, bound=bound):
            return (
                f"an integer of sensitivity {most} with discrete Gaussian noise {sigma:g}, never "
                f"above {bound}"
            )
        case PermuteAndFlip(epsilon=epsilon):
            return f"a choice by permute-and-flip at {epsilon:g}"
        case ZCDP(rho=rho, xi=xi):
            return f"anything that is {rho:g}-zCDP" + (f" with ξ = {xi:g}" if xi else "")
    return ""


def _released(event: Event) -> str:
    match event:
        case Gaussian(noise_multiplier=sigma):
            return f"a clipped sum with Gaussian noise of multiplier {sigma:g}"
        case AdaptivelyClipped(noise_multiplier=sigma, count_noise=count):
            return (
                f"a clipped sum with Gaussian noise of multiplier {sigma:g}, and the count of "
                f"norms below the clipping norm with noise {count:g}: one Gaussian of multiplier "
                f"{event.joint_noise_multiplier:.6g}"
            )
        case MixtureOfGaussians(noise_multiplier=sigma):
            moved = ", ".join(f"{size:g}C ({chance:.4g})" for size, chance in event.amounts.items())
            return (
                f"a sum with Gaussian noise of multiplier {sigma:g}, moved by {moved or 'nothing'}"
            )
        case Laplace(noise_multiplier=scale):
            return f"a number with Laplace noise of multiplier {scale:g}"
        case DiscreteGaussian(sigma=sigma, sensitivity=most):
            return f"an integer of sensitivity {most} with discrete Gaussian noise {sigma:g}"
        case Skellam(variance=variance, sensitivity=most):
            return f"an integer of sensitivity {most} with Skellam noise of variance {variance:g}"
        case ExponentialMechanism(epsilon=width):
            return f"a choice of bounded range {width:g}"
    raise ValueError(f"no words for {type(event).__name__}")
