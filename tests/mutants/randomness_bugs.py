"""Mistakes about what is random in a forward, and about what a run writes beside its model."""

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

_DROPOUT = f"{DPACC}/randomness/test_keyed_dropout.py"
_STRAY = f"{DPACC}/randomness/test_stray_draws.py"
_MASKS = f"{DPACC}/randomness/test_dropout_masks.py"
_WRITTEN = f"{DPACC}/artifacts/test_written_files.py"

RANDOMNESS_BUGS = (
    Bug(
        "dropout from torch's generator",
        "masks come from one stream that a public seed starts, so one example changes all of them",
        (
            Patch(
                "dpacc.randomness.keyed_dropout",
                "    if _current is None or not training or p == 0:",
                "    if True:",
            ),
            Patch("dpacc.randomness.keyed_dropout", "                self.finish()\n", ""),
        ),
        (
            f"{_DROPOUT}::test_a_trainer_with_adapter_dropout_keeps_to_c",
            f"{_DROPOUT}::test_a_plain_loop_with_a_models_own_dropout_keeps_to_c[bert]",
        ),
    ),
    Bug(
        "masks by row",
        "an example's masks follow its place in the micro-batch, and so who else was drawn",
        (
            Patch(
                "dpacc.randomness.keyed_dropout",
                "                example=example,\n",
                "                example=row,\n",
            ),
        ),
        (f"{_DROPOUT}::test_one_example_more_moves_the_sum_by_c_at_most[bert-options7]",),
    ),
    Bug(
        "one mask for every step",
        "an example drops the same numbers whenever it is drawn",
        (
            Patch(
                "dpacc.randomness.keyed_dropout",
                'purpose="dropout", step=step',
                'purpose="dropout", step=0',
            ),
        ),
        (f"{_DROPOUT}::test_masks_differ_from_step_to_step",),
    ),
    Bug(
        "masks follow the padding",
        "attention's masks are numbered by the width of the micro-batch, which neighbours choose",
        (
            Patch(
                "dpacc.randomness.dropout_masks",
                "    return np.where(key <= query, below, above)",
                "    return query * size + key",
            ),
        ),
        (f"{_MASKS}::test_padding_on_either_side_moves_no_mask[narrow1-wide1]",),
    ),
    Bug(
        "repeated layers drop anew",
        "activation checkpointing without its state goes backward through other masks",
        (
            Patch(
                "dpacc.randomness.stray_draws",
                "        if self.repeating and call >= self._made:",
                "        if False:",
            ),
        ),
        (f"{_STRAY}::test_a_repetition_without_its_state_is_refused",),
    ),
    Bug(
        "other draws pass",
        "a layer draws for the whole micro-batch where invented examples did not show it",
        (Patch("dpacc.randomness.keyed_dropout", "        self._calls.require_untouched()\n", ""),),
        (f"{_STRAY}::test_a_draw_that_made_up_examples_do_not_cause_is_refused_too",),
    ),
    Bug(
        "own generators pass",
        "a layer draws from a generator of its own, for the whole micro-batch",
        (
            Patch(
                "dpacc.randomness.keyed_dropout",
                "_watch.wanted = invented",
                "_watch.wanted = False",
            ),
        ),
        (f"{_STRAY}::test_what_cannot_be_keyed_is_refused_by_name",),
    ),
    Bug(
        "random reading passes",
        "a dataset crops its examples by a generator that all share",
        (
            Patch(
                "dpacc.step.micro_batches",
                '        with refusing_draws("reading the dataset", _DRAWN_BY_ITSELF):\n'
                "            units:",
                "        if True:\n            units:",
            ),
        ),
        (f"{_STRAY}::test_a_dataset_that_is_random_when_read_is_refused",),
    ),
    Bug(
        "generator states saved",
        "a Trainer's checkpoint holds the states of generators",
        (
            Patch(
                "dpacc.trainer.private_trainer",
                "    def _save_rng_state(self, output_dir: str) -> None:",
                "    def _save_no_rng_state(self, output_dir: str) -> None:",
            ),
        ),
        (f"{_WRITTEN}::test_no_generators_state_is_written[trainer]",),
    ),
    Bug(
        "steps timed in event files",
        "events say when each step ended, which follows how many examples it drew",
        (
            Patch(
                "dpacc.recipe.public_times",
                "        add_event(event, step, begun + (step or 0))",
                "        add_event(event, step, walltime)",
            ),
        ),
        (f"{_WRITTEN}::test_nothing_is_dated_by_how_long_a_step_took[trainer]",),
    ),
    Bug(
        "training timed",
        "a Trainer's log says how long all its steps took",
        (Patch("dpacc.recipe.public_times", "= TRAINING_TIMES | {", "= {"),),
        (f"{_WRITTEN}::test_every_field_is_known[trainer]",),
    ),
)
