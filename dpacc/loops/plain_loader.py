"""What an ordinary DataLoader says of a private run: how many examples, how large a batch."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, TypedDict

from accelerate.data_loader import DataLoaderAdapter, DataLoaderStateMixin
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from dpacc.data.privacy_units import count_units
from dpacc.errors import ConfigurationError
from dpacc.plan import Drawing, PrivacyPlan, Sampling

_POISSON = "every example joins every step by its own coin, whatever its length, class or weight"


class LoaderSizes(TypedDict):
    """What a plan takes from a loader.

    Keys:
        dataset_size: its examples, or the units they belong to.
        expected_batch_size: its batch size.
    """

    dataset_size: int
    expected_batch_size: int


def sizes_of(
    data_loader: DataLoader[Any],
    units: Sequence[Hashable] | None,
    *,
    sampling: Sampling,
    unit_cap: int | None,
) -> LoaderSizes:
    """How many examples, or units, the loader has, and in batches of how many.

    Args:
        data_loader: whose.
        units: whose each example is.
        sampling: of the plan; where it is "examples", those that are kept are counted.
        unit_cap: the most of one unit.

    Raises:
        ConfigurationError: it cannot be sampled by coins, or has no batch size.
    """
    _refuse_prepared(data_loader)
    _refuse_streams(data_loader)
    _refuse_foreign_samplers(data_loader)
    size = count_units(
        examples=len(data_loader.dataset),  # type: ignore[arg-type]
        units=units,
        kept_of_each=unit_cap if sampling == "examples" else None,
    )
    return {"dataset_size": size, "expected_batch_size": _batch_size_of(data_loader)}


def steps_of(sizes: LoaderSizes, *, epochs: int, sampling: Drawing) -> int:
    """How many steps are as many epochs: whole ones of their own, where units are allocated.

    >>> sizes: LoaderSizes = {"dataset_size": 10, "expected_batch_size": 4}
    >>> [steps_of(sizes, epochs=2, sampling=drawing) for drawing in ("poisson", "allocated")]
    [5, 6]
    """
    size, batch = sizes["dataset_size"], sizes["expected_batch_size"]
    return epochs * -(-size // batch) if sampling == "allocated" else -(-epochs * size // batch)


def _batch_size_of(data_loader: DataLoader[Any]) -> int:
    if data_loader.batch_size is None:
        raise ConfigurationError(
            "the DataLoader has no batch_size, which is what a logical batch should hold on "
            "average; give it one, and no batch_sampler"
        )
    return data_loader.batch_size


def _refuse_prepared(data_loader: DataLoader[Any]) -> None:
    if isinstance(data_loader, DataLoaderStateMixin | DataLoaderAdapter):
        raise ConfigurationError(
            f"data_loader is a {type(data_loader).__name__}, which accelerator.prepare made and "
            "which cuts the data over ranks; give make_private the plain DataLoader, model and "
            "optimizer instead of accelerator.prepare, which it stands for"
        )


def _refuse_streams(data_loader: DataLoader[Any]) -> None:
    if isinstance(data_loader.dataset, IterableDataset):
        raise ConfigurationError(
            "a stream of examples cannot be sampled: every example must have the same chance in "
            "every step; load it into a dataset with a length"
        )


def _refuse_foreign_samplers(data_loader: DataLoader[Any]) -> None:
    sampler, batch_sampler = data_loader.sampler, data_loader.batch_sampler
    if not isinstance(sampler, RandomSampler | SequentialSampler):
        raise ConfigurationError(
            f"the DataLoader's {type(sampler).__name__} would be ignored: {_POISSON}; leave it "
            "out, and give shuffle=True or nothing"
        )
    if batch_sampler is not None and type(batch_sampler) is not BatchSampler:
        raise ConfigurationError(
            f"the DataLoader's {type(batch_sampler).__name__} would be ignored: {_POISSON}; give "
            "make_private the plain DataLoader, with a batch_size, before any accelerator.prepare"
        )


def require_the_loaders(
    plan: PrivacyPlan, data_loader: DataLoader[Any], units: Sequence[Hashable] | None
) -> None:
    """Refuse a plan for another number of examples, or other batches, than the loader has.

    Raises:
        ConfigurationError: with both.
    """
    if len({each.expected_batch_size for each in plan.each_phase}) > 1:
        raise ConfigurationError(
            "a loader has one batch size, and the plan's phases have several; write the open loop, "
            "for step in engine.steps(dataset, collate), or give all phases one expected_batch_size"
        )
    size, batch = sizes_of(
        data_loader, units, sampling=plan.sampling, unit_cap=plan.unit_cap
    ).values()
    if (size, batch) != (plan.dataset_size, plan.expected_batch_size):
        raise ConfigurationError(
            f"the loader has {size} {plan.unit}s in batches of {batch} and the plan "
            f"dataset_size={plan.dataset_size}, expected_batch_size={plan.expected_batch_size}; "
            "calibrate the plan for this loader"
        )


def require_a_name(plan: PrivacyPlan, units: Sequence[Hashable] | None) -> None:
    """Refuse units without a name for them, and a name without units.

    Raises:
        ConfigurationError: with the remedy.
    """
    if (units is None) != (plan.unit == "example"):
        raise ConfigurationError(
            f"unit={plan.unit!r} names what the guarantee is for: give units= (whose each example "
            "is) and unit= (such as 'patient') together, or neither"
        )
