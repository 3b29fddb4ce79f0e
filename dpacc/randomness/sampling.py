"""Which examples take part in a logical step: Poisson sampling, decided globally."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpacc.data.privacy_units import owners_of
from dpacc.randomness.run_secret import RunSecret

_WORD_VALUES = 1 << 64


def group_by_unit(*, units: Sequence[Hashable]) -> list[list[int]]:
    """The positions of each unit's examples, units in the order of their first example.

    Owners are compared, and refused, as [`owners_of`][dpacc.data.privacy_units.owners_of] says.

    >>> group_by_unit(units=["ann", "bob", "ann"])
    [[0, 2], [1]]
    """
    members: dict[Hashable, list[int]] = {}
    for position, unit in enumerate(owners_of(units)):
        members.setdefault(unit, []).append(position)
    return list(members.values())


@dataclass(frozen=True, kw_only=True)
class PoissonSampler:
    """Each example joins each step independently with probability q = expected / N.

    The coin of example i at step t is word i of the stream (secret, "sampling", t): every rank
    computes the same answer and takes its share, so no rank draws on its own. A word joins when
    it is below ⌊q·2⁶⁴⌋, so the probability is exact to 2⁻⁶⁴ and never above q.

    >>> sampler = PoissonSampler(
    ...     dataset_size=5, expected_batch_size=5, secret=RunSecret.from_fixed_seed(0))
    >>> sampler.draw(step=0).tolist()
    [0, 1, 2, 3, 4]
    """

    dataset_size: int
    expected_batch_size: int
    secret: RunSecret

    def draw(self, *, step: int) -> npt.NDArray[np.intp]:
        """The indices that joined this step, ascending; it may be empty."""
        if self.expected_batch_size == self.dataset_size:
            return np.arange(self.dataset_size)
        threshold = np.uint64(self.expected_batch_size * _WORD_VALUES // self.dataset_size)
        stream = self.secret.stream(purpose="sampling", step=step)
        return np.flatnonzero(stream.words(start=0, count=self.dataset_size) < threshold)
