"""Which examples take part in a logical step: Poisson sampling, in turns or not, for all ranks."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from dpacc.data.privacy_units import owners_of
from dpacc.plan import PrivacyPlan
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

    With several `groups`, word i of the stream (secret, "groups") says which group example i is in;
    group t mod `groups` takes step t, and each of its examples joins with probability groups · q.

    >>> sampler = PoissonSampler(
    ...     dataset_size=5, expected_batch_size=5, secret=RunSecret.from_fixed_seed(0))
    >>> sampler.draw(step=0).tolist()
    [0, 1, 2, 3, 4]
    """

    dataset_size: int
    expected_batch_size: int
    secret: RunSecret
    groups: int = 1

    @property
    def probability(self) -> Fraction:
        """The chance with which an example joins a step that it may join."""
        return Fraction(self.groups * self.expected_batch_size, self.dataset_size)

    def draw(self, *, step: int) -> npt.NDArray[np.intp]:
        """The indices that joined this step, ascending; it may be empty."""
        joins = self._joins(step)
        return np.flatnonzero(joins if self.groups == 1 else joins & self._may_join(step))

    def _joins(self, step: int) -> npt.NDArray[np.bool_]:
        if self.probability == 1:
            return np.ones(self.dataset_size, dtype=np.bool_)
        threshold = np.uint64(self.probability * _WORD_VALUES // 1)
        joins: npt.NDArray[np.bool_] = self._words("sampling", step) < threshold
        return joins

    def _may_join(self, step: int) -> npt.NDArray[np.bool_]:
        in_turn: npt.NDArray[np.bool_] = self.turns() == step % self.groups
        return in_turn

    def turns(self) -> npt.NDArray[np.intp]:
        """[N], the group of each example: it may join steps of that number modulo `groups`."""
        return (self._words("groups", 0) % np.uint64(self.groups)).astype(np.intp)

    def _words(self, purpose: str, step: int) -> npt.NDArray[np.uint64]:
        stream = self.secret.stream(purpose=purpose, step=step)
        return stream.words(start=0, count=self.dataset_size)


def sampler_for(*, plan: PrivacyPlan, secret: RunSecret) -> PoissonSampler:
    """What draws the steps of a plan.

    >>> plan = PrivacyPlan(dataset_size=100, expected_batch_size=10, steps=5, noise_multiplier=1.0,
    ...                    max_grad_norm=1.0, target_delta=1e-3)
    >>> sampler_for(plan=plan, secret=RunSecret.from_fixed_seed(0)).groups
    1
    """
    return PoissonSampler(
        dataset_size=plan.dataset_size,
        expected_batch_size=plan.expected_batch_size,
        secret=secret,
        groups=plan.bands,
    )
