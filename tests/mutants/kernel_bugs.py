"""Mistakes in what a GPU does in one pass."""

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

_KERNELS = f"{DPACC}/layers/kernels"

KERNEL_BUGS = (
    Bug(
        "a kernel adds what was left out",
        "a unit whose gradient is no number is multiplied by zero, and makes the whole sum none",
        (
            Patch(
                "dpacc.layers.kernels.clipped_sums",
                "tl.where(scale > 0, numbers, 0.0) * scale",
                "numbers * scale",
            ),
        ),
        (f"{_KERNELS}/test_clipped_sums.py::test_the_sum_is_torchs[flat]",),
    ),
    Bug(
        "kernels that nobody compared",
        "a run on a GPU relies on kernels that give other numbers there than torch does",
        (Patch("dpacc.layers.kernels.choice", "    require_agreement(on)\n", ""),),
        (f"{_KERNELS}/test_choice.py::test_a_kernel_that_differs_is_refused",),
    ),
)
