"""What a backward's sinks keep of the gradients that come by."""

from __future__ import annotations

import torch
from torch import nn

from dpacc.layers.gradient_buffer import FirstGradient, KeptGradients, Layout

CPU = torch.device("cpu")
LAYOUT = Layout({name: nn.Parameter(torch.zeros(size)) for name, size in (("a", 3), ("b", 2))})


def test_the_first_gradient_is_the_first_of_those_that_are_kept() -> None:
    """Bit for bit, in 16 bits and where a layer writes twice; the others' length is theirs."""
    first, all_of_them = (
        FirstGradient(LAYOUT, device=CPU),
        KeptGradients(LAYOUT, units=4, device=CPU),
    )
    a, b = LAYOUT.slots.values()
    written = [(b, torch.randn(4, 2)), (a, torch.randn(4, 3).bfloat16())]
    for slot, block in written:
        first.take(slot, block)
        all_of_them.take(slot, block.clone())
    once = all_of_them.rows()
    assert torch.equal(first.row, once[0])
    torch.testing.assert_close(first.others, once[1:].norm())
    first.take(b, again := torch.randn(4, 2))
    twice = torch.cat([once[:, :3], once[:, 3:] + again], dim=1)
    assert torch.equal(first.row, twice[0])
    assert first.others > twice[1:].norm()


def test_a_layer_that_took_no_part_has_a_zero_gradient() -> None:
    """And nothing of it reaches the others; an example alone has none."""
    first = FirstGradient(LAYOUT, device=CPU)
    first.take(next(iter(LAYOUT.slots.values())), torch.ones(1, 3))
    assert first.row.tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert first.others == 0
