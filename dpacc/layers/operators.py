"""A layer's arithmetic, as autograd runs it and as `torch.compile` sees it: whole, from outside.

What a layer's backward does beside its result, which is to write gradients to a buffer, no compiler
knows of. So a compiled block calls the layer as an operator of torch's library, whose backward is
an operator too; it is called because its result is wanted, which `blocks` sees to. It does
not say that it changes anything: autograd would then refuse ghost clipping's second backward.
Without a compiler the same two functions run as an `autograd.Function`, which takes fewer calls.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

_LIBRARY: Any = torch.library.Library("dpacc", "FRAGMENT")  # type: ignore[no-untyped-call]


def layer_operator(
    *,
    name: str,
    forward: Callable[..., Any],
    backward: Callable[..., Tensor],
    shapes: Callable[..., Any],
    keeps_arguments: bool = True,
) -> Callable[..., Tensor]:
    """One layer's operation on its first argument, which alone gets a gradient from autograd.

    Args:
        name: of the operator `torch.ops.dpacc.<name>`, and of that of its backward with `_backward`
            behind it.
        forward: from the arguments to the output, or to it and what the backward needs besides.
        backward: from the output's gradient, whether that of the first argument is wanted, the
            arguments, and what the backward needs besides, to the first argument's gradient; it is
            empty where it is not wanted. Writes the others' to the buffer that `places` tells.
        shapes: gives what `forward` gives, with any numbers in it.
        keeps_arguments: or the backward gets no arguments, but what it needs besides alone, of
            which the first is shaped like the first argument wherever its gradient is wanted.

    Returns:
        From the arguments to the output.
    """
    keep = partial(_keep, keeps_arguments)
    _define(name, forward, shapes)
    _define(f"{name}_backward", backward, _shape_of_the_first)
    operators = [getattr(torch.ops.dpacc, each).default for each in (name, f"{name}_backward")]
    torch.library.register_autograd(
        f"dpacc::{name}", _gradients_by(operators[1]), setup_context=keep, lib=_LIBRARY
    )

    def run(ctx: Any, *arguments: Any) -> Any:
        # In one: torch binds arguments by name for a function whose context is set up apart.
        results = forward(*arguments)
        keep(ctx, arguments, results)
        return _first(results)

    methods: dict[str, Any] = {
        "forward": staticmethod(run),
        "backward": staticmethod(_gradients_by(backward)),
    }
    uncompiled: Any = type(name, (torch.autograd.Function,), methods)

    def output(*arguments: Any) -> Tensor:
        compiling = torch.compiler.is_compiling()
        return _first(operators[0](*arguments) if compiling else uncompiled.apply(*arguments))

    return output


def _define(name: str, function: Callable[..., Any], shapes: Callable[..., Any]) -> None:
    schema = torch.library.infer_schema(function, mutates_args=())
    _LIBRARY.define(f"{name}{schema}")
    _LIBRARY.impl(name, function, "CompositeExplicitAutograd")
    torch.library.register_fake(f"dpacc::{name}", shapes, lib=_LIBRARY)


def _first(results: Any) -> Tensor:
    first: Tensor = results[0] if isinstance(results, tuple) else results
    return first


def _shape_of_the_first(_: Tensor, wanted: bool, first: Tensor, *__: Any) -> Tensor:
    return first.new_empty(first.shape if wanted else 0)


def _keep(keeps_arguments: bool, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.set_materialize_grads(False)
    kept = (
        *(inputs if keeps_arguments else ()),
        *(output[1:] if isinstance(output, tuple) else ()),
    )
    ctx.others = [None if isinstance(each, Tensor) else each for each in kept]
    ctx.number_of_inputs = len(inputs)
    ctx.save_for_backward(*(each if isinstance(each, Tensor) else None for each in kept))


def _gradients_by(backward: Callable[..., Tensor]) -> Callable[..., tuple[Tensor | None, ...]]:
    def gradients(ctx: Any, gradient: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[0]
        both = zip(ctx.saved_tensors, ctx.others, strict=True)
        kept = [other if tensor is None else tensor for tensor, other in both]
        of_first = backward(gradient, wanted, *kept)
        return of_first if wanted else None, *[None] * (ctx.number_of_inputs - 1)

    return gradients
