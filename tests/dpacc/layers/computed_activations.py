"""Counts of the examples that are run through frozen layers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from torch import Tensor

from dpacc.layers.frozen_activations import FrozenActivations


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """By each use of frozen activations from now on, how many were not known before."""
    unknown, found = FrozenActivations._unknown, list[int]()

    def watched(own: FrozenActivations, known: Mapping[str, Tensor]) -> list[int]:
        rows = unknown(own, known)
        found.append(len(rows))
        return rows

    monkeypatch.setattr(FrozenActivations, "_unknown", watched)
    return found
