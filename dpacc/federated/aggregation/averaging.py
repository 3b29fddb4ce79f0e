"""How the clients' adapters become one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from dpacc.federated.aggregation.exact_sum import ExactSum
from dpacc.federated.aggregation.factors import Factors, Matrix
from dpacc.federated.settings import AggregationName as AggregationName
from dpacc.federated.updates.layout import Arrays

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


class Gathering(Protocol):
    """One round's updates, as they come."""

    def add(self, node: int, update: Arrays) -> None:
        """Take one client's; it comes once, and may be of use no more afterwards."""

    def aggregate(self, names: Mapping[int, str]) -> Aggregate:
        """What they become, of the clients by these names."""


@runtime_checkable
class Streaming(Protocol):
    """A rule that keeps no update: each is added to a sum, and dropped."""

    def begin(self, start: Arrays) -> Gathering:
        """A round's sum, which starts from this adapter."""


class Together:
    """A round's updates for a rule that must see them side by side, in the order of their nodes.

    Args:
        aggregate: from each client's adapter to the next one.
    """

    def __init__(self, aggregate: Callable[[Mapping[str, Arrays]], Aggregate]) -> None:
        self._rule = aggregate
        self._updates: dict[int, Arrays] = {}

    def add(self, node: int, update: Arrays) -> None:
        """Keep one."""
        self._updates[node] = update

    def aggregate(self, names: Mapping[int, str]) -> Aggregate:
        """What the rule makes of all."""
        return self._rule({names[node]: self._updates[node] for node in sorted(self._updates)})


class RunningMean:
    """The plain mean of every array, each client counting once, in whatever order they come."""

    def __init__(self) -> None:
        self._sums: dict[str, ExactSum] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def add(self, node: int, update: Arrays) -> None:
        """Add one."""
        del node
        if not self._sums:
            self._sums = {name: ExactSum(values.size) for name, values in update.items()}
            self._shapes = {name: values.shape for name, values in update.items()}
        for name, total in self._sums.items():
            total.add(update[name])

    def aggregate(self, names: Mapping[int, str]) -> Aggregate:
        """Their mean, rounded once to fp32."""
        del names
        return Aggregate(arrays=self.mean())

    def mean(self) -> Arrays:
        """The mean of what was added."""
        return {
            name: (total.total() / total.terms).astype(np.float32).reshape(self._shapes[name])
            for name, total in self._sums.items()
        }


def mean_of(updates: Mapping[str, Arrays]) -> Arrays:
    """The plain mean of every array, summed without rounding, each client counting once.

    >>> one, two = np.float32([1.0]), np.float32([3.0])
    >>> mean_of({"a": {"B": one}, "b": {"B": two}})["B"].tolist()
    [2.0]
    """
    running = RunningMean()
    for node, update in enumerate(updates.values()):
        running.add(node, update)
    return running.mean()


class PlainMean:
    """The mean of B, with A the same for all: s·mean(Bᵢ)·A = mean(s·Bᵢ·A) exactly.

    FFA-LoRA, arXiv 2403.12313.
    """

    def __call__(self, start: Arrays, updates: Mapping[str, Arrays]) -> Aggregate:
        """Of updates that lie side by side."""
        del start
        return Aggregate(arrays=mean_of(updates))

    def begin(self, start: Arrays) -> RunningMean:
        """Of updates as they come."""
        del start
        return RunningMean()


ffa = PlainMean()


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
