"""Which rule a name stands for, and what an adapter must be for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import get_args

from torch import nn

from dpacc.errors import ConfigurationError, choices
from dpacc.federated.aggregation.averaging import (
    CORRECTING,
    Aggregation,
    AggregationName,
    fedex,
    ffa,
    plain_average,
    stacking,
)
from dpacc.federated.aggregation.factors import factors_of, no_corrections
from dpacc.federated.aggregation.sketches import fedask
from dpacc.federated.updates.layout import Arrays, trainable_arrays

_ROBUST = (
    "robust rules are no aggregation of their own here: leave aggregation as it is, and give "
    "defence=Defence(rule=..., attackers=f)"
)
_SECURE = (
    "a sum stays shut by secure_sum=SecureSum(clients=n), given to the server and to each "
    "SecureClient, with aggregation='ffa'; every client counts alike, for weights by numbers of "
    "examples would tell each client's size"
)
_MEAN = (
    "take 'ffa', which averages B exactly, or with LoraSettings(method='lora') 'fedex', which is "
    "exact too, or 'average'; every client counts alike, so that no size is told"
)
_ELSEWHERE: Mapping[str, str] = {
    **dict.fromkeys(("secure_weighted", "secure", "secagg", "homomorphic"), _SECURE),
    **dict.fromkeys(("fedavg", "weighted", "mean"), _MEAN),
    **dict.fromkeys(("krum", "multi_krum", "bulyan", "median", "trimmed_mean"), _ROBUST),
    "coordinate_median": _ROBUST,
}
"""Words that other federations have for a rule, and what does it here."""


def require_known(name: object) -> None:
    """Refuse a word that is no rule.

    Raises:
        ConfigurationError: with what to use in its place.

    >>> require_known("fedexp")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    dpacc.errors.ConfigurationError: aggregation='fedexp' must be one of ... you mean 'fedex'?
    """
    known = get_args(AggregationName)
    if isinstance(name, str) and name in known:
        return
    word = str(name).lower().replace("-", "_")
    said = _ELSEWHERE.get(word)
    raise ConfigurationError(
        f"aggregation={name!r} must be one of {choices(name, known)}"
        if said is None
        else f"aggregation={name!r}: {said}"
    )


def aggregation_named(name: str, *, model: nn.Module) -> tuple[Aggregation, Arrays]:
    """The rule of that name, and the first adapter with the corrections that the rule needs.

    Raises:
        ConfigurationError: an unknown name, or one that the adapter's method contradicts.
    """
    require_known(name)
    factors, first = factors_of(model), trainable_arrays(model)
    both = any(layer.lower in first for layer in factors)
    if name == "ffa" and both:
        raise ConfigurationError(
            "aggregation='ffa' with an adapter that trains A and B: the mean of A and that of B do "
            "not multiply to the mean of B·A; train with LoraSettings(method='ffa'), or take "
            "aggregation='fedex'"
        )
    if name != "ffa" and not both:
        raise ConfigurationError(
            f"aggregation={name!r} with LoraSettings(method='ffa'), whose average is exact as it "
            "is: take aggregation='ffa', or train both factors with method='lora'"
        )
    if name in CORRECTING:
        first |= no_corrections(model)
    rules: Mapping[str, Callable[[], Aggregation]] = {
        "ffa": lambda: ffa,
        "average": lambda: plain_average(factors),
        "fedex": lambda: fedex(factors),
        "stacking": lambda: stacking(factors, drawn=dict(first)),
        "fedask": lambda: fedask(factors, drawn=dict(first)),
    }
    return rules[name](), first
