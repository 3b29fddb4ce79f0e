"""Bugs of preference pairs: their two rows, their reference, and losses that read other pairs."""

# ruff: noqa: E501 - excerpts of source stay on their lines

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

PAIRS = f"{DPACC}/step/test_pairs.py"
PREFERENCES = f"{DPACC}/losses/test_preferences.py"
REFERENCES = f"{DPACC}/recipe/test_preferences.py"

PREFERENCE_BUGS = (
    Bug(
        "half of a pair is measured",
        "of a pair's two rows the chosen one alone is measured and clipped, as if the other weighed nothing",
        (
            Patch(
                "dpacc.layers.gradient_buffer",
                "        if rows == self._examples * self._sequences:\n            rows = self._examples\n",
                "        if rows == self._examples * self._sequences:\n            rows, values = self._examples, values[:: self._sequences]\n",
            ),
        ),
        (f"{PAIRS}::test_a_pair_is_clipped_whole",),
    ),
    Bug(
        "KTO's reference point of the batch",
        "KTO's z₀ is the mean log-ratio of the micro-batch, as in its paper, so that a pair moves its neighbours",
        (
            Patch(
                "dpacc.losses.preferences",
                "    chosen, rejected = scores.log_ratios\n    return 0.5 * (\n",
                "    chosen, rejected = scores.log_ratios\n    reference_point = torch.cat([chosen, rejected]).detach().mean().clamp(min=0)\n    return 0.5 * (\n",
            ),
        ),
        (f"{PREFERENCES}::test_each_loss_is_its_papers_formula",),
        quick=True,
    ),
    Bug(
        "a reference that learned",
        "reference log-probabilities are the trained adapter's, so that they tell of all pairs it saw",
        (
            Patch(
                "dpacc.recipe.preferences",
                "    with evaluating(model), adapters_off(model):\n",
                "    with evaluating(model):\n",
            ),
        ),
        (f"{REFERENCES}::test_the_reference_is_the_base_whatever_the_adapters_have_become",),
    ),
    Bug(
        "another pair's rejected answer",
        "a chosen answer is compared with the answer that the next pair of the micro-batch rejected",
        (
            Patch(
                "dpacc.losses.preferences",
                "        rejected=sums[:, 1],\n",
                "        rejected=sums[:, 1].roll(1),\n",
            ),
        ),
        (
            f"{PAIRS}::test_the_probe_passes_and_the_sum_is_the_loops_whatever_the_cut",
            f"{PREFERENCES}::test_scores_are_the_log_probabilities_of_each_answer_alone",
        ),
    ),
)
