"""Mistakes that a loop, a Trainer or a search could make around a sound engine."""

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

_LOOP = f"{DPACC}/loops/test_drop_in.py"
_LOOP_REFUSALS = f"{DPACC}/loops/test_drop_in_refusals.py"
_TRAINER = f"{DPACC}/trainer/test_private_trainer.py"
_TRAINER_REFUSALS = f"{DPACC}/trainer/test_refused_arguments.py"

LOOP_BUGS = (
    Bug(
        "head's loss coupled",
        "a plain loop's loss divides by the tokens of the whole batch",
        (
            Patch(
                "dpacc.losses.decoupled_losses",
                "return dense.sum(dim=1) / learned.sum(dim=1).clamp(min=1)",
                "return dense.sum(dim=1) / learned.sum().clamp(min=1)",
            ),
        ),
        (
            f"{_LOOP}::test_a_plain_loop_gets_the_engines_noised_gradients[3]",
            f"{DPACC}/losses/test_decoupled_losses.py::test_every_loss_is_the_models_own_on_one_example[causal]",
        ),
    ),
    Bug(
        "scaled loss let through",
        "a loss divided by a number of batches goes backward as if it were whole",
        (Patch("dpacc.loops.private_loss", "if float(gradient) != 1.0:", "if False:"),),
        (f"{_LOOP_REFUSALS}::test_misuse_of_the_loop_is_refused_with_the_remedy",),
    ),
    Bug(
        "any batch let through",
        "a plain loop trains on examples that were not drawn",
        (
            Patch(
                "dpacc.loops.virtual_batches",
                "            if not _same(self._batch.get(name), inputs.get(name)):",
                "            if name not in inputs:",
            ),
        ),
        (f"{_LOOP_REFUSALS}::test_misuse_of_the_loop_is_refused_with_the_remedy",),
    ),
    Bug(
        "rate counts batches",
        "the learning rate at an update tells into how many batches the draw was cut",
        (Patch("dpacc.loops.private_optimizer", "        if changed:", "        if False:"),),
        (f"{_LOOP_REFUSALS}::test_a_rate_that_moves_between_batches_is_refused",),
    ),
    Bug(
        "schedule follows batches",
        "a scheduler that the loop steps after each batch really steps",
        (
            Patch(
                "dpacc.loops.private_optimizer", '(kind,), {"step": _do_nothing})', "(kind,), {})"
            ),
        ),
        (f"{_LOOP}::test_a_schedule_follows_updates_whatever_the_loop_calls",),
    ),
    Bug(
        "ε of one step",
        "get_epsilon prices one step, however many were charged",
        (Patch("dpacc.step.engine", "guarantee(steps=self.steps_charged", "guarantee(steps=1"),),
        (
            f"{_LOOP}::test_the_ledger_is_on_disk_before_the_optimizer_steps",
            f"{_LOOP}::test_a_budget_is_met_and_then_refused",
        ),
    ),
    Bug(
        "Trainer logs its loss",
        "the training loss, computed without noise, is logged and kept in checkpoints",
        (
            Patch(
                "dpacc.trainer.private_trainer",
                "if self.privacy.log_non_private_metrics and not inputs.made_up:",
                "if not inputs.made_up:",
            ),
            Patch(
                "dpacc.trainer.private_trainer",
                "logs = {k: v for k, v in logs.items() if k not in COMPUTED_WITHOUT_NOISE}",
                "pass",
            ),
        ),
        (f"{_TRAINER}::test_nothing_without_noise_is_logged_or_saved",),
    ),
    Bug(
        "disclosure not noted",
        "training losses are logged on request, and neither ledger nor statement says so",
        (
            Patch(
                "dpacc.trainer.private_trainer",
                "        if self.privacy.log_non_private_metrics:\n            engine.note(",
                "        if False:\n            engine.note(",
            ),
        ),
        (f"{_TRAINER}::test_what_is_logged_without_noise_is_in_the_ledger_and_the_statement",),
    ),
    Bug(
        "steered by private metrics",
        "the Trainer keeps the adapter that does best on data nobody called public",
        (
            Patch(
                "dpacc.trainer.refused_arguments",
                "if steers and not privacy.eval_data_is_public:",
                "if False:",
            ),
        ),
        (f"{_TRAINER_REFUSALS}::test_what_would_break_the_guarantee_is_refused_by_name",),
    ),
    Bug(
        "trials that go on from another",
        "each trial of a private search begins with the head that the one before learned",
        (
            Patch(
                "dpacc.search.trials",
                "        base.set_submodule(name, head)\n    return base",
                "        pass\n    return base",
            ),
        ),
        (f"{DPACC}/search/test_trials.py::test_no_trial_inherits_what_another_learned",),
    ),
)
