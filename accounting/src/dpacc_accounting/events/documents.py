"""Events as JSON, and back."""

from __future__ import annotations

import math
from dataclasses import MISSING, fields
from typing import Any

from dpacc_accounting.events.arguments import an_event
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

_KINDS: dict[str, type[Event]] = {
    "gaussian": Gaussian,
    "adaptively-clipped": AdaptivelyClipped,
    "mixture-of-gaussians": MixtureOfGaussians,
    "poisson-sampled": PoissonSampled,
    "repeated": Repeated,
    "composed": Composed,
    "mixture": Mixture,
    "sampled-without-replacement": SampledWithoutReplacement,
    "truncated-poisson-sampled": TruncatedPoissonSampled,
    "cyclic-poisson-sampled": CyclicPoissonSampled,
    "randomly-allocated": RandomlyAllocated,
    "selected": Selected,
    "separated-participation": SeparatedParticipation,
    "shuffled": Shuffled,
    "laplace": Laplace,
    "discrete-gaussian": DiscreteGaussian,
    "skellam": Skellam,
    "exponential-mechanism": ExponentialMechanism,
    "approximate-dp": ApproximateDP,
    "randomized-response": RandomizedResponse,
    "discrete-laplace": DiscreteLaplace,
    "truncated-discrete-gaussian": TruncatedDiscreteGaussian,
    "permute-and-flip": PermuteAndFlip,
    "zcdp": ZCDP,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
# A nested event cannot share the key "event", which names the kind.
_JSON_KEYS = {"event": "of", "events": "of"}
_NUMBER_LISTS = ("weights", "sensitivities", "coefficients", "decays")


def event_to_json(*, event: Event) -> dict[str, Any]:
    """`event` as a dict that `json.dumps` accepts; `event_from_json` is the inverse.

    The key "event" names the kind, "of" holds what is nested, the others are the fields.

    >>> event_to_json(event=Repeated(event=Gaussian(noise_multiplier=2.0), times=3))
    {'event': 'repeated', 'of': {'event': 'gaussian', 'noise_multiplier': 2.0}, 'times': 3}
    """
    an_event(event)
    document: dict[str, Any] = {"event": _NAMES[type(event)]}
    for field in fields(event):
        # What was added later is left out where it says nothing new: old documents stay the same.
        if getattr(event, field.name) == field.default:
            continue
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
    optional = {field.name for field in fields(kind) if field.default is not MISSING}
    _require_keys(document, expected=names, optional=optional, kind=kind)
    return kind(
        **{
            name: _value_from_json(name, document[key])
            for key, name in names.items()
            if key in document
        }
    )


def _value_to_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_value_to_json(part) for part in value]
    if not isinstance(value, int | float):
        return event_to_json(event=value)
    # Strict JSON has no infinity.
    return value if math.isfinite(value) else "inf"


def _value_from_json(name: str, value: Any) -> Any:
    if name == "event":
        return event_from_json(document=value)
    if name == "shape" and value == "inf":
        return math.inf
    if name not in ("events", *_NUMBER_LISTS):
        return value
    if not isinstance(value, list):
        raise ValueError(f"{_JSON_KEYS.get(name, name)!r} is a list here, not {value!r}")
    return tuple(value if name in _NUMBER_LISTS else [event_from_json(document=p) for p in value])


def _require_keys(
    document: dict[str, Any],
    *,
    expected: dict[str, str],
    optional: set[str],
    kind: type[Event],
) -> None:
    unknown = sorted(map(str, document.keys() - expected.keys() - {"event"}))
    missing = sorted(expected.keys() - optional - document.keys())
    if unknown or missing:
        raise ValueError(
            f"event {_NAMES[kind]!r} has unknown keys {unknown} and misses {missing}; "
            f"its keys are {sorted(expected)}"
        )
