"""Aggregation that a few hostile clients cannot steer, and what it left out.

Rules see float64 differences from the round's start, and tell which clients they passed over. All
of it is post-processing of private updates, so it costs no privacy; but it looks at single updates,
so it excludes secure aggregation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.averaging import Aggregate, Aggregation
from dpacc.federated.aggregation.robust_rules import (
    Vectors,
    bulyan,
    extreme_shares,
    krum,
    median,
    median_cosines,
    trimmed_mean,
)
from dpacc.federated.setting_limits import require_count, require_kind, require_positive
from dpacc.federated.updates.layout import Arrays, flat, unflat

Rule = Literal["none", "krum", "multi-krum", "bulyan", "median", "trimmed-mean", "clipped-mean"]

_MOSTLY_NOISE = 0.1
"""The cosine of two updates whose signal is a third of their noise, and points the same way."""

COORDINATE_WISE = ("bulyan", "median", "trimmed-mean")

LEAST_SIGNAL: Mapping[str, float] = {
    "krum": 2.0,
    "multi-krum": 0.5,
    "bulyan": 0.7,
    "median": 0.5,
    "trimmed-mean": 0.5,
}
"""From which signal-to-noise of one update a rule's worst case is no worse than the plain mean's,
with the tests of length and angle before either, two of eleven being hostile; `robust_rules.py`
among the benchmarks measures it."""


@dataclass(frozen=True, kw_only=True)
class Defence:
    """What a server does about hostile clients.

    Args:
        rule: "krum" keeps the update closest to its neighbours, "multi-krum" the n − f closest
            (arXiv 1703.02757), and averages them by the federation's own rule; "median",
            "trimmed-mean" (arXiv 1803.01498) and "bulyan" (arXiv 1802.07927) work number by number.
            "clipped-mean" is for updates that are mostly noise: it leaves out those too alike to
            hold noise of their own, and clips the others to the median length.
        attackers: f, how many clients may be hostile.
        most_norm: leave out updates longer than this many times the median length; None skips it.
        least_cosine: leave out updates whose cosine with the median of the others lies below
            −least_cosine/√d, where independent noise alone has a standard deviation of 1/√d; None
            skips it.
        signal_to_noise: the most that the signal of one client's update can be of its noise, as
            `dpacc federate tune` prints it. `FederatedServer.train` computes it from its clients;
            a server whose clients are elsewhere must be told.
        despite_noise: take a rule that `LEAST_SIGNAL` refuses there: a few hostile clients can then
            move the model further than they could without it.

    Raises:
        ConfigurationError: an unknown rule, or a number out of range.

    >>> Defence(rule="krum", attackers=1).least_clients
    5
    """

    rule: Rule = "none"
    attackers: int = 0
    most_norm: float | None = 3.0
    least_cosine: float | None = 4.0
    signal_to_noise: float | None = None
    despite_noise: bool = False

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise ConfigurationError(
                f"rule={self.rule!r} must be one of {', '.join(get_args(Rule))}"
            )
        require_count("attackers", self.attackers, at_least=0)
        require_kind("despite_noise", self.despite_noise, bool)
        for name in ("most_norm", "least_cosine", "signal_to_noise"):
            if getattr(self, name) is not None:
                require_positive(name, getattr(self, name))

    @property
    def least_clients(self) -> int:
        """n, without which the rule promises nothing against f attackers."""
        f = self.attackers
        return {"krum": 2 * f + 3, "multi-krum": 2 * f + 3, "bulyan": 4 * f + 3}.get(
            self.rule, 2 * f + 1
        )

    @property
    def asks_for_signal(self) -> bool:
        """Whether it must still be said how much of an update is noise."""
        least = LEAST_SIGNAL.get(self.rule)
        return least is not None and self.signal_to_noise is None and not self.despite_noise


def defended(defence: Defence, aggregation: Aggregation) -> Aggregation:
    """`aggregation` of the updates that the defence lets through.

    Where too few are left, the round changes nothing.
    """

    def aggregate(start: Arrays, updates: Mapping[str, Arrays]) -> Aggregate:
        names = list(updates)
        before = {name: start[name] for name in next(iter(updates.values()))}
        moved = _differences(before, updates)
        gram = moved @ moved.T
        filtered = _outliers(defence, names, moved, gram)
        kept = [at for at, name in enumerate(names) if name not in filtered]
        least = defence.least_clients - len(filtered)
        if len(names) < defence.least_clients or len(kept) < max(1, least):
            why = f"{defence.rule} needs {defence.least_clients} clients, {len(names)} answered"
            return Aggregate(arrays=start, filtered={**dict.fromkeys(names, why), **filtered})
        hostile = max(0, defence.attackers - len(filtered))
        if filtered:
            moved, gram = moved[kept], gram[np.ix_(kept, kept)]
        if defence.rule in COORDINATE_WISE:
            means, why_not = _BY_COORDINATE[defence.rule](moved, gram, hostile)
            filtered |= {names[kept[at]]: why for at, why in why_not.items()}
            return Aggregate(arrays=unflat(means + flat(before), like=before), filtered=filtered)
        if defence.rule == "clipped-mean":
            alike = _too_alike(gram, hostile=hostile, numbers=moved.shape[1])
            filtered |= {
                names[kept[at]]: "too like another to hold noise of its own" for at in alike
            }
            chosen = [at for at in range(len(kept)) if at not in alike]
            shares, origin = _clipping(gram, chosen), flat(before)
            clipped = {
                names[kept[at]]: unflat(moved[at] * share + origin, like=before)
                for at, share in zip(chosen, shares, strict=True)
            }
            found = aggregation(start, clipped)
            return Aggregate(arrays=found.arrays, filtered=filtered, error=found.error)
        chosen = _select(defence, gram, hostile)
        others = [name for at, name in enumerate(names[k] for k in kept) if at not in chosen]
        filtered |= dict.fromkeys(others, f"{defence.rule} kept others")
        found = aggregation(start, {names[kept[at]]: updates[names[kept[at]]] for at in chosen})
        return Aggregate(arrays=found.arrays, filtered=filtered, error=found.error)

    return aggregate


def _differences(before: Arrays, updates: Mapping[str, Arrays]) -> Vectors:
    """What each update moved, a row each."""
    origin = flat(before)
    moved = np.empty((len(updates), len(origin)))
    for row, update in zip(moved, updates.values(), strict=True):
        np.subtract(flat(update), origin, out=row)
    return moved


def _outliers(defence: Defence, names: list[str], moved: Vectors, gram: Vectors) -> dict[str, str]:
    """Updates that are too long, or point against all others."""
    lengths = np.sqrt(np.diag(gram))
    typical = float(np.median(lengths))
    found: dict[str, str] = {}
    if defence.most_norm is not None and typical > 0:
        for name, length in zip(names, lengths, strict=True):
            if length > defence.most_norm * typical:
                found[name] = f"{length / typical:.1f} times as long as the median update"
    rest = [at for at, name in enumerate(names) if name not in found]
    if defence.least_cosine is None or len(rest) < 3:
        return found
    limit = -defence.least_cosine / np.sqrt(moved.shape[1])
    cosines = median_cosines(moved[rest] if found else moved)
    against = {
        names[at]: f"points against the others (cosine {cosine:.2f})"
        for at, cosine in zip(rest, cosines, strict=True)
        if cosine < limit
    }
    # Hostile clients are fewer than half: where more point against the others, those steer the
    # median, and the test says nothing.
    return found if len(against) > len(rest) // 2 else found | against


def _too_alike(gram: Vectors, *, hostile: int, numbers: int) -> set[int]:
    """Rows of which a pair has a cosine above 0.1 + 6/√d, where most pairs have none above 0.1.

    Noise of one's own leaves two updates of signal-to-noise s a cosine of s²/(1 + s²) ± 1/√d. More
    than f such rows cannot all be hostile, and nothing is said then.
    """
    lengths = np.maximum(np.sqrt(np.diag(gram)), np.finfo(float).tiny)
    cosines = gram / (lengths[:, None] * lengths)
    pairs = cosines[np.triu_indices(len(gram), k=1)]
    if not len(pairs) or float(np.median(pairs)) > _MOSTLY_NOISE:
        return set()
    alike = np.argwhere(np.triu(cosines, k=1) > _MOSTLY_NOISE + 6 / np.sqrt(numbers))
    found = {int(at) for pair in alike for at in pair}
    return found if len(found) <= hostile else set()


def _clipping(gram: Vectors, chosen: Sequence[int]) -> Vectors:
    """What part of each chosen row is no longer than their median length."""
    lengths = np.sqrt(np.diag(gram))[chosen]
    typical = float(np.median(lengths))
    return np.minimum(1.0, typical / np.maximum(lengths, np.finfo(float).tiny))


def _select(defence: Defence, gram: Vectors, hostile: int) -> list[int]:
    if defence.rule == "none":
        return [*range(len(gram))]
    many = 1 if defence.rule == "krum" else max(1, len(gram) - hostile)
    return krum(gram, hostile=hostile, keep=many)


ByCoordinate = Callable[[Vectors, Vectors, int], tuple[Vectors, dict[int, str]]]


def _median(moved: Vectors, gram: Vectors, hostile: int) -> tuple[Vectors, dict[int, str]]:
    del gram
    return median(moved), _often_extreme(moved, hostile)


def _trimmed_mean(moved: Vectors, gram: Vectors, hostile: int) -> tuple[Vectors, dict[int, str]]:
    del gram
    return trimmed_mean(moved, hostile=hostile), _often_extreme(moved, hostile)


def _bulyan(moved: Vectors, gram: Vectors, hostile: int) -> tuple[Vectors, dict[int, str]]:
    means, chosen = bulyan(moved, gram, hostile=hostile)
    left = {at: "bulyan kept others" for at in range(len(moved)) if at not in chosen}
    return means, left


def _often_extreme(moved: Vectors, hostile: int) -> dict[int, str]:
    """Clients among the f largest or smallest in far more coordinates than the 2f/n of chance."""
    limit = (1 + 2 * hostile / len(moved)) / 2
    return {
        at: f"extreme in {share:.0%} of all numbers"
        for at, share in enumerate(extreme_shares(moved, hostile=hostile))
        if share > limit
    }


_BY_COORDINATE: Mapping[str, ByCoordinate] = {
    "bulyan": _bulyan,
    "median": _median,
    "trimmed-mean": _trimmed_mean,
}


def require_fitting(defence: Defence, *, aggregation: str, clients: int) -> None:
    """Refuse a defence that cannot work with the federation's rule or size.

    Raises:
        ConfigurationError: with the reason and the remedy.
    """
    if defence.rule in COORDINATE_WISE and aggregation != "ffa":
        raise ConfigurationError(
            f"rule={defence.rule!r} with aggregation={aggregation!r}: taken number by number from "
            "A and from B, it says nothing of B·A; take aggregation='ffa', or rule='multi-krum'"
        )
    if clients < defence.least_clients:
        raise ConfigurationError(
            f"rule={defence.rule!r} against attackers={defence.attackers} needs "
            f"{defence.least_clients} clients and num_clients={clients}; expect fewer attackers or "
            "add clients"
        )
    _require_signal(defence)


def _require_signal(defence: Defence) -> None:
    """Refuse a rule that noise makes worse than none."""
    least = LEAST_SIGNAL.get(defence.rule)
    if least is None or defence.despite_noise:
        return
    if defence.signal_to_noise is None:
        raise ConfigurationError(
            f"rule={defence.rule!r} means nothing below a signal-to-noise of {least:g} in one "
            "client's update, and nobody said what it is: give signal_to_noise as "
            "`dpacc federate tune` prints it, or take rule='clipped-mean'"
        )
    if defence.signal_to_noise < least:
        raise ConfigurationError(
            f"rule={defence.rule!r} at a signal-to-noise of at most {defence.signal_to_noise:.2g} "
            f"in one client's update: below {least:g} hostile clients move its result further than "
            "a plain mean; take rule='clipped-mean', larger batches or epsilon, or a smaller rank; "
            "despite_noise=True takes it all the same"
        )
