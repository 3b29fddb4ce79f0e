"""Buffers that must not change in training: what is written there never met clipping or noise.

A buffer that follows the examples, as an observer's maximum or a running mean does, carries one
batch into the next, and is saved with the adapter as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dpacc.errors import PrivacyError
from dpacc.ranks.backends.held_parameters import named_modules

_READ_AT_ONCE = 1 << 20
_MOST_READ = 1 << 24

_Mark = tuple[object, ...]


class SteadyBuffers:
    """Remembers what a model's buffers hold, and refuses to go on when one holds something else.

    Args:
        model: whose buffers, saved or not.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._marks = _marks_of(model)

    def settle(self) -> None:
        """Take what the buffers hold now for what they must go on holding.

        Only where nothing but made-up examples went through the model since the last look.
        """
        self._marks = _marks_of(self._model)

    def require_unchanged(self) -> None:
        """Refuse to go on when a buffer changed.

        Raises:
            PrivacyError: one did; it is named.
        """
        now = _marks_of(self._model)
        for name in (*now, *self._marks):
            if now.get(name) != self._marks.get(name):
                raise PrivacyError(
                    f"the buffer {name} changed in training, by the examples that went through it "
                    "and without noise; take out the observer, running mean or cache that it is "
                    "of, or let it keep its value"
                )


def _marks_of(model: nn.Module) -> Mapping[str, _Mark]:
    return {
        f"{name}.{own}".lstrip("."): _mark(buffer)
        for name, module in named_modules(model)
        for own, buffer in module._buffers.items()
        if buffer is not None
    }


def _mark(buffer: Tensor) -> _Mark:
    """What tells a buffer's contents from others; of huge ones only whether torch wrote to them."""
    kind = (tuple(buffer.shape), buffer.dtype)
    if buffer.is_meta:
        return kind
    if buffer.numel() * buffer.element_size() > _MOST_READ:
        return (*kind, buffer.data_ptr(), buffer._version)
    return (*kind, _digest(buffer))


@torch.no_grad()
def _digest(buffer: Tensor) -> int:
    """A number that depends on every bit and its place, modulo 2⁶⁴."""
    real = torch.view_as_real(buffer) if buffer.is_complex() else buffer
    content = real.detach().contiguous().flatten().view(torch.uint8)
    total = torch.zeros((), dtype=torch.int64, device=buffer.device)
    for part in torch.split(content, _READ_AT_ONCE):
        places = torch.arange(1, 2 * len(part), 2, device=buffer.device)
        total = total * 1_000_003 + (part.long() * places * places).sum()
    return int(total)
