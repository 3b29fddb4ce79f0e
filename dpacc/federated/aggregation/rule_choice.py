"""Which rule a name stands for, and what an adapter must be for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import get_args

from torch import nn

from dpacc.errors import ConfigurationError
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


def aggregation_named(name: str, *, model: nn.Module) -> tuple[Aggregation, Arrays]:
    """The rule of that name, and the first adapter with the corrections that the rule needs.

    Raises:
        ConfigurationError: an unknown name, or one that the adapter's method contradicts.
    """
    factors, first = factors_of(model), trainable_arrays(model)
    both = any(layer.lower in first for layer in factors)
    if name not in get_args(AggregationName):
        raise ConfigurationError(
            f"aggregation={name!r} must be one of {', '.join(get_args(AggregationName))}"
        )
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
