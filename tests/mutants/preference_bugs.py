"""Bugs of preference pairs: their two rows, their reference, and losses that read other pairs."""

# ruff: noqa: E501 - excerpts of source stay on their lines

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

PAIRS = f"{DPACC}/step/test_pairs.py"
PREFERENCES = f"{DPACC}/losses/test_preferences.py"
REFERENCES = f"{DPACC}/recipe/test_preferences.py"
TRAINER = f"{DPACC}/trainer/test_preference_trainer.py"

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
        "a pair's rows of two pairs",
        "a model reads all chosen answers before all rejected ones, and rows 2i and 2i + 1 are taken for pair i",
        (
            Patch(
                "dpacc.data.sequences",
                "        name: value.flatten(0, 1) if value.shape[:3] == shape else value\n",
                "        name: value.transpose(0, 1).flatten(0, 1) if value.shape[:3] == shape else value\n",
            ),
        ),
        (f"{PAIRS}::test_the_probe_passes_and_the_sum_is_the_loops_whatever_the_cut",),
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
    ),
    Bug(
        "invented references alike",
        "invented pairs have the model itself for their reference, so that a batch's mean log-ratio is 0 and passes",
        (
            Patch(
                "dpacc.step.admission.invented_references",
                "_FARTHEST = 10.0\n",
                "_FARTHEST = 0.0\n",
            ),
        ),
        (f"{PAIRS}::test_losses_that_read_another_pair_are_refused_by_the_probe",),
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
    Bug(
        "a pair drops by its row",
        "dropout is keyed by the row of a micro-batch instead of the pair, so that neighbours change a pair's masks",
        (
            Patch(
                "dpacc.step.micro_batches",
                "        rows = [number for number in numbers for _ in range(sequences)]\n",
                "        rows = list(range(len(numbers) * sequences))\n",
            ),
        ),
        (f"{PAIRS}::test_what_drops_out_of_a_pair_is_the_pairs_own",),
    ),
    Bug(
        "a private answer is evaluated",
        "pairs are compared whole, so that a private answer passes as held out beside another one",
        (
            Patch(
                "dpacc.trainer.preference_trainer",
                "        return [part for pair in self._pairs(dataset) for part in parted(pair)]\n",
                "        return self._pairs(dataset)\n",
            ),
        ),
        (f"{TRAINER}::test_a_private_answer_may_not_be_evaluated_in_another_pair",),
    ),
)
