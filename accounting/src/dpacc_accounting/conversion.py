"""The same event in dp-accounting's words, where it has them, and back."""

from __future__ import annotations

from typing import Any

from dpacc_accounting.arguments import an_event
from dpacc_accounting.events import (
    AdaptivelyClipped,
    Composed,
    Event,
    Gaussian,
    Mixture,
    PoissonSampled,
    Repeated,
    SampledWithoutReplacement,
    Selected,
    TruncatedPoissonSampled,
)
from dpacc_accounting.mechanisms import Laplace


def to_dp_event(*, event: Event) -> Any:
    """`event` as a `dp_accounting.DpEvent`, which its accountants price.

    Noise multipliers, sampling probabilities and counts carry over unchanged; nothing composed
    becomes `NoOpDpEvent`, and adaptive clipping the Gaussian that it amounts to. Adjacency is an
    accountant's argument in both libraries.

    Raises:
        ValueError: dp-accounting has no such event: mixtures, random allocation, discrete
            Gaussian, Skellam and exponential mechanisms.
        ImportError: dp-accounting is not installed.

    Source: github.com/google/differential-privacy, python/dp_accounting, `dp_event.py` (0.6).

    >>> to_dp_event(event=Gaussian(noise_multiplier=1.0))
    GaussianDpEvent(noise_multiplier=1.0)
    """
    import dp_accounting

    match an_event(event):
        case Gaussian(noise_multiplier=sigma):
            return dp_accounting.GaussianDpEvent(sigma)
        case AdaptivelyClipped():
            return dp_accounting.GaussianDpEvent(event.joint_noise_multiplier)
        case Laplace(noise_multiplier=scale):
            return dp_accounting.LaplaceDpEvent(scale)
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

    `NonPrivateDpEvent` becomes a Gaussian without noise.

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
        case dp_accounting.SelfComposedDpEvent():
            return Repeated(event=from_dp_event(event=event.event), times=event.count)
        case dp_accounting.ComposedDpEvent():
            return Composed(events=tuple(from_dp_event(event=part) for part in event.events))
    raise ValueError(
        f"{type(event).__name__} has no equivalent here; the known ones are Gaussian, Laplace, "
        "Poisson-sampled (truncated or not), sampled without replacement, self-composed, composed, "
        "repeat-and-select, no-op and non-private events"
    )
