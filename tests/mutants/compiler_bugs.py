"""Mistakes around blocks that torch compiles."""

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

_WRITTEN = f"{DPACC}/layers/test_blocks.py::test_compiled_blocks_write_the_same_gradients"

COMPILER_BUGS = (
    Bug(
        "the probe runs uncompiled",
        "made-up examples are watched one and all, so that a compiler that mixes rows is not seen",
        (
            Patch(
                "dpacc.randomness.stray_draws",
                "            self.may_be_watched = False",
                "            self.may_be_watched = True",
            ),
        ),
        (
            f"{DPACC}/step/test_compiled_steps.py::test_a_compiler_that_changes_gradients_is_refused[mixing-blocks]",
        ),
    ),
    Bug(
        "a compiler leaves gradients out",
        "a block's input asks for no gradient, so that what its first layers learn is left out",
        (
            Patch(
                "dpacc.layers.blocks",
                "if arguments and torch.is_grad_enabled()",
                "if False and torch.is_grad_enabled()",
            ),
        ),
        (f"{_WRITTEN}[whole-blocks]",),
    ),
    Bug(
        "a compiled step leaves gradients out",
        "the states that enter the first trained block ask for no gradient, so that what its first "
        "layers learn is left out of a step that is compiled as one",
        (
            Patch(
                "dpacc.layers.blocks",
                "if not arguments or not torch.is_grad_enabled():",
                "if arguments or not torch.is_grad_enabled():",
            ),
        ),
        (f"{_WRITTEN}[upper two-step]",),
    ),
    Bug(
        "a compiler sees no loss scale",
        "the gradient of a projected loss is not scaled in the backward, so that clipped sums are "
        "of unclipped gradients",
        (
            Patch(
                "dpacc.losses.token_losses",
                "return (gradients * gradient.unsqueeze(1)).to(gradients.dtype)",
                "return gradients.clone()",
            ),
        ),
        (f"{DPACC}/losses/test_token_losses.py::test_losses_and_gradients_are_torchs",),
    ),
)
