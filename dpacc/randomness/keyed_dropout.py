"""Dropout whose masks are secret and each example's own, in whatever way a model asks for it.

While a micro-batch is out, `torch.nn.functional`'s dropout and attention, which every layer calls,
and `torch.rand` of a single number draw from the run's secret instead of torch's generator: by
(step, example, number of the call). So one example's presence changes nobody else's masks, and the
result does not depend on the cut, the ranks or the strategy.

The number of the call lives in torch's own generator, as its seed: activation checkpointing puts
that generator back to where it was before it computes a layer again, so the layer drops the same.
Whatever else draws from a generator meanwhile is refused ([`dpacc.randomness.stray_draws`][]).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dpacc.errors import PrivacyError
from dpacc.randomness.dropout_masks import MADE_UP, RATE_STEPS, ExampleMasks, Mask
from dpacc.randomness.run_secret import RunSecret
from dpacc.randomness.stray_draws import (
    CallCounter,
    Compilation,
    DrawsByName,
    Generators,
    calling_module,
)

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Padding:
    """Where the tokens of a forward's rows stand.

    Attributes:
        width: of the rows, if they are of tokens.
        firsts: how many places of padding stand before each row's first token.
    """

    width: int | None = None
    firsts: Sequence[int] = ()

    def before(self, row: int, shape: Sequence[int]) -> int:
        """How many stand before the first token of a row in [rows, tokens, features], or in
        attention's [rows, heads, tokens, tokens]."""
        of_tokens = (len(shape) == 3 and shape[1] == self.width) or (
            len(shape) == 4 and shape[2] == shape[3] == self.width
        )
        return self.firsts[row] if of_tokens and self.firsts else 0


def padding_of(arguments: Sequence[Any], inputs: Mapping[str, Any]) -> Padding:
    """What a forward's inputs say of it.

    >>> padding_of((), {"attention_mask": torch.tensor([[0, 1, 1], [1, 1, 0]])})
    Padding(width=3, firsts=[1, 0])
    """
    mask = inputs.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 2 and mask.shape[1]:
        return Padding(width=mask.shape[1], firsts=(mask != 0).int().argmax(dim=1).tolist())
    ids = arguments[0] if arguments else inputs.get("input_ids")
    return Padding(width=ids.shape[1] if isinstance(ids, Tensor) and ids.ndim == 2 else None)


_TORCH_DROPOUT = functional.dropout
_TORCH_ATTENTION = functional.scaled_dot_product_attention
_TORCH_RAND = torch.rand


class KeyedDropout:
    """The randomness of one model's forwards and of their repetitions.

    Args:
        model: whose forwards are watched while examples are made up.
        secret: keys the masks.
        device: of the model; its generator must not be drawn from.
        tokens_may_be_flattened: whether the model hands some layers [examples · tokens, features].
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        secret: RunSecret,
        device: torch.device,
        tokens_may_be_flattened: bool,
    ) -> None:
        self._secret = secret
        self._device = device
        self._flattened = tokens_may_be_flattened
        self._names = {id(module): name for name, module in model.named_modules()}
        self._watch = DrawsByName(self._names)
        self._compilation = Compilation(model)
        self._calls = CallCounter()
        self._generators: Generators | None = None
        self._examples: Sequence[int] = ()
        self._padding = Padding()
        self._padding_at: dict[int, Padding] = {}
        model.register_forward_pre_hook(self._begin_watching, with_kwargs=True)
        model.register_forward_hook(self._end_watching, always_call=True)

    def begin(self, *, step: int, examples: Sequence[int]) -> None:
        """A micro-batch goes out: `examples` are its rows' numbers in the dataset."""
        if _current is not None:  # this one's or another engine's, which was left in the middle
            _current.rest()
        self._masks = ExampleMasks(self._secret.stream(purpose="dropout", step=step))
        self._examples = examples
        self._padding, self._padding_at = Padding(), {}
        invented = all(example == MADE_UP for example in examples)
        self._watch.wanted = invented and self._compilation.may_be_watched
        if self._watch.wanted:
            self._compilation.rest()
        self._generators = Generators(device=self._device, all_of_them=invented)
        self._calls.start()
        _install(self)

    @contextmanager
    def backward(self) -> Iterator[None]:
        """While a backward runs, whatever is drawn was drawn by the forward before."""
        self._calls.repeating = True
        try:
            yield
        finally:
            self._calls.repeating = False

    def until_after(self, take: Callable[..., Result]) -> Callable[..., Result]:
        """`take`, which runs a micro-batch's last backward, and then `finish`."""

        def taken(*arguments: Any) -> Result:
            try:
                result = take(*arguments)
                self.finish()
            finally:
                self.rest()
            return result

        return taken

    def finish(self) -> None:
        """The micro-batch had its backward.

        Raises:
            PrivacyError: something drew random numbers that are no example's own.
        """
        assert self._generators is not None
        self._calls.require_untouched()
        self._generators.require_untouched()

    def rest(self) -> None:
        """Whatever became of the last micro-batch, leave torch as it was."""
        if self._generators is not None:
            self._generators = None
            self._watch.wanted = False
            self._compilation.go_on()
            self._calls.stop()
            _remove()

    def drop(self, values: Tensor, rate: float, inplace: bool = False) -> Tensor:
        """`values` [examples, ...] with each number zero at that rate, and the others scaled up."""
        if torch.compiler.is_compiling():
            raise PrivacyError(
                "a compiled forward would drop the same numbers in every step; train without "
                "torch.compile, or set the model's dropout rates to 0"
            )
        threshold = round(rate * RATE_STEPS)
        if threshold == 0:
            return values
        call = self._calls.next(self._names)
        padding = self._padding_at.setdefault(call, self._padding)
        kept = torch.from_numpy(self._kept(values, call, threshold, padding))
        kept = kept.reshape(values.shape).to(values.device, non_blocking=True)
        scale = RATE_STEPS / (RATE_STEPS - threshold) if threshold < RATE_STEPS else 0.0
        if inplace:
            return values.mul_(kept).mul_(scale)
        return torch.where(kept, values * scale, 0)

    def uniform(self, **options: Any) -> Tensor:
        """One number in [0, 1), the same for all examples of the step, as layers that skip ask."""
        number = self._masks.uniform(call=self._calls.next(self._names))
        return torch.tensor(number, **{"dtype": torch.float32, **options})

    def _kept(self, values: Tensor, call: int, threshold: int, padding: Padding) -> Mask:
        shape = self._by_example(tuple(values.shape), padding.width)
        kept = np.empty(shape, dtype=bool)
        for row, example in enumerate(self._examples):
            kept[row] = self._masks.kept(
                example=example,
                call=call,
                shape=shape[1:],
                threshold=threshold,
                first=padding.before(row, shape),
            )
        return kept

    def _by_example(self, shape: tuple[int, ...], width: int | None) -> tuple[int, ...]:
        rows = len(self._examples)
        if self._flattened and width and len(shape) == 2 and shape[0] == rows * width:
            return (rows, width, shape[1])
        if not shape or shape[0] != rows:
            raise PrivacyError(
                f"dropout in {calling_module(self._names)} meets a tensor of shape {shape} in a "
                f"micro-batch of {rows} examples, so none has a mask of its own; set that rate to "
                "0 in the model's configuration"
            )
        return shape

    def _begin_watching(
        self, _: nn.Module, arguments: tuple[Any, ...], inputs: Mapping[str, Any]
    ) -> None:
        self._padding = padding_of(arguments, inputs)
        self._watch.begin()

    def _end_watching(self, *_: Any) -> None:
        self._watch.end()


_resting = False
_current: KeyedDropout | None = None


@contextmanager
def resting() -> Iterator[None]:
    """While it lasts, every rate of dropout is zero, and modules stay in training mode."""
    global _resting
    before, _resting = _resting, True
    try:
        yield
    finally:
        _resting = before


def _install(keyed: KeyedDropout) -> None:
    global _current
    _current = keyed
    _put(functional, "dropout", _dropout)
    _put(functional, "scaled_dot_product_attention", _attention)
    _put(torch, "rand", _rand)


def _remove() -> None:
    global _current
    _current = None
    _put(functional, "dropout", _TORCH_DROPOUT)
    _put(functional, "scaled_dot_product_attention", _TORCH_ATTENTION)
    _put(torch, "rand", _TORCH_RAND)


def _put(module: Any, name: str, function: Any) -> None:
    setattr(module, name, function)


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if _current is None or not training or p == 0:
        return _TORCH_DROPOUT(input, p, training, inplace)
    return input if _resting else _current.drop(input, p, inplace)


def _rand(*size: Any, **options: Any) -> Tensor:
    of_one_number = size in ((), ((),), ([],)) and not options.keys() & {"generator", "size", "out"}
    if _current is None or not of_one_number:
        return _TORCH_RAND(*size, **options)
    return _current.uniform(**options)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> Tensor:
    if _current is None or dropout_p == 0 or _resting:
        return _TORCH_ATTENTION(query, key, value, attn_mask, 0.0, is_causal, **options)
    weights = _attention_weights(query, key, attn_mask, is_causal, **options)
    repeats = query.shape[-3] // value.shape[-3] if options.get("enable_gqa") else 1
    return _current.drop(weights, dropout_p) @ value.repeat_interleave(repeats, dim=-3)


def _attention_weights(
    query: Tensor,
    key: Tensor,
    attn_mask: Tensor | None,
    is_causal: bool,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(q·kᵀ·scale + mask), as fused attention computes it without showing it."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
    scores = query @ key.transpose(-2, -1)
    scores = scores * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    least = torch.finfo(scores.dtype).min
    if is_causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~seen, least)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, least)
    elif attn_mask is not None:
        # Where a whole row is masked, infinities would make it no number at all.
        scores = (scores + attn_mask).clamp(min=least)
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
