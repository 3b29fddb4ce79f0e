"""Logical batches that a plain training loop sees as ordinary batches, cut to fit the memory.

The loop calls `zero_grad`, a backward and `step` for each batch that the loader yields. Only the
last batch of a logical one makes an update; which batch that is depends on the private draw, so
nothing but the update may depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from dpacc.errors import BudgetExhausted, PrivacyError
from dpacc.step.engine import PrivacyEngine
from dpacc.step.logical_step import LogicalStep


class Due(Enum):
    """What the loop must do next, and in which words it is told so."""

    BATCH = "take the next batch from the loader that make_private returned"
    BACKWARD = "call loss.backward() on model(**batch).loss, once for each batch"
    STEP = "call optimizer.step(), once after each loss.backward()"


class Turns:
    """Whose turn it is in a plain loop; every other order of calls is refused.

    Gradients of several batches are added up inside, so a loop that leaves out a call, or makes
    one twice, would count an example twice, leave one out, or update too often.

    Attributes:
        batch_number: how many batches were handed out.
    """

    def __init__(self) -> None:
        self.batch_number = 0
        self._due = Due.BATCH
        self._cleared = True
        self._step: LogicalStep | None = None
        self._batch: Mapping[Hashable, Any] = {}

    def hand_out(self, step: LogicalStep, batch: Any) -> None:
        """The loader gives `batch`, of `step`, to the loop."""
        self.require(Due.BATCH)
        self._step, self._batch, self._due = step, _by_name_or_place(batch), Due.BACKWARD
        self.batch_number += 1

    @property
    def last_place(self) -> int | None:
        """The place of the labels in a batch without names, the last; None in one with names."""
        return None if "labels" in self._batch else _last_place(self._batch)

    def require_handed_out(self, inputs: Mapping[Hashable, Any]) -> None:
        """Refuse a training forward on anything else than the batch that was handed out.

        Args:
            inputs: what the model was called with, by name or by place.
        """
        self.require(Due.BACKWARD)
        if set(self._batch) - set(inputs) in ({"labels"}, {self.last_place}):
            raise PrivacyError(
                "the model was called without the labels of the batch: call model(**batch) (or "
                "model(*batch) for tuples), whose .loss goes backward; a criterion of your own, "
                "with class weights or another form, is given to make_private as losses=, one "
                "loss per example from logits and labels"
            )
        switches = {name for name, value in inputs.items() if isinstance(value, bool)}
        for name in self._batch.keys() | (inputs.keys() - switches):
            if not _same(self._batch.get(name), inputs.get(name)):
                raise PrivacyError(
                    f"{_spoken(name)} is not that of the batch which the loader handed out; "
                    "train on model(**batch) as it is, and evaluate with model.eval() and "
                    "torch.no_grad()"
                )

    def backward(self, losses: Tensor, *, batch_number: int) -> None:
        """The loop calls the backward of `losses` [examples], of that batch."""
        self.require(Due.BACKWARD)
        if batch_number != self.batch_number:
            raise PrivacyError(
                "this loss is of an earlier batch, whose examples need not be drawn now; go "
                "backward before the loader hands out the next batch"
            )
        if not self._cleared:
            raise PrivacyError(
                "optimizer.zero_grad() was not called after the last optimizer.step(); call both "
                "for each batch. To train on larger batches, give the DataLoader a larger "
                "batch_size: the loader cuts it, and max_physical_batch_size says how finely"
            )
        assert self._step is not None
        self._step.backward(losses)
        self._batch, self._due = {}, Due.STEP

    def clear(self) -> None:
        """The loop calls zero_grad."""
        if self._due is Due.STEP:
            raise PrivacyError(
                "optimizer.zero_grad() between loss.backward() and optimizer.step() would leave "
                "out examples that were drawn; call it before the backward"
            )
        self._cleared = True

    def update(self) -> bool:
        """The loop calls step; whether that updated the model."""
        self.require(Due.STEP)
        assert self._step is not None
        self._due, self._cleared = Due.BATCH, False
        if self._step.whole:
            self._step.update()
            return True
        return False

    def require(self, due: Due) -> None:
        """Refuse to go on when it is not `due`'s turn."""
        if self._due is not due:
            raise PrivacyError(f"out of turn: {self._due.value}, before anything else")


class VirtualBatches:
    """The loader of a plain loop: one pass is one epoch of the plan's logical steps.

    How many batches a pass yields depends on the draws and is as private as they are.

    Args:
        engine: samples the logical steps and counts those that were charged. After a resume the
            first passes are shorter or empty, so that the program that was killed can be run
            again as it is.
        dataset: the private examples.
        steps: the engine's, one after the other.
        turns: what the loop must do next.
        begins: told the number of the first step, which it may refuse.
    """

    def __init__(
        self,
        *,
        engine: PrivacyEngine,
        dataset: Any,
        steps: Iterator[LogicalStep],
        turns: Turns,
        begins: Callable[[int], None] = lambda step: None,
    ) -> None:
        self._engine = engine
        self._dataset = dataset
        self._steps = steps
        self._turns = turns
        self._passes = 0
        self._begins: Callable[[int], None] | None = begins

    @property
    def dataset(self) -> Any:
        """The examples, as the DataLoader that was given has them; their number is public."""
        return self._dataset

    @property
    def batch_size(self) -> int:
        """What a logical batch holds on average; how many it really holds is private."""
        return self._engine.plan.expected_batch_size

    def __len__(self) -> int:
        """Logical steps in an epoch; a pass yields at least as many batches."""
        plan = self._engine.plan
        return -(-plan.dataset_size // plan.expected_batch_size)

    def __iter__(self) -> Iterator[Any]:
        """The batches of the next epoch, or what is left of it.

        Raises:
            BudgetExhausted: the plan has no further epoch.
            PrivacyError: a logical batch was left before its update.
        """
        self._turns.require(Due.BATCH)
        total = self._engine.plan.steps
        if self._passes * len(self) >= total:
            raise BudgetExhausted(
                f"all {total} steps of the plan are taken; give make_private more epochs, "
                "whose noise is then calibrated for them"
            )
        self._passes += 1
        end = min(self._passes * len(self), total)
        while self._engine.steps_charged < end:
            # The engine refuses to go on when the step before was left without its update.
            step = next(self._steps).never_empty()
            if self._begins is not None:
                self._begins(step.index)
                self._begins = None
            for batch in step:
                self._turns.hand_out(step, batch)
                yield batch
                self._turns.require(Due.BATCH)
        if self._engine.steps_charged >= total:
            next(self._steps, None)  # which puts back what the engine had changed meanwhile


def _by_name_or_place(batch: Any) -> Mapping[Hashable, Any]:
    if isinstance(batch, Mapping):
        return batch
    if isinstance(batch, list | tuple) and len(batch) > 1:
        return dict(enumerate(batch))
    raise PrivacyError(
        f"the loader's collate_fn returned a {type(batch).__name__}; it must return a mapping of "
        "the model's inputs and labels, for model(**batch), or a tuple whose last part are the "
        "labels, for model(*batch)"
    )


def _last_place(batch: Mapping[Hashable, Any]) -> int | None:
    places = [key for key in batch if isinstance(key, int)]
    return max(places, default=None)


def _spoken(name: Hashable) -> str:
    return f"part {name} of the arguments" if isinstance(name, int) else repr(name)


def _same(handed: Any, used: Any) -> bool:
    if handed is used:
        return True
    if not (isinstance(handed, Tensor) and isinstance(used, Tensor)):
        return False
    return handed.shape == used.shape and torch.equal(handed, used.to(handed.device))
