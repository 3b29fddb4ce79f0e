"""FedASK: the mean of products B·A from two small images of each, and never from A or B alone.

Every quantity that a client sends is linear in its own product, so the server needs only means.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.averaging import Aggregate, Aggregation, mean_of
from dpacc.federated.aggregation.factors import Factors, Matrix
from dpacc.federated.updates.layout import Arrays
from dpacc.randomness.gaussian_noise import standard_normals
from dpacc.randomness.run_secret import RunSecret

OVERSAMPLING = 8
"""Columns beyond the sketch's size, which keep rounding to fp32 from being magnified."""

PROBES = 8
"""Columns that take no part in the result, and measure its error."""

_FADED = 1e-6


@dataclass(frozen=True, kw_only=True)
class Sketching:
    """Two stages between a server and clients that hold Mᵢ = s·Bᵢ·Aᵢ of each adapted layer.

    1. With Ω a public random Gaussian matrix, each client sends Mᵢ·Ω. The server takes the mean,
       and an orthonormal basis Q of its columns.
    2. Each client sends Qᵀ·Mᵢ. The mean product is Q·mean(Qᵀ·Mᵢ).

    It is exact where the mean's rank is at most `size`: its columns then lie in the span of Q with
    probability one. Else with p = 8 more columns, and singular values σⱼ of the mean, the expected
    squared error is at most (1 + size/(p − 1))·Σ_{j>size} σⱼ² (Halko, Martinsson & Tropp, arXiv
    0909.4061, theorem 10.5). n clients of rank r have a mean of rank n·r at most. FedASK, arXiv
    2507.09990.

    Args:
        factors: the adapted layers.
        size: the rank that is caught for certain.
        run: of the federation.
        number: of the round, each of which draws another Ω.
    """

    factors: tuple[Factors, ...]
    size: int
    run: str = ""
    number: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise ConfigurationError(f"sketch_size={self.size!r} must be a whole number above 0")

    def columns(self, layer: Factors) -> int:
        """Of a basis; never more than the layer's weight has."""
        return min(self.size + OVERSAMPLING, layer.outputs, layer.inputs)

    def first(self, update: Arrays) -> Arrays:
        """What a client sends first: Mᵢ·Ω of each layer, and all that is no factor as it is."""
        sent = {name: values for name, values in update.items() if name not in self._factor_names}
        for layer in self.factors:
            image = update[layer.lower].astype(np.float64) @ self._directions(layer)
            upper = layer.scale * update[layer.upper].astype(np.float64)
            sent[_sketch(layer)] = (upper @ image).astype(np.float32)
        return sent

    def bases(self, mean: Arrays) -> Arrays:
        """Q of each layer, [outputs, columns], from the mean of what came first."""
        return {
            _basis(layer): np.linalg.qr(
                mean[_sketch(layer)][:, : self.columns(layer)].astype(np.float64)
            )[0].astype(np.float32)
            for layer in self.factors
        }

    def second(self, update: Arrays, bases: Arrays) -> Arrays:
        """What a client sends then: Qᵀ·Mᵢ of each layer."""
        return {
            _projection(layer): (
                layer.scale
                * (bases[_basis(layer)].T.astype(np.float64) @ update[layer.upper])
                @ update[layer.lower].astype(np.float64)
            ).astype(np.float32)
            for layer in self.factors
        }

    def first_like(self, adapter: Arrays) -> Arrays:
        """Shapes of `first`."""
        sent = {n: values for n, values in adapter.items() if n not in self._factor_names}
        return sent | {
            _sketch(layer): np.zeros((layer.outputs, self.columns(layer) + PROBES), np.float32)
            for layer in self.factors
        }

    def bases_like(self) -> Arrays:
        """Shapes of `bases`."""
        return {
            _basis(layer): np.zeros((layer.outputs, self.columns(layer)), np.float32)
            for layer in self.factors
        }

    def second_like(self) -> Arrays:
        """Shapes of `second`."""
        return {
            _projection(layer): np.zeros((self.columns(layer), layer.inputs), np.float32)
            for layer in self.factors
        }

    def aggregate(
        self,
        start: Arrays,
        first: Mapping[str, Arrays],
        ask: Callable[[Arrays], Mapping[str, Arrays]],
        *,
        drawn: Arrays,
    ) -> Aggregate:
        """The next adapter: the mean's best part of rank r; the rest is added to the base.

        Args:
            start: the round's.
            first: what each client sent first.
            ask: sends the bases, and returns what clients sent then.
            drawn: the adapter before any training, whose A fills rows that hold nothing.
        """
        bases = self.bases(mean_of(first))
        second = ask(bases)
        silent = {n: "did not answer the second question" for n in first if n not in second}
        if not second:
            return Aggregate(arrays=start, filtered=silent)
        sketches = mean_of({name: first[name] for name in second})
        projections = mean_of(second)
        arrays = {n: values for n, values in sketches.items() if n in start}
        missed = total = 0.0
        for layer in self.factors:
            basis = bases[_basis(layer)].astype(np.float64)
            # In fp32 Q is not quite orthonormal; the mean's part in its span is exact this way.
            projected = projections[_projection(layer)].astype(np.float64)
            inner: Matrix = np.asarray(np.linalg.solve(basis.T @ basis, projected))
            arrays |= _refactored(layer, basis, inner, start=start, drawn=drawn)
            probed = sketches[_sketch(layer)][:, self.columns(layer) :].astype(np.float64)
            probes = self._directions(layer)[:, self.columns(layer) :]
            missed += float(np.square(probed - basis @ (inner @ probes)).sum())
            total += float(np.square(probed).sum())
        error = math.sqrt(missed / total) if total else 0.0
        return Aggregate(arrays=arrays, filtered=silent, error=error)

    @property
    def _factor_names(self) -> set[str]:
        return {name for layer in self.factors for name in (layer.lower, layer.upper)}

    def _directions(self, layer: Factors) -> Matrix:
        """Ω and the probes, [inputs, columns + PROBES]: public, the same at both ends."""
        label = json.dumps(["sketch", self.run, self.number, layer.name])
        public = RunSecret(hashlib.sha256(label.encode()).digest())
        width = self.columns(layer) + PROBES
        drawn = standard_normals(secret=public, step=0, count=layer.inputs * width)
        return np.asarray(drawn.reshape(layer.inputs, width), dtype=np.float64)


def fedask(factors: tuple[Factors, ...], *, drawn: Arrays) -> Aggregation:
    """Both stages in one place, for updates that are at hand; large enough to be exact."""

    def aggregate(start: Arrays, updates: Mapping[str, Arrays]) -> Aggregate:
        rank = max(drawn[layer.lower].shape[0] for layer in factors)
        sketching = Sketching(factors=factors, size=rank * len(updates))
        return sketching.aggregate(
            start,
            {name: sketching.first(each) for name, each in updates.items()},
            lambda bases: {n: sketching.second(each, bases) for n, each in updates.items()},
            drawn=drawn,
        )

    return aggregate


def _refactored(
    layer: Factors, basis: Matrix, inner: Matrix, *, start: Arrays, drawn: Arrays
) -> Arrays:
    """Q·inner as s·B·A plus a correction of the base: B = Q·U·√(Σ/s), A = √(Σ/s)·Vᵀ.

    A rank that the mean does not fill gets a column of zeros in B and its first row in A, so that
    it can still learn.
    """
    rank = drawn[layer.lower].shape[0]
    left, values, right = np.linalg.svd(inner, full_matrices=False)
    kept = min(rank, int((values > _FADED * values[0]).sum()))
    root = np.sqrt(values[:kept] / layer.scale)
    upper, lower = np.zeros_like(drawn[layer.upper]), drawn[layer.lower].copy()
    upper[:, :kept] = basis @ left[:, :kept] * root
    lower[:kept] = root[:, None] * right[:kept]
    arrays = {layer.upper: upper, layer.lower: lower}
    rest = basis @ inner - layer.product(arrays)
    before = start[layer.correction].astype(np.float64)
    return arrays | {layer.correction: (before + rest).astype(np.float32)}


def _sketch(layer: Factors) -> str:
    return f"sketch/{layer.name}"


def _basis(layer: Factors) -> str:
    return f"basis/{layer.name}"


def _projection(layer: Factors) -> str:
    return f"projection/{layer.name}"
