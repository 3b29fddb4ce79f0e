"""One logical batch, as the training loop sees it: micro-batches in, one private update out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor

from dpacc.errors import PrivacyError
from dpacc.step.admission.coupling_probe import CouplingProbe, Rehearsal

Collate = Callable[[list[Any]], Any]
Unit = list[Any]
"""The examples of one privacy unit; usually one."""


class LogicalStep:
    """Iterate over its micro-batches, `backward` each, then `update` once.

    The engine makes it; it refuses every order of calls under which an example would be counted
    twice, left out, or released without noise. A step in which a collation, a backward or the
    update failed is of no more use: whoever catches the error cannot go on without its examples.

    Attributes:
        index: the step's number, from 0.
        made_up: whether the micro-batch at hand was invented, for the probe or to fill a gap.
    """

    def __init__(
        self,
        *,
        index: int,
        micro_batches: list[list[Unit]],
        placeholder: Any,
        probe: CouplingProbe | None,
        present: Callable[[list[Any]], Any],
        accumulate: Callable[[Tensor, Tensor | None], None],
        drop: Callable[[Tensor], None],
        release: Callable[[], None],
    ) -> None:
        self.index = index
        self._waiting = deque(micro_batches)
        self._placeholder = placeholder
        self._probe = probe
        # One for all iterations, so that a loop may leave off between two micro-batches.
        self._rehearsals: Iterator[Rehearsal] = iter(()) if probe is None else probe.rehearsals()
        self._present = present
        self._accumulate = accumulate
        self._drop = drop
        self._release = release
        self._updated = False
        self._broken: str | None = None
        self._examples_due = 0
        self._take: Callable[[Tensor], None] | None = None
        self.made_up = False

    def __iter__(self) -> Iterator[Any]:
        """This rank's micro-batches, collated and on its device.

        Before the first step, the coupling probe's made-up micro-batches come by as well; a rank
        with fewer micro-batches than others gets made-up ones that count for nothing.

        Raises:
            PrivacyError: a micro-batch had no backward, or the step failed before.
        """
        if self._probe is not None:
            yield from self._rehearse()
        self._require_backward_done()
        while self._waiting:
            units = self._waiting.popleft()
            yield self._hand_out_units(units) if units else self._hand_out_placeholder()
            self._require_backward_done()

    def never_empty(self) -> Self:
        """Give an empty draw one made-up micro-batch, for loops that update after a backward."""
        if not self._waiting:
            self._waiting.append([])
        return self

    @property
    def whole(self) -> bool:
        """Whether every micro-batch of this rank had its backward, so that `update` may come."""
        done = self._probe is None and not self._waiting and self._take is None
        return done and self._broken is None

    def backward(self, losses: Tensor) -> None:
        """Per-example gradients of `losses` [examples], clipped and added to the step's sum.

        Raises:
            PrivacyError: not one loss per example, called twice for one micro-batch, a gradient
                that escaped clipping, or the step failed before.
        """
        self._require_sound()
        if self._take is None:
            raise PrivacyError(
                "step.backward must be called once for each micro-batch that the step yields; "
                "a second call would count its examples twice"
            )
        _require_one_loss_per_example(losses, self._examples_due)
        # What a backward that fails has added by then is not known, so it cannot be tried again.
        with self._broken_by_errors("a backward"):
            self._take(losses)
        self._take = None

    def update(self) -> None:
        """Reduce over ranks, charge the ledger, add noise once, and step the optimizer.

        Raises:
            PrivacyError: micro-batches are left over, the step was updated before, or it failed.
            LedgerError: the charge could not be written, so nothing is released.
        """
        self._require_sound()
        if self._updated:
            raise PrivacyError(f"step {self.index} was updated already; one update a step")
        if not self.whole:
            raise PrivacyError(
                f"step {self.index} has micro-batches without a backward; call "
                "step.backward(losses) for each before step.update()"
            )
        with self._broken_by_errors("the update"):
            self._release()
        self._updated = True

    def require_updated(self) -> None:
        """Refuse to go on to the next step when this one was skipped, or failed."""
        self._require_sound()
        if not self._updated:
            raise PrivacyError(
                f"step {self.index} was left without step.update(); whether a step is skipped "
                "must not depend on its data"
            )

    def _rehearse(self) -> Iterator[Any]:
        self._require_backward_done()
        while (rehearsal := self._next_rehearsal()) is not None:
            self._take, self._examples_due = rehearsal.take, rehearsal.examples
            self.made_up = True
            yield rehearsal.batch
            self._require_backward_done()
        self._probe = None

    def _next_rehearsal(self) -> Rehearsal | None:
        """The probe's next micro-batch; after the last one its verdict, and nothing."""
        with self._broken_by_errors("the coupling probe"):
            return next(self._rehearsals, None)

    def _hand_out_units(self, units: list[Unit]) -> Any:
        examples = [example for unit in units for example in unit]
        sizes = torch.tensor([len(unit) for unit in units])
        each_its_own = len(examples) == len(units)

        def accumulate(losses: Tensor) -> None:
            owners = torch.repeat_interleave(sizes).to(losses.device)
            self._accumulate(losses, None if each_its_own else owners)

        return self._hand_out(examples, accumulate, made_up=False)

    def _hand_out_placeholder(self) -> Any:
        """A made-up micro-batch whose gradients are computed, as collectives need, and dropped."""
        return self._hand_out([self._placeholder], self._drop)

    def _hand_out(
        self, examples: list[Any], take: Callable[[Tensor], None], *, made_up: bool = True
    ) -> Any:
        self._take, self._examples_due, self.made_up = take, len(examples), made_up
        with self._broken_by_errors("making a batch"):
            return self._present(examples)

    def _require_backward_done(self) -> None:
        self._require_sound()
        if self._take is not None:
            raise PrivacyError(
                "a micro-batch was passed over without step.backward(losses); every drawn "
                "example must take part"
            )

    @contextmanager
    def _broken_by_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._broken = f"{what} failed ({type(error).__name__})"
            raise

    def _require_sound(self) -> None:
        if self._broken is not None:
            raise PrivacyError(
                f"step {self.index} cannot go on: {self._broken}, and whoever caught the error "
                "cannot know whose examples would be left out or counted twice; let the error end "
                "the run, then resume it (memory: with smaller micro-batches, such as a smaller "
                "micro_batch_tokens or max_physical_batch_size)"
            )


def _require_one_loss_per_example(losses: Tensor, examples: int) -> None:
    if losses.ndim != 1 or len(losses) != examples:
        raise PrivacyError(
            f"losses have shape {tuple(losses.shape)} for a micro-batch of {examples} examples; "
            "give one loss per example, as dpacc.causal_lm_losses does (model(...).loss is a mean "
            "over the batch)"
        )
    if not losses.requires_grad:
        raise PrivacyError(
            "the losses have no gradient; compute them outside torch.no_grad, with the model "
            "that prepare() returned"
        )
