"""How the clients' adapters become one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from dpacc.errors import ConfigurationError
from dpacc.federated.layout import Arrays

AggregationName = Literal["ffa"]


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """The new shared adapter, and what became of each update.

    Args:
        arrays: the adapter.
        filtered: clients that were left out, and why.
        error: how far it strays from the mean of the clients' updates of the weights, relative.
    """

    arrays: Arrays
    filtered: Mapping[str, str] = field(default_factory=dict)
    error: float = 0.0


Aggregation = Callable[[Arrays, Mapping[str, Arrays]], Aggregate]
"""From the round's starting adapter and each client's adapter to the next one."""


def mean_of(updates: Mapping[str, Arrays]) -> Arrays:
    """The plain mean of every array, summed in float64, each client counting once.

    >>> one, two = np.float32([1.0]), np.float32([3.0])
    >>> mean_of({"a": {"B": one}, "b": {"B": two}})["B"].tolist()
    [2.0]
    """
    first = next(iter(updates.values()))
    return {
        name: np.asarray(
            np.mean([each[name] for each in updates.values()], axis=0, dtype=np.float64),
            dtype=np.float32,
        )
        for name in first
    }


def ffa(start: Arrays, updates: Mapping[str, Arrays]) -> Aggregate:
    """The mean of B, with A the same for all: s·mean(Bᵢ)·A = mean(s·Bᵢ·A) exactly.

    FFA-LoRA, arXiv 2403.12313.
    """
    del start
    return Aggregate(arrays=mean_of(updates))


_RULES: Mapping[str, Aggregation] = {"ffa": ffa}


def aggregation_named(name: str, *, lora_method: str) -> Aggregation:
    """The rule of that name.

    Raises:
        ConfigurationError: an unknown name, or one that the adapter's method contradicts.
    """
    if name not in get_args(AggregationName):
        raise ConfigurationError(
            f"aggregation={name!r} must be one of {', '.join(get_args(AggregationName))}"
        )
    if name == "ffa" and lora_method != "ffa":
        raise ConfigurationError(
            f"aggregation='ffa' with method={lora_method!r}: the mean of A and that of B do not "
            "multiply to the mean of B·A; train with LoraSettings(method='ffa')"
        )
    return _RULES[name]
