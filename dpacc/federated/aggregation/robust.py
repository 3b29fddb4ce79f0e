"""Aggregation that a few hostile clients cannot steer, and what it left out.

Flower's own rules do the selecting and averaging; here they are given float64 differences from the
round's start, and tell which clients they passed over. All of it is post-processing of private
updates, so it costs no privacy; but it looks at single updates, so it excludes secure aggregation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.serverapp.strategy.bulyan import aggregate_n_closest_weights
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
from flwr.serverapp.strategy.multikrum import select_multikrum

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.averaging import Aggregate, Aggregation
from dpacc.federated.setting_limits import require_count, require_positive
from dpacc.federated.updates.layout import Arrays, flat, unflat

Rule = Literal["none", "krum", "multi-krum", "bulyan", "median", "trimmed-mean", "clipped-mean"]
Vectors = npt.NDArray[np.float64]

_MOSTLY_NOISE = 0.1
"""The cosine of two updates whose signal is a third of their noise, and points the same way."""

COORDINATE_WISE = ("bulyan", "median", "trimmed-mean")


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

    Raises:
        ConfigurationError: an unknown rule, or a number out of range.

    >>> Defence(rule="krum", attackers=1).least_clients
    5
    """

    rule: Rule = "none"
    attackers: int = 0
    most_norm: float | None = 3.0
    least_cosine: float | None = 4.0

    def __post_init__(self) -> None:
        if self.rule not in get_args(Rule):
            raise ConfigurationError(
                f"rule={self.rule!r} must be one of {', '.join(get_args(Rule))}"
            )
        require_count("attackers", self.attackers, at_least=0)
        for name in ("most_norm", "least_cosine"):
            if getattr(self, name) is not None:
                require_positive(name, getattr(self, name))

    @property
    def least_clients(self) -> int:
        """n, without which the rule promises nothing against f attackers."""
        f = self.attackers
        return {"krum": 2 * f + 3, "multi-krum": 2 * f + 3, "bulyan": 4 * f + 3}.get(
            self.rule, 2 * f + 1
        )


def defended(defence: Defence, aggregation: Aggregation) -> Aggregation:
    """`aggregation` of the updates that the defence lets through.

    Where too few are left, the round changes nothing.
    """

    def aggregate(start: Arrays, updates: Mapping[str, Arrays]) -> Aggregate:
        names = list(updates)
        before = {name: start[name] for name in next(iter(updates.values()))}
        moved = np.stack([flat(each) for each in updates.values()]) - flat(before)
        filtered = _outliers(defence, names, moved)
        kept = [at for at, name in enumerate(names) if name not in filtered]
        least = defence.least_clients - len(filtered)
        if len(names) < defence.least_clients or len(kept) < max(1, least):
            why = f"{defence.rule} needs {defence.least_clients} clients, {len(names)} answered"
            return Aggregate(arrays=start, filtered={**dict.fromkeys(names, why), **filtered})
        if defence.rule in COORDINATE_WISE:
            means, why_not = _BY_COORDINATE[defence.rule](moved[kept], _hostile(defence, filtered))
            filtered |= {names[kept[at]]: why for at, why in why_not.items()}
            return Aggregate(arrays=unflat(means + flat(before), like=before), filtered=filtered)
        if defence.rule == "clipped-mean":
            alike = {kept[at] for at in _too_alike(moved[kept], _hostile(defence, filtered))}
            filtered |= {names[at]: "too like another to hold noise of its own" for at in alike}
            chosen = [at for at in kept if at not in alike]
            rows = zip(chosen, _clipped(moved[chosen]) + flat(before), strict=True)
            clipped = {names[at]: unflat(row, like=before) for at, row in rows}
            found = aggregation(start, clipped)
            return Aggregate(arrays=found.arrays, filtered=filtered, error=found.error)
        chosen = _select(defence, moved, kept, filtered)
        filtered |= {names[at]: f"{defence.rule} kept others" for at in kept if at not in chosen}
        found = aggregation(start, {names[at]: updates[names[at]] for at in chosen})
        return Aggregate(arrays=found.arrays, filtered=filtered, error=found.error)

    return aggregate


def _hostile(defence: Defence, filtered: Mapping[str, str]) -> int:
    """f that may still be among those that passed the tests."""
    return max(0, defence.attackers - len(filtered))


def _outliers(defence: Defence, names: list[str], moved: Vectors) -> dict[str, str]:
    """Updates that are too long, or point against all others."""
    lengths = np.linalg.norm(moved, axis=1)
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
    against: dict[str, str] = {}
    for at, others in zip(rest, _medians_of_others(moved[rest]), strict=True):
        size = float(np.linalg.norm(others) * lengths[at])
        cosine = float(others @ moved[at]) / size if size else 0.0
        if cosine < limit:
            against[names[at]] = f"points against the others (cosine {cosine:.2f})"
    # Hostile clients are fewer than half: where more point against the others, those steer the
    # median, and the test says nothing.
    return found if len(against) > len(rest) // 2 else found | against


def _medians_of_others(moved: Vectors) -> Iterator[Vectors]:
    """For each row, number by number, the median of all other rows; sorted once for all.

    Without the row that stands at place r, what stands at place k of the others is the k-th of all
    if k < r, and else the one after it.
    """
    ordered = np.sort(moved, axis=0)
    places = np.argsort(np.argsort(moved, axis=0, kind="stable"), axis=0, kind="stable")
    middle = ((len(moved) - 2) // 2, (len(moved) - 1) // 2)
    for own in places:
        low, high = (np.where(k < own, ordered[k], ordered[k + 1]) for k in middle)
        yield (low + high) / 2


def _too_alike(moved: Vectors, hostile: int) -> set[int]:
    """Rows of which a pair has a cosine above 0.1 + 6/√d, where most pairs have none above 0.1.

    Noise of one's own leaves two updates of signal-to-noise s a cosine of s²/(1 + s²) ± 1/√d. More
    than f such rows cannot all be hostile, and nothing is said then.
    """
    lengths = np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), np.finfo(float).tiny)
    cosines = (moved @ moved.T) / (lengths * lengths.T)
    pairs = cosines[np.triu_indices(len(moved), k=1)]
    if not len(pairs) or float(np.median(pairs)) > _MOSTLY_NOISE:
        return set()
    alike = np.argwhere(np.triu(cosines, k=1) > _MOSTLY_NOISE + 6 / np.sqrt(moved.shape[1]))
    found = {int(at) for pair in alike for at in pair}
    return found if len(found) <= hostile else set()


def _clipped(moved: Vectors) -> Vectors:
    """Rows no longer than their median length."""
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    typical = float(np.median(lengths))
    shares = np.minimum(1.0, typical / np.maximum(lengths, np.finfo(float).tiny))
    return np.asarray(moved * shares, dtype=np.float64)


def _select(
    defence: Defence, moved: Vectors, kept: list[int], filtered: Mapping[str, str]
) -> list[int]:
    if defence.rule == "none":
        return kept
    hostile = _hostile(defence, filtered)
    many = 1 if defence.rule == "krum" else max(1, len(kept) - hostile)
    records = [RecordDict({"arrays": ArrayRecord({"moved": Array(moved[at])})}) for at in kept]
    chosen = select_multikrum(records, hostile, many)
    return [at for at, record in zip(kept, records, strict=True) if _holds(chosen, record)]


def _holds(records: list[RecordDict], wanted: RecordDict) -> bool:
    return any(record is wanted for record in records)


def _median(moved: Vectors, hostile: int) -> tuple[Vectors, dict[int, str]]:
    return np.median(moved, axis=0), _often_extreme(moved, hostile)


def _trimmed_mean(moved: Vectors, hostile: int) -> tuple[Vectors, dict[int, str]]:
    # Half a client more, so that the share of n rounds down to `hostile` in floating point.
    share = min((hostile + 0.5) / len(moved), np.nextafter(0.5, 0))
    return trim_mean(moved, share if hostile else 0.0), _often_extreme(moved, hostile)


def _bulyan(moved: Vectors, hostile: int) -> tuple[Vectors, dict[int, str]]:
    theta = len(moved) - 2 * hostile
    records = [RecordDict({"arrays": ArrayRecord({"moved": Array(each)})}) for each in moved]
    chosen = select_multikrum(records, hostile, theta)
    selected = [at for at, record in enumerate(records) if _holds(chosen, record)]
    middle = np.median(moved[selected], axis=0)
    closest = aggregate_n_closest_weights(
        [middle], [[moved[at]] for at in selected], max(1, theta - 2 * hostile)
    )
    left = {at: "bulyan kept others" for at in range(len(moved)) if at not in selected}
    return closest[0], left


def _often_extreme(moved: Vectors, hostile: int) -> dict[int, str]:
    """Clients among the f largest or smallest in far more coordinates than the 2f/n of chance."""
    if hostile == 0:
        return {}
    order = np.argsort(moved, axis=0)
    extreme = np.concatenate([order[:hostile], order[-hostile:]])
    shares = np.bincount(extreme.ravel(), minlength=len(moved)) / moved.shape[1]
    limit = (1 + 2 * hostile / len(moved)) / 2
    return {
        at: f"extreme in {share:.0%} of all numbers"
        for at, share in enumerate(shares)
        if share > limit
    }


_BY_COORDINATE: Mapping[str, Callable[[Vectors, int], tuple[Vectors, dict[int, str]]]] = {
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
