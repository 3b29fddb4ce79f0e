"""An event, flattened into the sampled Gaussian releases, and the others, that it amounts to."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from dpacc_accounting.events.clipped_sums import MixtureOfGaussians
from dpacc_accounting.events.event import (
    AdaptivelyClipped,
    Composed,
    CyclicPoissonSampled,
    Event,
    Gaussian,
    PoissonSampled,
    RandomlyAllocated,
    Repeated,
    SeparatedParticipation,
    Shuffled,
    TruncatedPoissonSampled,
)
from dpacc_accounting.events.fields import MOST_TIMES, nested_events

_FAINTEST = 1e-100


@dataclass(frozen=True, order=True)
class Release:
    """One clipped sum over a Poisson sample, released with Gaussian noise.

    Args:
        probability: q in (0, 1].
        noise_multiplier: σ >= 0.
    """

    probability: float
    noise_multiplier: float

    @property
    def silent(self) -> bool:
        """Whether there is no noise to speak of: nothing is promised."""
        return self.noise_multiplier < _FAINTEST


def releases(*, event: Event) -> dict[Release, int]:
    """The multiset of releases in `event`, all unsampled ones merged into one.

    Gaussians of noise σ_i on the same data are together one Gaussian of noise
    `(Σ 1/σ_i²)^(-1/2)`, because only the projection on the difference of the sums matters.

    Raises:
        ValueError: a Poisson sample is drawn inside another one in a way that no exact pair of
            distributions describes, something else than a Gaussian is released, or batches are
            shuffled.

    Source: Dong, Roth & Su 2019 (arXiv 1905.02383), corollary 3.3.

    >>> half = Gaussian(noise_multiplier=2.0)
    >>> releases(event=Repeated(event=half, times=4))
    {Release(probability=1.0, noise_multiplier=1.0): 1}
    """
    gaussians, others = pieces(event=event)
    if others:
        kinds = sorted({type(other).__name__ for other in others})
        raise ValueError(
            f"{', '.join(kinds)} is not made of sampled Gaussians, which is all that this method "
            "prices; use epsilon or delta with method='pld'"
        )
    return gaussians


def pieces(*, event: Event) -> tuple[dict[Release, int], dict[Event, int]]:
    """The sampled Gaussians in `event`, as in `releases`, and how often each other event is run.

    Raises:
        ValueError: a Poisson sample is drawn inside another one in a way that no exact pair of
            distributions describes.

    >>> pieces(event=Repeated(event=Gaussian(noise_multiplier=2.0), times=4))[1]
    {}
    """
    counts: Counter[Release] = Counter()
    others: Counter[Event] = Counter()
    _collect(event, 1, counts, others)
    if any(n > MOST_TIMES for n in (*counts.values(), *others.values())):
        raise ValueError("more than 10^300 releases are composed; nothing is promised of so many")
    return _merged(counts), dict(others)


def single_noise(*, event: TruncatedPoissonSampled | RandomlyAllocated) -> float:
    """σ of the one Gaussian that all that `event` runs on a batch amounts to.

    Raises:
        ValueError: it runs something else.

    >>> single_noise(event=RandomlyAllocated(steps=9, event=Gaussian(noise_multiplier=2.0)))
    2.0
    """
    gaussians, others = pieces(event=event.event)
    kinds = sorted({type(part).__name__ for part in others})
    sampled = any(release.probability < 1 for release in gaussians)
    if others or sampled or not gaussians:
        found = ", ".join(kinds) or ("a sample inside it" if sampled else "nothing")
        raise ValueError(
            f"{type(event).__name__} is priced around Gaussian sums only, and this one runs "
            f"{found}; give it a Gaussian, or price without_amplification(event=...)"
        )
    (release,) = gaussians
    return release.noise_multiplier


def _require_known_size(event: PoissonSampled) -> None:
    """A batch cut at a largest size inside another sample has no known number of others."""
    inner = (
        part for part in nested_events(event.event) if part.__class__ is TruncatedPoissonSampled
    )
    if any(part.may_be_full for part in inner):
        raise ValueError(
            "TruncatedPoissonSampled stands inside PoissonSampled, where its dataset_size is "
            "random; draw one sample, whose probability is the product"
        )


def _collect(event: Event, times: int, counts: Counter[Release], others: Counter[Event]) -> None:
    if times == 0:
        return
    match event:
        case Gaussian(noise_multiplier=sigma):
            counts[Release(1.0, _audible(sigma))] += times
        case AdaptivelyClipped():
            counts[Release(1.0, _audible(event.joint_noise_multiplier))] += times
        case MixtureOfGaussians() if len(event.amounts) < 2:
            for size, chance in event.amounts.items():
                sigma = _audible(event.noise_multiplier / size)
                counts[Release(chance, sigma)] += times
        case Repeated(event=inner, times=repeats):
            _collect(inner, times * repeats, counts, others)
        case Composed(events=parts):
            for part in parts:
                _collect(part, times, counts, others)
        case PoissonSampled(probability=q, event=inner):
            _require_known_size(event)
            gaussians, rest = pieces(event=inner)
            if rest and 0 < q < 1:
                others[event] += times
            elif q > 0:
                _collect_sampled(q, gaussians, times, counts)
                others.update({part: count * times for part, count in rest.items()})
        case CyclicPoissonSampled(probability=q, event=inner):
            sampled = PoissonSampled(probability=q, event=inner)
            _collect(sampled, times * event.turns, counts, others)
        case SeparatedParticipation():
            if event.sensitivity > 0:
                counts[Release(1.0, _audible(event.joint_noise_multiplier))] += times
        case TruncatedPoissonSampled(probability=q) if q == 0:
            return
        case TruncatedPoissonSampled(probability=q, event=inner) if not event.may_be_full:
            _collect(PoissonSampled(probability=q, event=inner), times, counts, others)
        case RandomlyAllocated(steps=1, event=inner):
            _collect(inner, times, counts, others)
        case RandomlyAllocated(participations=most, event=inner) if most > 1:
            for steps, blocks in event.blocks:
                once = RandomlyAllocated(steps=steps, event=inner)
                _collect(once, times * blocks, counts, others)
        case Shuffled():
            raise ValueError(
                "shuffled batches are not Poisson samples, and no amplification is proved for "
                "them: sample each step afresh (PoissonSampled), or price "
                "without_amplification(event=...), which counts each epoch in full"
            )
        case _:
            others[event] += times


def _audible(sigma: float) -> float:
    """σ, or 0, which promises nothing, where 1/σ² has no double: its ε would be over 1e200."""
    return sigma if sigma >= _FAINTEST else 0.0


def _collect_sampled(
    q: float, inner: dict[Release, int], times: int, counts: Counter[Release]
) -> None:
    if q == 1:
        for release, count in inner.items():
            counts[release] += count * times
    elif inner:
        (release, count), *others = inner.items()
        if others or count > 1:
            raise ValueError(
                f"a Poisson sample (probability={q}) is drawn once around several sampled "
                f"releases {[*inner]}; sample each release on its own, as in "
                "Repeated(event=PoissonSampled(...), times=...)"
            )
        counts[Release(q * release.probability, release.noise_multiplier)] += times


def _merged(counts: Counter[Release]) -> dict[Release, int]:
    sampled = {release: n for release, n in sorted(counts.items()) if release.probability < 1}
    whole = [
        (release.noise_multiplier, n)
        for release, n in sorted(counts.items())
        if release.probability == 1
    ]
    if whole:
        sampled[Release(1.0, _joint_noise(whole))] = 1
    return sampled


def _joint_noise(whole: list[tuple[float, int]]) -> float:
    quietest = min(sigma for sigma, _ in whole)
    if quietest == 0:
        return 0.0
    return quietest / math.sqrt(math.fsum(n * (quietest / sigma) ** 2 for sigma, n in whole))
