"""Which examples stand for which privacy unit in which step, on every rank alike."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from dpacc.data.privacy_units import owners_of, require_one_each
from dpacc.errors import ConfigurationError
from dpacc.plan import PrivacyPlan
from dpacc.randomness.run_secret import RunSecret
from dpacc.randomness.sampling import group_by_unit
from dpacc.ranks import collectives
from dpacc.ranks.fingerprints import data_fingerprint


class Members:
    """What is drawn, and which examples each of it stands for.

    At most `cap` examples of a unit are taken: those with the smallest words of a secret stream,
    the word of an example being that of its place. Whose words are smallest has nothing to do with
    what the examples say, nor with other units.

    Args:
        of_units: the examples of each unit.
        cap: the most of one; none takes all.
        singly: whether each example that is kept is drawn by itself; which are kept holds for the
            run. Otherwise units are drawn, and their examples anew in each step.
        secret: the run's.

    >>> members = Members(of_units=[[0, 2, 3], [1]], cap=2, singly=True,
    ...                   secret=RunSecret.from_fixed_seed(0))
    >>> len(members), members.in_step(0, step=5)
    (3, [0])
    """

    def __init__(
        self, *, of_units: Sequence[Sequence[int]], cap: int | None, singly: bool, secret: RunSecret
    ) -> None:
        self._cap, self._secret = cap, secret
        self._of_units = of_units
        self._count = sum(map(len, of_units))
        self._drawn: tuple[Any, Any] = (None, None)
        if singly:
            kept = [i for unit in of_units for i in self._kept(unit, purpose="kept", step=0)]
            self._of_units = [[example] for example in sorted(kept)]

    def __len__(self) -> int:
        return len(self._of_units)

    def in_step(self, drawn: int, *, step: int) -> Sequence[int]:
        """The examples that number `drawn` stands for in a step, ascending."""
        return self._kept(self._of_units[drawn], purpose="rows of units", step=step)

    def _kept(self, unit: Sequence[int], *, purpose: str, step: int) -> Sequence[int]:
        if self._cap is None or len(unit) <= self._cap:
            return unit
        places = np.asarray(unit)
        # Two equal words, which never come, would be told by place.
        first = np.argsort(self._words(purpose, step)[places], kind="stable")[: self._cap]
        return sorted(places[first].tolist())

    def _words(self, purpose: str, step: int) -> Any:
        if self._drawn[0] != (purpose, step):
            stream = self._secret.stream(purpose=purpose, step=step)
            self._drawn = ((purpose, step), stream.words(start=0, count=self._count))
        return self._drawn[1]


def members_of(
    *,
    dataset: Sequence[Any],
    units: Sequence[Hashable] | None,
    plan: PrivacyPlan,
    secret: RunSecret,
) -> Members:
    """What a run draws from, and which examples it stands for.

    Args:
        dataset: the private examples.
        units: whose each of them is; by default each is its own.
        plan: says how many units there are, and how many examples of one may count.
        secret: says which do.

    Raises:
        ConfigurationError: another number than the plan's, or ranks disagree.
    """
    count = len(dataset)
    collectives.require_agreement(
        {"the number of examples": count if units is None else collectives.Digest(str(count))}
    )
    if units is not None:
        require_one_each(examples=count, units=units)
    owners = owners_of(range(count) if units is None else units)
    collectives.require_agreement(
        {"the training data or its order": data_fingerprint(dataset, owners)}
    )
    singly = plan.sampling == "examples"
    if (plan.unit_cap is not None or singly) and units is None:
        raise ConfigurationError(
            f"unit_cap={plan.unit_cap} bounds the examples of one {plan.unit}: say whose each "
            "example is with units="
        )
    of_units = group_by_unit(units=owners)
    members = Members(of_units=of_units, cap=plan.unit_cap, singly=singly, secret=secret)
    if len(members) != plan.dataset_size:
        counted = f"examples, at most {plan.unit_cap} of a {plan.unit}," if singly else ""
        raise ConfigurationError(
            f"the dataset has {len(members)} {counted or plan.unit + 's'} and the plan "
            f"dataset_size={plan.dataset_size}; calibrate the plan for this dataset"
        )
    return members
