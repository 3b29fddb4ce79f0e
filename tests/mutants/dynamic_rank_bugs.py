"""Bugs of ranks that change from step to step."""

from __future__ import annotations

from tests.mutants.bug import Bug, Patch
from tests.mutants.checks import DPACC

_TESTS = f"{DPACC}/layers/test_dynamic_rank.py"

DYNAMIC_RANK_BUGS = [
    Bug(
        "silent rows without noise",
        "what a step does not train has a gradient, and what it gets of it has no noise",
        (
            Patch("dpacc.layers.dynamic_rank", "rest.zero_()", "pass"),
            Patch("dpacc.layers.dynamic_rank", "self._buffer.learning = learning", "pass"),
            Patch(
                "dpacc.step.release",
                "if bool(clipped[: self._width][rest].any()):",
                "if False:",
            ),
            Patch(
                "dpacc.step.release",
                "return torch.where(self._dynamic_rank.learns(index).to(gradient.device), "
                "gradient, 0.0)",
                "return gradient",
            ),
        ),
        (
            f"{_TESTS}::test_a_gradient_beyond_the_rank_is_never_released",
            f"{_TESTS}::test_noise_falls_on_what_learns_alone",
        ),
    ),
    Bug(
        "clipped by the rows that learn alone",
        "rows beyond the rank are added with what they hold, and no norm counts them",
        (
            Patch(
                "dpacc.layers.gradient_buffer",
                "gradient = torch.where(self.learning[slot], gradient.view(-1, *slot.shape), 0.0)",
                "pass",
            ),
            Patch("dpacc.layers.dynamic_rank", "rest.zero_()", "pass"),
            Patch(
                "dpacc.step.release",
                "if bool(clipped[: self._width][rest].any()):",
                "if False:",
            ),
        ),
        (
            f"{_TESTS}::test_a_step_has_the_gradients_of_the_adapter_cut_to_its_rank",
            f"{_TESTS}::test_a_gradient_beyond_the_rank_is_never_released",
        ),
    ),
]
