"""What an operation on shapes gives, worked out once for each shape.

Torch works the shapes of many operations out in Python, which takes longer than all else in a plan,
and a deep model's layers ask for the same ones over and over.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._pytree import tree_iter

_Layout = tuple[torch.Size, tuple[int, ...], torch.dtype]


class KnownOutcomes:
    """Runs operations on torch's meta device, and repeats what it has seen without running it.

    Only new tensors that fill storage of their own are made again, and arguments returned that an
    operation wrote to and left their shape. Whatever else comes out, a view above all, runs anew.

    >>> outcomes = KnownOutcomes()
    >>> x = torch.empty(2, 3, device="meta")
    >>> [outcomes.of(torch.ops.aten.add.Tensor, (x, x), {}).shape for _ in range(2)]
    [torch.Size([2, 3]), torch.Size([2, 3])]
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, int | _Layout | list[_Layout]] = {}
        self._run_anew: set[OpOverload] = set()

    def of(self, function: OpOverload, arguments: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """The function's output."""
        if function in self._run_anew:
            return function(*arguments, **named)
        asked = (function, _described(arguments), _described(tuple(named.items())))
        known = self._known.get(asked)
        if known is None:
            output = function(*arguments, **named)
            given = [*arguments, *named.values()]
            found = _outcome(output, given)
            unchanged = asked[1:] == (_described(arguments), _described(tuple(named.items())))
            if found is None or not unchanged:
                self._run_anew.add(function)
            else:
                self._known[asked] = found
            return output
        if isinstance(known, int):
            return [*arguments, *named.values()][known]
        if isinstance(known, list):
            return tuple(map(_made, known))
        return _made(known)


def _made(layout: _Layout) -> Tensor:
    shape, strides, dtype = layout
    return torch.empty_strided(shape, strides, dtype=dtype, device="meta")


def _described(value: Any) -> Hashable:
    """Everything about an argument that its function's output can depend on, without contents."""
    if isinstance(value, Tensor):
        return _layout(value), value.device
    if isinstance(value, (tuple, list)):
        return tuple(map(_described, value))
    return type(value), value


def _layout(tensor: Tensor) -> _Layout:
    return tensor.shape, tensor.stride(), tensor.dtype


def _outcome(output: Any, given: Sequence[Any]) -> int | _Layout | list[_Layout] | None:
    """How to make the output again; None if it has to be run."""
    tensors = [each for each in tree_iter(given) if isinstance(each, Tensor)]
    if not all(each.is_meta for each in tensors):
        return None
    for place, each in enumerate(given):
        if output is each:
            return place
    many = isinstance(output, tuple)
    outputs = output if many else (output,)
    storages = {each.untyped_storage()._cdata for each in tensors}
    for each in outputs:
        if not isinstance(each, Tensor) or not each.is_meta:
            return None
        storage = each.untyped_storage()
        if storage._cdata in storages or _made(_layout(each)).untyped_storage().nbytes() != (
            storage.nbytes()
        ):
            return None
        storages.add(storage._cdata)
    layouts = [_layout(each) for each in outputs]
    return layouts if many else layouts[0]
