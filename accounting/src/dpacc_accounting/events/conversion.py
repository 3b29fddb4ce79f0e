"""The same event in dp-accounting's words, where it has them, and back."""

from __future__ import annotations

from typing import Any

from dpacc_accounting.events.arguments import an_event
from dpacc_accounting.events.clipped_sums import MixtureOfGaussians
from dpacc_accounting.events.event import (
    ZCDP,
    AdaptivelyClipped,
    Composed,
    CyclicPoissonSampled,
    DiscreteLaplace,
    Event,
    Gaussian,
    Mixture,
    PoissonSampled,
    RandomizedResponse,
    Repeated,
    SampledWithoutReplacement,
    Selected,
    SeparatedParticipation,
    TruncatedPoissonSampled,
)
from dpacc_accounting.events.mechanisms import Laplace


def to_dp_event(*, event: Event) -> Any:
    """`event` as a `dp_accounting.DpEvent`, which its accountants price.

    Noise multipliers, sampling probabilities and counts carry over unchanged; nothing composed
    becomes `NoOpDpEvent`, adaptive clipping and separated participation the Gaussian that they
    amount to, and a cyclic sample its first group's turns. Adjacency is an accountant's argument in
    both libraries.

    Raises:
        ValueError: dp-accounting has no such event: mixtures of events, random allocation,
            discrete Gaussian (cut or not), Skellam and exponential mechanisms, permute-and-flip, a
            bare (ε, δ).
        ImportError: dp-accounting is not installed.

    Source: github.com/google/differential-privacy, python/dp_accounting, `dp_event.py` (0.6).

    >>> to_dp_event(event=Gaussian(noise_multiplier=1.0))
    GaussianDpEvent(noise_multiplier=1.0)
    """
    import dp_accounting

    an_event(event)
    match event:
        case Gaussian(noise_multiplier=sigma):
            return dp_accounting.GaussianDpEvent(sigma)
        case AdaptivelyClipped():
            return dp_accounting.GaussianDpEvent(event.joint_noise_multiplier)
        case MixtureOfGaussians(noise_multiplier=sigma, weights=weights, sensitivities=sizes):
            return dp_accounting.dp_event.MixtureOfGaussiansDpEvent(sigma, sizes, weights)
        case Laplace(noise_multiplier=scale):
            return dp_accounting.LaplaceDpEvent(scale)
        case DiscreteLaplace(decay=decay, sensitivity=most):
            return dp_accounting.dp_event.DiscreteLaplaceDpEvent(decay, most)
        case ZCDP(rho=rho, xi=xi):
            return dp_accounting.dp_event.ZCDpEvent(rho, xi)
        case RandomizedResponse(noise=noise, options=options):
            return dp_accounting.RandomizedResponseDpEvent(noise, options)
        case PoissonSampled(probability=q, event=inner):
            return dp_accounting.PoissonSampledDpEvent(q, to_dp_event(event=inner))
        case SampledWithoutReplacement(sample_size=n, dataset_size=size, event=inner):
            nested = to_dp_event(event=inner)
            return dp_accounting.SampledWithoutReplacementDpEvent(size, n, nested)
        case TruncatedPoissonSampled(event=Gaussian(noise_multiplier=sigma)):
            return dp_accounting.dp_event.TruncatedSubsampledGaussianDpEvent(
                dataset_size=event.dataset_size,
                sampling_probability=event.probability,
                truncated_batch_size=event.largest_batch,
                noise_multiplier=sigma,
            )
        case CyclicPoissonSampled(probability=q, event=inner):
            once = dp_accounting.PoissonSampledDpEvent(q, to_dp_event(event=inner))
            return dp_accounting.SelfComposedDpEvent(once, event.turns)
        case SeparatedParticipation() if event.sensitivity == 0:
            return dp_accounting.NoOpDpEvent()
        case SeparatedParticipation():
            return dp_accounting.GaussianDpEvent(event.joint_noise_multiplier)
        case Selected(event=inner, mean_runs=mean, shape=shape):
            nested = to_dp_event(event=inner)
            return dp_accounting.dp_event.RepeatAndSelectDpEvent(nested, mean, shape)
        case Repeated(event=inner, times=times):
            return dp_accounting.SelfComposedDpEvent(to_dp_event(event=inner), times)
        case Composed(events=()):
            return dp_accounting.NoOpDpEvent()
        case Composed(events=parts):
            return dp_accounting.ComposedDpEvent([to_dp_event(event=part) for part in parts])
        case Mixture():
            remedy = "price it with dpacc_accounting.epsilon, or its branches one by one"
        case _:
            remedy = "price it with dpacc_accounting.epsilon"
    raise ValueError(f"dp-accounting has no equivalent of {type(event).__name__}; {remedy}")


def from_dp_event(*, event: Any) -> Event:
    """A `dp_accounting.DpEvent` as an event of this package.

    `NonPrivateDpEvent` becomes a Gaussian without noise, and so does randomised response without;
    randomised response with one bucket is nothing. A mixture of Gaussians whose sensitivities are
    0 and one other is a Poisson sample; one that may pull either way is refused.

    Raises:
        ValueError: there is no equivalent here, such as sampling with replacement.
        ImportError: dp-accounting is not installed.

    >>> import dp_accounting
    >>> from_dp_event(event=dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(2), 3))
    Repeated(event=Gaussian(noise_multiplier=2.0), times=3)
    """
    import dp_accounting

    match event:
        case dp_accounting.GaussianDpEvent():
            return Gaussian(noise_multiplier=event.noise_multiplier)
        case dp_accounting.LaplaceDpEvent():
            return Laplace(noise_multiplier=event.noise_multiplier)
        case dp_accounting.NonPrivateDpEvent():
            return Gaussian(noise_multiplier=0.0)
        case dp_accounting.NoOpDpEvent():
            return Composed(events=())
        case dp_accounting.PoissonSampledDpEvent():
            inner = from_dp_event(event=event.event)
            return PoissonSampled(probability=event.sampling_probability, event=inner)
        case dp_accounting.SampledWithoutReplacementDpEvent():
            return SampledWithoutReplacement(
                sample_size=event.sample_size,
                dataset_size=event.source_dataset_size,
                event=from_dp_event(event=event.event),
            )
        case dp_accounting.dp_event.TruncatedSubsampledGaussianDpEvent():
            return TruncatedPoissonSampled(
                probability=event.sampling_probability,
                largest_batch=event.truncated_batch_size,
                dataset_size=event.dataset_size,
                event=Gaussian(noise_multiplier=event.noise_multiplier),
            )
        case dp_accounting.dp_event.RepeatAndSelectDpEvent():
            inner = from_dp_event(event=event.event)
            return Selected(event=inner, mean_runs=event.mean, shape=event.shape)
        case dp_accounting.dp_event.DiscreteLaplaceDpEvent():
            return DiscreteLaplace(decay=event.noise_parameter, sensitivity=event.sensitivity)
        case dp_accounting.dp_event.ZCDpEvent():
            return ZCDP(rho=event.rho, xi=event.xi)
        case dp_accounting.RandomizedResponseDpEvent(num_buckets=1):
            return Composed(events=())
        case dp_accounting.RandomizedResponseDpEvent(noise_parameter=0):
            return Gaussian(noise_multiplier=0.0)
        case dp_accounting.RandomizedResponseDpEvent():
            return RandomizedResponse(noise=event.noise_parameter, options=event.num_buckets)
        case dp_accounting.dp_event.MixtureOfGaussiansDpEvent():
            return _mixture_of_gaussians(event)
        case dp_accounting.SelfComposedDpEvent():
            return Repeated(event=from_dp_event(event=event.event), times=event.count)
        case dp_accounting.ComposedDpEvent():
            return Composed(events=tuple(from_dp_event(event=part) for part in event.events))
    reason = _NO_EQUIVALENT.get(type(event).__name__, "it is not known here")
    raise ValueError(f"{type(event).__name__} has no equivalent here: {reason}")


_NO_EQUIVALENT = {
    "SampledWithReplacementDpEvent": (
        "a unit may be drawn several times, and takes others' places as often; draw each unit "
        "at most once, or price the nested event unsampled on as many copies"
    ),
    "SingleEpochTreeAggregationDpEvent": (
        "it holds where a removed unit leaves its place empty; where that is so, give "
        "Gaussian(noise_multiplier=noise_multiplier / sqrt(ceil(log2(most steps + 1))))"
    ),
    "UnsupportedDpEvent": "it stands for what has no description at all",
}


def _mixture_of_gaussians(event: Any) -> Event:
    """A mixture of Gaussians whose sizes all have one sign; with one size a Poisson sample.

    Raises:
        ValueError: it may pull either way.
    """
    if len({size > 0 for size in event.sensitivities if size != 0}) > 1:
        raise ValueError(
            "MixtureOfGaussiansDpEvent with sensitivities of both signs has no equivalent here: "
            "give their absolute values, which cost no less"
        )
    mixture = MixtureOfGaussians(
        noise_multiplier=event.standard_deviation,
        weights=event.sampling_probs,
        sensitivities=tuple(abs(size) for size in event.sensitivities),
    )
    if len(mixture.amounts) > 1:
        return mixture
    for size, chance in mixture.amounts.items():
        once = Gaussian(noise_multiplier=mixture.noise_multiplier / size)
        return once if chance == 1 else PoissonSampled(probability=chance, event=once)
    return Composed(events=())
