"""Client-level rounds: one course of them, priced in the server's and in the released view."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypedDict

import numpy as np

from dpacc_accounting.events.event import (
    Composed,
    Event,
    Gaussian,
    PoissonSampled,
    Repeated,
    SampledWithoutReplacement,
)
from dpacc_accounting.federation.rounds import (
    ClientFederation,
    Cohorts,
    CorrelatedRounds,
    SecureAggregation,
)
from dpacc_accounting.guarantee import Guarantee
from dpacc_accounting.pricing.price import epsilon


class Views(TypedDict):
    """The guarantee against the server, and against whoever sees the released models."""

    server: Guarantee
    released: Guarantee


def price_course(*, federation: ClientFederation, course: Sequence[Cohorts]) -> Views:
    """Both views of `course`, the rounds of `federation` as planned or as they went.

    Under central noise the server sees what it then noises: it has no guarantee. Under distributed
    noise it sees a sum that holds the noise of the honest survivors, and knows the cohort, so its
    view is not amplified. Rounds whose sum was never opened released nothing.
    """
    if federation.correlated is not None:
        released = _price(federation, _correlated(federation, course, federation.correlated))
        return Views(server=_nothing(federation), released=released)
    course = _capped(federation, [part for part in course if part.opened])
    if federation.noise == "central":
        released = _price(federation, _composed([_sampled(part, part) for part in course]))
        return Views(server=_nothing(federation), released=released)
    secure = federation.secure_aggregation
    assert secure is not None
    present = [_with_noise_present(part, secure) for part in course]
    if federation.noise == "distributed-gaussian":
        server = _price(federation, _composed([_unsampled(part) for part in present]))
        amplified = [_sampled(*both) for both in zip(course, present, strict=True)]
        released = _price(federation, _composed(amplified))
    else:
        server = _price_integers(federation, course, sampled=False)
        released = _price_integers(federation, course, sampled=True)
    # Released models are computed from what the server sees.
    return Views(server=server, released=min(released, server, key=lambda g: g.epsilon))


def _correlated(
    federation: ClientFederation, course: Sequence[Cohorts], correlated: CorrelatedRounds
) -> Event:
    """All rounds are one run: what a client adds in one may stand in later ones' rows."""
    rounds = sum(part.rounds for part in course)
    if not rounds:
        return Composed(events=())
    return correlated.column.event(
        noise_multiplier=course[0].noise_multiplier,
        separation=correlated.min_separation,
        rounds=rounds,
        participations=federation.most_rounds,
    )


def client_assumptions(*, federation: ClientFederation) -> tuple[str, ...]:
    """What must be true for the prices to hold, in words."""
    said = [
        f"Each {federation.unit}'s whole update is clipped to norm C before it is summed, and the "
        "sum is divided by a fixed number, never by how many took part.",
    ]
    if any(part.population for part in federation.schedule):
        said.append(
            f"The released view holds while nobody learns who was drawn: each round draws its "
            f"cohort afresh, every set of cohort_size out of population {federation.unit}s equally "
            "likely; cohorts cut from one shuffled order are not drawn so."
        )
    if any(part.sampling_rate < 1 and not part.population for part in federation.schedule):
        said.append(
            f"The released view holds while nobody learns who was drawn: each {federation.unit} "
            "joins each round by its own coin of chance sampling_rate."
        )
    if federation.correlated is not None:
        said.append(
            f"No {federation.unit} that takes part in round t does so again before round t + "
            f"{federation.correlated.min_separation}, which is enforced across restarts; who takes "
            "part when may be known, and depends on nobody else's data or presence."
        )
        if federation.most_rounds is not None:
            said.append(
                f"No {federation.unit} takes part in more than {federation.most_rounds} rounds, "
                "which is enforced."
            )
    elif federation.most_rounds is not None:
        said.append(
            f"No {federation.unit} takes part in more than {federation.most_rounds} rounds, which "
            "is enforced; the noisiest rounds are not counted, and nothing is amplified."
        )
    if federation.noise == "central":
        said.append("The server adds the noise: it sees the clipped updates and is trusted.")
    return (*said, *_secure_assumptions(federation))


def _secure_assumptions(federation: ClientFederation) -> tuple[str, ...]:
    secure = federation.secure_aggregation
    if secure is None:
        return ()
    return (
        f"Secure aggregation opens no sum of fewer than {secure.threshold} clients; each adds "
        f"noise of standard deviation σ·C/√{secure.honest}, sized for the {secure.honest} honest "
        f"ones that remain when {secure.colluding} collude; a client that is absent under the "
        "adjacency still adds its noise to an update of zeros.",
        "Noise beyond the guaranteed counts in the server's view only, where no coin is hidden; a "
        "sum opened below the threshold is priced without amplification, by the noise in it.",
        _who_is_who(secure),
    )


def _who_is_who(secure: SecureAggregation) -> str:
    if secure.signed:
        return (
            "Against the server itself this holds while it and those that work together with it "
            f"have no more than {secure.colluding} of the keys that each client has pinned."
        )
    return (
        f"Against the server itself this holds only while {secure.honest} of those in a sum are "
        "clients in truth: a server that passes on unsigned keys may invent all but one, whose "
        f"own noise alone, σ·C/√{secure.honest}, is then in the sum."
    )


def _capped(federation: ClientFederation, course: Sequence[Cohorts]) -> list[Cohorts]:
    """The `most_rounds` rounds with the least noise, unsampled: a cap makes coins dependent."""
    left = federation.most_rounds
    if left is None:
        return list(course)
    kept = []
    for part in sorted(course, key=lambda part: _noise_present(part, federation)):
        whole = replace(part, sampling_rate=1.0, population=None, cohort_size=None)
        kept.append(replace(whole, rounds=min(part.rounds, left)))
        left -= kept[-1].rounds
    return kept


def _noise_present(part: Cohorts, federation: ClientFederation) -> float:
    secure = federation.secure_aggregation
    return (_with_noise_present(part, secure) if secure else part).noise_multiplier


def _with_noise_present(part: Cohorts, secure: SecureAggregation) -> Cohorts:
    share = math.sqrt(_present(part, secure) / secure.honest)
    return replace(part, noise_multiplier=part.noise_multiplier * share)


def _present(part: Cohorts, secure: SecureAggregation) -> int:
    """Honest clients whose noise is in the sum: the colluding ones all survive."""
    if part.survivors is None:
        return secure.honest
    return max(part.survivors - secure.colluding, 0)


def _sampled(part: Cohorts, present: Cohorts) -> Event:
    """Amplified at the guaranteed noise, which no coin can change; else as the server sees it."""
    if present.noise_multiplier < part.noise_multiplier or part.sampling_rate == 1:
        return _unsampled(present)
    noise = Gaussian(noise_multiplier=part.noise_multiplier)
    return Repeated(event=_drawn(part, noise), times=part.rounds)


def _drawn(part: Cohorts, noise: Event) -> Event:
    if part.population is None or part.cohort_size is None:
        return PoissonSampled(probability=part.sampling_rate, event=noise)
    return SampledWithoutReplacement(
        sample_size=part.cohort_size, dataset_size=part.population, event=noise
    )


def _unsampled(part: Cohorts) -> Event:
    return Repeated(event=Gaussian(noise_multiplier=part.noise_multiplier), times=part.rounds)


def _composed(events: Sequence[Event]) -> Event:
    return events[0] if len(events) == 1 else Composed(events=tuple(events))


def _price(federation: ClientFederation, event: Event) -> Guarantee:
    return epsilon(
        event=event,
        delta=federation.delta,
        adjacency=federation.adjacency,
        unit=federation.unit,
    )


def _price_integers(
    federation: ClientFederation, course: Sequence[Cohorts], *, sampled: bool
) -> Guarantee:
    from dpacc_accounting.federation.distributed_noise import ORDERS, epsilon_at, round_divergences

    secure, grid = federation.secure_aggregation, federation.discretization
    assert secure is not None
    assert grid is not None
    total = np.zeros_like(ORDERS)
    for part in course:
        present = _present(part, secure)
        amplified = sampled and present >= secure.honest
        if part.rounds:
            total += part.rounds * round_divergences(
                noise=federation.noise,
                noise_multiplier=part.noise_multiplier,
                guaranteed=secure.honest,
                present=secure.honest if amplified else present,
                discretization=grid,
                sampling_rate=part.sampling_rate if amplified else 1.0,
                adjacency=federation.adjacency,
            )
    return _nothing(federation, epsilon_at(divergences=total, delta=federation.delta))


def _nothing(federation: ClientFederation, spent: float = math.inf) -> Guarantee:
    """A guarantee without a lower bound on ε: none at all, unless ε is given."""
    return Guarantee(
        epsilon=spent,
        delta=federation.delta,
        adjacency=federation.adjacency,
        unit=federation.unit,
        method="rdp",
        slack=spent,
    )
