"""Which examples belong to which privacy unit, on every rank alike."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from dpacc.data.privacy_units import owners_of, require_one_each
from dpacc.errors import ConfigurationError
from dpacc.plan import PrivacyPlan
from dpacc.randomness.sampling import group_by_unit
from dpacc.ranks import collectives
from dpacc.ranks.fingerprints import data_fingerprint


def members_of(
    *, dataset: Sequence[Any], units: Sequence[Hashable] | None, plan: PrivacyPlan
) -> Sequence[Sequence[int]]:
    """The examples of each privacy unit of a run.

    Args:
        dataset: the private examples.
        units: whose each of them is; by default each is its own.
        plan: says how many units there are.

    Raises:
        ConfigurationError: another number of units than the plan's, or ranks disagree.
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
    members = group_by_unit(units=owners)
    if len(members) != plan.dataset_size:
        raise ConfigurationError(
            f"the dataset has {len(members)} {plan.unit}s and the plan dataset_size="
            f"{plan.dataset_size}; calibrate the plan for this dataset"
        )
    return members
