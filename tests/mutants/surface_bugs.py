"""Mistakes where a person's own program, or another library, meets the engine."""

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

_REHEARSAL = f"{DPACC}/doctor/test_script.py"
_REFUSALS = f"{DPACC}/loops/test_drop_in_refusals.py"
_HOOKS = f"{DPACC}/trainer/test_required_hooks.py"
_FAILED = f"{DPACC}/step/test_failed_steps.py"

SURFACE_BUGS = (
    Bug(
        "failed backward skipped",
        "a micro-batch whose backward ran out of memory counts as done",
        (
            Patch("dpacc.step.logical_step", "            self._broken = f", "            _ = f"),
            Patch(
                "dpacc.step.logical_step",
                "            self._take(losses)\n        self._take = None\n",
                "            take, self._take = self._take, None\n            take(losses)\n",
            ),
        ),
        (
            f"{_FAILED}::test_a_step_whose_backward_ran_out_of_memory_is_not_released[6-ghost]",
            f"{_FAILED}::test_a_step_whose_backward_ran_out_of_memory_is_not_released[7-materialize]",
        ),
    ),
    Bug(
        "failed collation skipped",
        "a micro-batch that could not be made may be replaced by another, or tried again",
        (Patch("dpacc.step.logical_step", "            self._broken = f", "            _ = f"),),
        (f"{_FAILED}::test_a_collation_that_failed_ends_the_step",),
    ),
    Bug(
        "micro-batch lost between iterations",
        "a loop that leaves an iteration over a step and begins another loses a micro-batch",
        (
            Patch(
                "dpacc.step.logical_step",
                "        self._require_backward_done()\n        while self._waiting:",
                "        while self._waiting:",
            ),
        ),
        (f"{_FAILED}::test_a_second_iteration_does_not_pass_a_micro_batch_over",),
    ),
    Bug(
        "failed update passed over",
        "a loop that catches a failed update goes on to the next step",
        (
            Patch(
                "dpacc.step.logical_step",
                'this one was skipped, or failed."""\n        self._require_sound()\n',
                'this one was skipped, or failed."""\n        self._updated = True\n',
            ),
        ),
        (f"{_FAILED}::test_a_step_whose_update_failed_is_not_passed_over",),
    ),
    Bug(
        "rehearsal that learns",
        "a rehearsed script updates its model by the private sum, which no ledger charges",
        (
            Patch(
                "dpacc.doctor.script",
                "update(parameters, _noise_alone(plan, like=gradient))",
                "update(parameters, gradient)",
            ),
        ),
        (f"{_REHEARSAL}::test_the_sum_is_not_recovered_from_a_checkpoint_that_the_script_saved",),
    ),
    Bug(
        "rehearsal passed off as a run",
        "what a rehearsed script saves states ε as if it had been trained",
        (Patch("dpacc.doctor.script", "        if fresh:", "        if False:"),),
        (f"{_REHEARSAL}::test_a_trainer_that_saves_is_rehearsed_and_says_so_in_what_it_saves",),
    ),
    Bug(
        "keywords swallowed",
        "make_private takes unit_ids and poisson_sampling=False, and does as if nobody had asked",
        (
            Patch(
                "dpacc.errors",
                "            refuse_unknown(given, known=known, of=name)\n",
                "            pass\n",
            ),
        ),
        (f"{_REFUSALS}::test_no_keyword_is_swallowed",),
    ),
    Bug(
        "library without the private loop",
        "a Trainer whose methods are not those that are overridden trains without the private step",
        (
            Patch(
                "dpacc.trainer.required_hooks",
                "        if not any(name in vars(parent) for parent in parents):",
                "        if False:",
            ),
        ),
        (f"{_HOOKS}::test_a_library_without_a_method_that_the_private_step_stands_for_is_refused",),
    ),
    Bug(
        "steps that nobody charged",
        "a training ends with more steps than its ledger holds, and says nothing",
        (Patch("dpacc.trainer.private_trainer", "            self._require_all_charged()\n", ""),),
        (
            f"{_HOOKS}::test_steps_without_a_charge_are_refused_when_training_ends",
            f"{_HOOKS}::test_a_loop_that_calls_nothing_private_is_refused_when_it_ends",
        ),
    ),
    Bug(
        "tokens taken for examples",
        "a projection that sees [tokens, examples, features] writes a gradient for each token",
        (
            Patch(
                "dpacc.layers.in_place_lora",
                "if id(module) in tokens_first else",
                "if False else",
            ),
        ),
        (
            f"{DPACC}/step/admission/test_unusual_families.py::test_projections_that_are_scaled_in_place_or_see_tokens_first[longformer]",
        ),
    ),
    Bug(
        "a packed layer's bias learns nothing",
        "a trained bias of a four-bit layer is added as if frozen, and its gradient is missing",
        (
            Patch(
                "dpacc.layers.packed_weights",
                "(bias.requires_grad or bias.dtype is not dtype)",
                "bias.dtype is not dtype",
            ),
        ),
        (
            f"{DPACC}/layers/test_packed_weights.py::test_a_layer_that_does_more_goes_its_own_way[trained-bias]",
        ),
    ),
    Bug(
        "experts' layers adapted",
        "layers that see the tokens of all examples in one row are taken for layers of examples",
        (
            Patch(
                "dpacc.step.admission.trainable",
                "    refuse_routed_layers(model)\n    _require",
                "    _require",
            ),
        ),
        (
            f"{DPACC}/step/admission/test_unusual_families.py::test_adapters_within_a_mixture_of_experts_are_refused_by_name[qwen2_moe]",
        ),
    ),
    Bug(
        "fresh adapter on a begun ledger",
        "a plain loop that is started again spends the rest of its budget on an adapter that knows "
        "nothing of the first part",
        (Patch("dpacc.loops.virtual_batches", "                self._begins(step.index)\n", ""),),
        (f"{_REFUSALS}::test_a_loop_that_is_started_again_does_not_begin_with_a_fresh_adapter",),
    ),
    Bug(
        "two writers on Windows",
        "without POSIX's locks two runs write one ledger",
        (
            Patch(
                "dpacc_accounting.ledger.locks",
                "        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)",
                "        pass",
            ),
        ),
        (
            "tests/accounting/ledger/test_ledger_endurance.py::TestProcesses::test_one_writer_on_windows",
        ),
    ),
)
