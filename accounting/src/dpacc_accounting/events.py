"""What was run: immutable descriptions of mechanisms and of their compositions.

An event says nothing about what it costs; `dpacc_accounting.epsilon` and
`dpacc_accounting.delta` price it.
"""

from __future__ import annotations

import math
import numbers
import operator
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from dpacc_accounting.mechanisms import (
    DiscreteGaussian,
    ExponentialMechanism,
    Laplace,
    Mechanism,
    Skellam,
)


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """One release of a clipped sum with Gaussian noise: `sum + N(0, (noise_multiplier·C)²)`.

    Args:
        noise_multiplier: σ, the standard deviation of the noise divided by the clipping norm C
            (dimensionless). 0 means that nothing protects the sum: its ε is infinite.

    Raises:
        ValueError: σ is negative, NaN or infinite.

    Source: Dwork & Roth, The Algorithmic Foundations of Differential Privacy, appendix A.

    >>> Gaussian(noise_multiplier=1.1)
    Gaussian(noise_multiplier=1.1)
    """

    noise_multiplier: float

    def __post_init__(self) -> None:
        sigma = _real(self.noise_multiplier, name="noise_multiplier")
        if not (math.isfinite(sigma) and sigma >= 0):
            raise ValueError(
                f"noise_multiplier={sigma} is not a finite number >= 0; give the standard "
                "deviation of the noise divided by the clipping norm, such as 1.0"
            )
        object.__setattr__(self, "noise_multiplier", sigma)


@dataclass(frozen=True, kw_only=True)
class PoissonSampled:
    """`event`, run on a secret subset that each unit joins independently with `probability`.

    Shuffled or fixed-size batches are not this event, and are not amplified the same way.

    Args:
        probability: q in [0, 1], the same for every privacy unit.
        event: what is run on the subset.

    Raises:
        ValueError: q is NaN or outside [0, 1], or `event` is not an event.

    Source: Abadi et al. 2016 (arXiv 1607.00133); Balle, Barthe & Gaboardi 2018
    (arXiv 1807.01647).

    >>> PoissonSampled(probability=0.01, event=Gaussian(noise_multiplier=1.0)).probability
    0.01
    """

    probability: float
    event: Event

    def __post_init__(self) -> None:
        q = _real(self.probability, name="probability")
        if not 0 <= q <= 1:
            raise ValueError(
                f"probability={q} is outside [0, 1]; give the chance that one unit takes part, "
                "such as batch_size / dataset_size"
            )
        object.__setattr__(self, "probability", q)
        _require_event(self.event, owner="PoissonSampled")


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """`event`, run `times` times on the same data with fresh randomness (adaptively chosen).

    Args:
        event: what is repeated.
        times: how often, an integer >= 0.

    Raises:
        ValueError: `times` is negative or not an integer, or `event` is not an event.

    >>> Repeated(event=Gaussian(noise_multiplier=1.0), times=10).times
    10
    """

    event: Event
    times: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "times", _count(self.times))
        _require_event(self.event, owner="Repeated")


@dataclass(frozen=True, kw_only=True)
class Composed:
    """Every event of `events`, run on the same data with fresh randomness (adaptively chosen).

    Args:
        events: the parts, in any order; the guarantee does not depend on it.

    Raises:
        ValueError: a part is not an event.

    >>> one = Gaussian(noise_multiplier=1.0)
    >>> len(Composed(events=(one, one)).events)
    2
    """

    events: tuple[Event, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "events", tuple(self.events))
        for part in self.events:
            _require_event(part, owner="Composed")


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """One of `events`, drawn with `weights` by a coin that nobody but the mechanism sees.

    The coin does not depend on the data. A round that a client joins with a hidden chance c is
    `Mixture(weights=(c, 1 - c), events=(round, Composed(events=())))`.

    Args:
        weights: the chance of each event, >= 0; they add up to 1 and are divided by their sum,
            so that rounding leaves nothing over.
        events: what may run; `Composed(events=())` for nothing.

    Raises:
        ValueError: the weights do not add up to 1 or do not match `events`, or a part is not an
            event.

    Source: Balle, Barthe & Gaboardi 2018 (arXiv 1807.01647), joint convexity of the divergence.

    >>> noisy = Gaussian(noise_multiplier=1.0)
    >>> Mixture(weights=(0.25, 0.75), events=(noisy, Composed(events=()))).weights
    (0.25, 0.75)
    """

    weights: tuple[float, ...]
    events: tuple[Event, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "events", tuple(self.events))
        object.__setattr__(
            self, "weights", tuple(_real(w, name="a weight of Mixture") for w in self.weights)
        )
        for part in self.events:
            _require_event(part, owner="Mixture")
        if len(self.weights) != len(self.events):
            raise ValueError(
                f"Mixture has {len(self.weights)} weights for {len(self.events)} events; "
                "give each event its chance"
            )
        if not (min(self.weights, default=-1) >= 0 and abs(math.fsum(self.weights) - 1) <= 1e-9):
            raise ValueError(
                f"weights={self.weights} are not chances >= 0 that add up to 1; for what runs "
                "with chance c, add Composed(events=()) with the weight 1 - c"
            )


@dataclass(frozen=True, kw_only=True)
class SampledWithoutReplacement:
    """`event`, run on `sample_size` of `dataset_size` units, every such subset equally likely.

    Priced under replace-one adjacency, which leaves the size of the dataset as it is. Batches cut
    from one shuffled order are not this event: they depend on each other.

    Args:
        sample_size: units in the batch, at least 1.
        dataset_size: units in the dataset, at least `sample_size`.
        event: what is run on the batch.

    Raises:
        ValueError: the sizes do not fit, or `event` is not an event.

    Source: Balle, Barthe & Gaboardi 2018 (arXiv 1807.01647), theorem 10.

    >>> noisy = Gaussian(noise_multiplier=1.0)
    >>> SampledWithoutReplacement(sample_size=64, dataset_size=1000, event=noisy).sample_size
    64
    """

    sample_size: int
    dataset_size: int
    event: Event

    def __post_init__(self) -> None:
        for name in ("sample_size", "dataset_size"):
            object.__setattr__(self, name, _count(getattr(self, name), name=name))
        if not 1 <= self.sample_size <= self.dataset_size:
            raise ValueError(
                f"sample_size={self.sample_size} is not between 1 and "
                f"dataset_size={self.dataset_size}"
            )
        _require_event(self.event, owner="SampledWithoutReplacement")


@dataclass(frozen=True, kw_only=True)
class Shuffled:
    """One epoch over a shuffled dataset cut into batches, `event` being run on each.

    No accountant may treat it as Poisson sampling: the batches depend on each other, and its ε can
    be far larger. Pricing refuses it; `without_amplification` turns it into what may be priced,
    `event` on the one batch that holds the unit. Under add-or-remove adjacency this takes a removed
    unit to leave its place empty, so that no other unit changes batch.

    Args:
        event: what is run on each batch.

    Raises:
        ValueError: `event` is not an event.

    Source: Chua et al. 2024 (arXiv 2403.17673); Annamalai et al. 2024 (arXiv 2411.04205).

    >>> from dpacc_accounting.amplification import without_amplification
    >>> without_amplification(event=Shuffled(event=Gaussian(noise_multiplier=1.0)))
    Gaussian(noise_multiplier=1.0)
    """

    event: Event

    def __post_init__(self) -> None:
        _require_event(self.event, owner="Shuffled")


Event: TypeAlias = (
    Gaussian
    | PoissonSampled
    | Repeated
    | Composed
    | Mixture
    | SampledWithoutReplacement
    | Shuffled
    | Mechanism
)

_KINDS: dict[str, type[Event]] = {
    "gaussian": Gaussian,
    "poisson-sampled": PoissonSampled,
    "repeated": Repeated,
    "composed": Composed,
    "mixture": Mixture,
    "sampled-without-replacement": SampledWithoutReplacement,
    "shuffled": Shuffled,
    "laplace": Laplace,
    "discrete-gaussian": DiscreteGaussian,
    "skellam": Skellam,
    "exponential-mechanism": ExponentialMechanism,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
# A nested event cannot share the key "event", which names the kind.
_JSON_KEYS = {"event": "of", "events": "of"}


def event_to_json(*, event: Event) -> dict[str, Any]:
    """`event` as a dict that `json.dumps` accepts; `event_from_json` is the inverse.

    The key "event" names the kind, "of" holds what is nested, the others are the fields.

    >>> event_to_json(event=Repeated(event=Gaussian(noise_multiplier=2.0), times=3))
    {'event': 'repeated', 'of': {'event': 'gaussian', 'noise_multiplier': 2.0}, 'times': 3}
    """
    document: dict[str, Any] = {"event": _NAMES[type(event)]}
    for field in fields(event):
        document[_JSON_KEYS.get(field.name, field.name)] = _value_to_json(
            getattr(event, field.name)
        )
    return document


def event_from_json(*, document: Any) -> Event:
    """The event that `document` describes, as written by `event_to_json`.

    Raises:
        ValueError: an unknown kind or key, a missing key, or a value that the event refuses.

    >>> event_from_json(document={"event": "gaussian", "noise_multiplier": 2})
    Gaussian(noise_multiplier=2.0)
    """
    if not isinstance(document, dict):
        raise ValueError(f"an event is a JSON object, not {document!r}")
    name = document.get("event")
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ValueError(f"unknown event kind {name!r}; known kinds: {', '.join(_KINDS)}")
    names = {_JSON_KEYS.get(field.name, field.name): field.name for field in fields(kind)}
    _require_keys(document, expected=names, kind=kind)
    return kind(**{name: _value_from_json(name, document[key]) for key, name in names.items()})


def _value_to_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_value_to_json(part) for part in value]
    return value if isinstance(value, int | float) else event_to_json(event=value)


def _value_from_json(name: str, value: Any) -> Any:
    if name == "event":
        return event_from_json(document=value)
    if name not in ("events", "weights"):
        return value
    if not isinstance(value, list):
        raise ValueError(f"{_JSON_KEYS.get(name, name)!r} is a list here, not {value!r}")
    return tuple(value if name == "weights" else [event_from_json(document=p) for p in value])


def _require_keys(document: dict[str, Any], *, expected: dict[str, str], kind: type[Event]) -> None:
    unknown = sorted(map(str, document.keys() - expected.keys() - {"event"}))
    missing = sorted(expected.keys() - document.keys())
    if unknown or missing:
        raise ValueError(
            f"event {_NAMES[kind]!r} has unknown keys {unknown} and misses {missing}; "
            f"its keys are {sorted(expected)}"
        )


def _real(value: Any, *, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError(f"{name}={value!r} is not a number")
    return float(value)


def _count(value: Any, *, name: str = "times") -> int:
    try:
        times = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        times = -1
    if times < 0:
        raise ValueError(f"{name}={value!r} is not an integer >= 0; give a whole number")
    return times


def _require_event(value: Any, *, owner: str) -> None:
    if type(value) not in _NAMES:
        raise ValueError(f"{owner} holds {value!r}, which is not an event; give a Gaussian, ...")
