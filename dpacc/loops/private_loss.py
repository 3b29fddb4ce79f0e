"""A model whose `outputs.loss` is decoupled: its backward clips each example's own gradient."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dpacc.errors import PrivacyError
from dpacc.loops.virtual_batches import Turns
from dpacc.losses.decoupled_losses import LogitLosses


class LossAndLogits(NamedTuple):
    """What a module that returns a bare tensor returns while it trains privately."""

    loss: Tensor
    logits: Tensor


class PrivateLoss:
    """Replaces the loss of every training forward by one that owes nothing to the batch.

    The model never sees the labels, so no loss of its own is computed. `outputs.loss` is the mean
    of the examples' losses, for people to look at: it is computed from private data, without
    noise. What its backward does is the engine's: one loss an example, clipped one by one.
    Forwards without gradients, or in evaluation mode, are left as they are.

    Args:
        model: what the loop calls.
        losses: the losses [examples] of its logits and labels.
        turns: checks that the batch is the loader's, and takes the losses.
    """

    def __init__(self, model: nn.Module, losses: LogitLosses, turns: Turns) -> None:
        self._losses = losses
        self._turns = turns
        self._labels: Tensor | None = None
        model.register_forward_pre_hook(self._take_labels, with_kwargs=True)
        model.register_forward_hook(self._put_loss, with_kwargs=True)

    def _take_labels(
        self, model: nn.Module, arguments: tuple[Any, ...], inputs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        self._labels = None
        if not (torch.is_grad_enabled() and model.training):
            return None
        place = self._turns.last_place
        if arguments and place is None:
            raise PrivacyError("give the batch to the model by name: model(**batch)")
        given = {name: value for name, value in inputs.items() if name != "num_items_in_batch"}
        by_name_or_place: dict[Hashable, Any] = {**dict(enumerate(arguments))}
        by_name_or_place.update(given)
        self._turns.require_handed_out(by_name_or_place)
        if place is not None:
            self._labels = arguments[place]
            return arguments[:place], given
        if "labels" not in given:
            raise PrivacyError(
                "the batch has no labels to learn from; let the loader's collate_fn add them"
            )
        self._labels = given["labels"]
        return (), {name: value for name, value in given.items() if name != "labels"}

    def _put_loss(
        self, model: nn.Module, arguments: tuple[Any, ...], inputs: Mapping[str, Any], outputs: Any
    ) -> Any:
        if self._labels is None:
            return None
        bare = isinstance(outputs, Tensor)
        if not bare and not hasattr(outputs, "logits"):
            raise PrivacyError(
                f"the model returned a {type(outputs).__name__} without logits; leave return_dict "
                "at True"
            )
        labels, self._labels = self._labels, None
        take = partial(self._turns.backward, batch_number=self._turns.batch_number)
        logits = outputs if bare else outputs.logits
        loss = _gate(self._losses(logits, labels), take)
        if bare:
            return LossAndLogits(loss, logits)
        # Made anew, so that outputs[0] is the loss as it is of the model's own.
        return type(outputs)(**{**outputs, "loss": loss})


def _gate(losses: Tensor, take: Callable[[Tensor], None]) -> Tensor:
    """The mean of `losses`, whose backward hands them, still apart, to `take`."""
    anchor = torch.zeros((), device=losses.device, requires_grad=True)
    value: Tensor = _Gate.apply(anchor, [losses], take)  # type: ignore[no-untyped-call]
    return value


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, losses: list[Tensor], take: Callable[[Tensor], None]
    ) -> Tensor:
        # In a list, so that autograd does not look for a path through the mean.
        ctx.losses, ctx.take = losses, take
        return losses[0].detach().mean()

    @staticmethod
    def backward(ctx: Any, *output_gradients: Tensor) -> tuple[None, None, None]:
        (gradient,) = output_gradients
        if float(gradient) != 1.0:
            raise PrivacyError(
                f"the loss was scaled by {float(gradient):g} before its backward, which clipping "
                "would undo; call outputs.loss.backward() as it is, without a GradScaler, and "
                "give the DataLoader a larger batch_size instead of accumulating"
            )
        if not ctx.losses:
            raise PrivacyError("a second backward of one loss would count its examples twice")
        with torch.enable_grad():
            ctx.take(ctx.losses.pop())
        return None, None, None
