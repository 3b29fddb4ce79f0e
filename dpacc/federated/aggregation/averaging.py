"""How the clients' adapters become one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from dpacc.federated.aggregation.factors import Factors, Matrix
from dpacc.federated.updates.layout import Arrays

AggregationName = Literal["ffa", "fedex", "stacking", "fedask", "average"]
CORRECTING = ("fedex", "stacking", "fedask")
"""Rules that change the base's weights, on every client."""


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


def plain_average(factors: Sequence[Factors]) -> Aggregation:
    """The means of A and of B, whose product is not the mean of the products.

    `error` is ‖s·B̄·Ā − mean(s·Bᵢ·Aᵢ)‖ / ‖mean(s·Bᵢ·Aᵢ)‖ over all layers, in Frobenius norm.
    """

    def aggregate(start: Arrays, updates: Mapping[str, Arrays]) -> Aggregate:
        del start
        arrays = mean_of(updates)
        missed = total = 0.0
        for layer in factors:
            exact = _mean_product(layer, updates)
            missed += float(np.square(layer.product(arrays) - exact).sum())
            total += float(np.square(exact).sum())
        return Aggregate(arrays=arrays, error=math.sqrt(missed / total) if total else 0.0)

    return aggregate


def fedex(factors: Sequence[Factors]) -> Aggregation:
    """The means of A and of B, and what their product misses is added to the base.

    W ← W + mean(s·Bᵢ·Aᵢ) − s·B̄·Ā, so that the model is the mean of the clients' models
    (FedEx-LoRA, arXiv 2410.09432).
    """

    def aggregate(start: Arrays, updates: Mapping[str, Arrays]) -> Aggregate:
        arrays = mean_of(updates)
        for layer in factors:
            missed = _mean_product(layer, updates) - layer.product(arrays)
            arrays[layer.correction] = _grown(start, layer, missed)
        return Aggregate(arrays=arrays)

    return aggregate


def stacking(factors: Sequence[Factors], *, drawn: Arrays) -> Aggregation:
    """All clients' factors side by side, [B₁ … Bₙ]·[A₁; …; Aₙ]/n, folded into the base.

    The adapter then starts over from A as it was `drawn` and B = 0 (FLoRA, arXiv 2409.05976).
    """

    def aggregate(start: Arrays, updates: Mapping[str, Arrays]) -> Aggregate:
        arrays = mean_of(updates)
        for layer in factors:
            uppers = [each[layer.upper].astype(np.float64) for each in updates.values()]
            lowers = [each[layer.lower].astype(np.float64) for each in updates.values()]
            stacked = np.concatenate(uppers, axis=1) @ np.concatenate(lowers, axis=0)
            arrays[layer.correction] = _grown(start, layer, layer.scale * stacked / len(updates))
            arrays[layer.upper] = np.zeros_like(drawn[layer.upper])
            arrays[layer.lower] = drawn[layer.lower].copy()
        return Aggregate(arrays=arrays)

    return aggregate


def _mean_product(layer: Factors, updates: Mapping[str, Arrays]) -> Matrix:
    return np.asarray(np.mean([layer.product(each) for each in updates.values()], axis=0))


def _grown(start: Arrays, layer: Factors, by: Matrix) -> npt.NDArray[np.float32]:
    return np.asarray(start[layer.correction].astype(np.float64) + by, dtype=np.float32)
