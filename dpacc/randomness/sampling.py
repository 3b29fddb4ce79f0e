"""Which examples take part in a logical step, for all ranks: Poisson samples, or an allocation."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True, kw_only=True)
class AllocatedSampler:
    """Each example is in exactly one of the steps of each epoch, drawn uniformly and afresh.

    Word i of the stream (secret, "allocation", e) says in which of the `steps_an_epoch` steps E of
    epoch e example i is: the one numbered by the word modulo E. So every rank computes the same
    answer, an example's step depends on its own place alone, and batches differ in size.

    A step's chance is ⌊2⁶⁴/E⌋ or ⌈2⁶⁴/E⌉ in 2⁶⁴, so at most 1 + E/2⁶⁴ times 1/E, and an outcome's
    chance grows by no larger factor: by 6·10⁻¹⁵ at E = 10⁵, beyond which allocation has no price.
    The accountant's bounds allow for far more, 10⁻¹³·E in an epoch, for their own rounding.

    >>> sampler = AllocatedSampler(
    ...     dataset_size=5, steps_an_epoch=2, secret=RunSecret.from_fixed_seed(0))
    >>> sorted(sampler.draw(step=0).tolist() + sampler.draw(step=1).tolist())
    [0, 1, 2, 3, 4]
    """

    dataset_size: int
    steps_an_epoch: int
    secret: RunSecret
    _last: dict[int, npt.NDArray[np.intp]] = field(default_factory=dict, repr=False, compare=False)

    def draw(self, *, step: int) -> npt.NDArray[np.intp]:
        """The indices that are in this step, ascending; it may be empty."""
        epoch, place = divmod(step, self.steps_an_epoch)
        return np.flatnonzero(self.places(epoch=epoch) == place)

    def places(self, *, epoch: int) -> npt.NDArray[np.intp]:
        """[N], in which of the epoch's steps each example is."""
        if epoch not in self._last:
            stream = self.secret.stream(purpose="allocation", step=epoch)
            words = stream.words(start=0, count=self.dataset_size)
            self._last.clear()
            self._last[epoch] = (words % np.uint64(self.steps_an_epoch)).astype(np.intp)
        return self._last[epoch]

    def turns(self) -> npt.NDArray[np.intp]:
        """[N] zeros: all examples are of one group, that may be in any step."""
        return np.zeros(self.dataset_size, dtype=np.intp)


@dataclass(frozen=True, kw_only=True)
class PhasedSampler:
    """Poisson samples at the rate of the phase that a step is in.

    The coins are those of [`PoissonSampler`][dpacc.randomness.sampling.PoissonSampler], by the
    number of the step in the whole run, so that no two phases share any.

    >>> plan = PrivacyPlan(
    ...     dataset_size=5, expected_batch_size=1, steps=4, noise_multiplier=1.0, max_grad_norm=1.0,
    ...     target_delta=1e-3, phases=[
    ...         {"steps": 3, "expected_batch_size": 1, "noise_multiplier": 1.0},
    ...         {"steps": 1, "expected_batch_size": 5, "noise_multiplier": 1.0}])
    >>> PhasedSampler(plan=plan, secret=RunSecret.from_fixed_seed(0)).draw(step=3).tolist()
    [0, 1, 2, 3, 4]
    """

    plan: PrivacyPlan
    secret: RunSecret

    def draw(self, *, step: int) -> npt.NDArray[np.intp]:
        """The indices that joined this step, ascending; it may be empty."""
        return sampler_for(plan=self.plan.at(step), secret=self.secret).draw(step=step)

    def turns(self) -> npt.NDArray[np.intp]:
        """[N] zeros: all examples are of one group, that may be in any step."""
        return np.zeros(self.plan.dataset_size, dtype=np.intp)


Sampler = PoissonSampler | AllocatedSampler | PhasedSampler


def sampler_for(*, plan: PrivacyPlan, secret: RunSecret) -> Sampler:
    """What draws the steps of a plan.

    >>> plan = PrivacyPlan(dataset_size=100, expected_batch_size=10, steps=5, noise_multiplier=1.0,
    ...                    max_grad_norm=1.0, target_delta=1e-3)
    >>> type(sampler_for(plan=plan, secret=RunSecret.from_fixed_seed(0))).__name__
    'PoissonSampler'
    """
    if plan.sampling == "allocated":
        return AllocatedSampler(
            dataset_size=plan.dataset_size, steps_an_epoch=plan.participation.cycle, secret=secret
        )
    if plan.phases:
        return PhasedSampler(plan=plan, secret=secret)
    return PoissonSampler(
        dataset_size=plan.dataset_size,
        expected_batch_size=plan.expected_batch_size,
        secret=secret,
        groups=plan.bands,
    )
