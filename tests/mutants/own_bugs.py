"""Mistakes that could be made in this engine."""

# ruff: noqa: E501 - excerpts of source stay on their lines

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DOCTOR, DPACC, ENGINE, TWO_RANKS
from tests.mutants.planting import Patch

OWN_BUGS = (
    Bug(
        "clip after the sum",
        "the sum of a micro-batch is clipped, not each gradient in it",
        (
            Patch(
                "dpacc.step.accumulation",
                "        add_clipped(total=self._gradients, blocks=blocks, scales=scales)\n",
                "        summed = torch.zeros_like(self._gradients)\n"
                "        for slot, block in blocks.items():\n"
                "            summed[slot.offset : slot.end] = block.nan_to_num().sum(dim=0)\n"
                "        most = self._bound * len(scales)\n"
                "        self._gradients.add_(summed * min(1.0, most / float(summed.norm() + 1e-9)))\n",
            ),
        ),
        (
            DOCTOR,
            f"{ENGINE}::test_the_sum_is_that_of_clipped_gradients",
            f"{ENGINE}::test_one_example_changes_the_sum_by_at_most_c[huge loss-flat]",
        ),
        quick=True,
    ),
    Bug(
        "whole C for each layer",
        "per-layer clipping gives every layer C instead of C/√K",
        (
            Patch(
                "dpacc.step.clipping",
                "share = max_grad_norm / math.sqrt(squares.shape[1])",
                "share = max_grad_norm",
            ),
        ),
        (
            DOCTOR,
            f"{DPACC}/step/test_clipping.py::test_per_layer_clipping_bounds_each_layer_by_its_share",
        ),
    ),
    Bug(
        "one layer not in the norm",
        "the last layer's gradient is scaled but not measured",
        (
            Patch(
                "dpacc.step.clipping",
                "norms = squares.sum(dim=1, keepdim=True).sqrt()",
                "norms = squares[:, : max(1, squares.shape[1] - 1)].sum(dim=1, keepdim=True).sqrt()",
            ),
        ),
        (
            DOCTOR,
            f"{DPACC}/step/test_clipping.py::test_one_unit_never_exceeds_the_bound",
            f"{ENGINE}::test_the_sum_is_that_of_clipped_gradients",
        ),
    ),
    Bug(
        "noise divided by ranks",
        "the noise on the sum shrinks with the number of ranks",
        (
            Patch(
                "dpacc.step.release",
                "plan.gradient_noise_multiplier * self.bound.value",
                "plan.gradient_noise_multiplier * self.bound.value "
                "/ self._accelerator.num_processes",
            ),
        ),
        (TWO_RANKS,),
        ranks=True,
    ),
    Bug(
        "same noise key twice",
        "two steps in a row draw the same noise",
        (
            Patch(
                "dpacc.step.release",
                "self._correlated.row(step=index, count=count, threads=threads)",
                "self._correlated.row(step=index // 2, count=count, threads=threads)",
            ),
        ),
        (
            DOCTOR,
            f"{DPACC}/step/test_wiring.py::test_the_noise_of_a_run_is_white_across_steps",
        ),
    ),
    Bug(
        "noise forgets C",
        "the noise is σ where it should be σC",
        (
            Patch(
                "dpacc.step.release",
                "plan.gradient_noise_multiplier * self.bound.value",
                "plan.gradient_noise_multiplier",
            ),
        ),
        (
            DOCTOR,
            f"{ENGINE}::test_noise_appears_exactly_once",
        ),
    ),
    Bug(
        "one uniform for both",
        "Box–Muller takes the same uniform for the radius and the angle",
        (
            Patch(
                "dpacc.randomness.gaussian_noise",
                "angle = (2.0 * np.pi) * uniforms[1::2]",
                "angle = (2.0 * np.pi) * uniforms[0::2]",
            ),
        ),
        (f"{DPACC}/randomness/test_gaussian_noise.py::test_the_noise_is_standard_normal",),
    ),
    Bug(
        "tail micro-batch dropped",
        "the last micro-batch of every step is left out",
        (
            Patch(
                "dpacc.step.micro_batches",
                "for positions in mine]",
                "for positions in mine[: max(1, len(mine) - 1)]]",
            ),
        ),
        (f"{ENGINE}::test_the_cut_into_micro_batches_does_not_change_the_sum",),
    ),
    Bug(
        "charged after the update",
        "the ledger is written when the adapters have moved already",
        (
            Patch(
                "dpacc.step.release", "        line = self._charge(index)\n", '        line = ""\n'
            ),
            Patch(
                "dpacc.step.release",
                "        self._backend.update(self._parameters, gradient)\n",
                "        self._backend.update(self._parameters, gradient)\n"
                "        self._charge(index)\n",
            ),
        ),
        (
            f"{DPACC}/step/test_engine_ledger.py::test_dying_between_charge_and_update_leaves_the_charge",
            f"{DPACC}/step/test_engine_ledger.py::test_a_ledger_that_cannot_be_written_stops_the_step",
        ),
    ),
    Bug(
        "norms in bfloat16",
        "gradients are measured with eight bits and scaled with all of them",
        (
            Patch(
                "dpacc.layers.gradient_buffer",
                "self.squares[:, slot.index] = kept.square().sum(dim=1)",
                "self.squares[:, slot.index] = kept.bfloat16().square().sum(dim=1)",
            ),
        ),
        (
            f"{ENGINE}::test_the_sum_is_that_of_clipped_gradients",
            f"{ENGINE}::test_one_example_changes_the_sum_by_at_most_c",
        ),
    ),
    Bug(
        "shared gradients overwritten",
        "a layer that is used twice keeps the gradient of one use only",
        (Patch("dpacc.layers.gradient_buffer", "].add_(block)", "].copy_(block)"),),
        (
            f"{DPACC}/layers/test_adapters.py::test_a_layer_used_twice_adds_up",
            f"{DPACC}/layers/test_heads.py::test_a_tied_embedding_and_head_add_up",
        ),
    ),
    Bug(
        "base left trainable",
        "the frozen base trains along",
        (
            Patch(
                "dpacc.recipe.models",
                "    for parameter in adapted.parameters():\n",
                "    adapted.requires_grad_(True)\n    for parameter in adapted.parameters():\n",
            ),
        ),
        (
            f"{DPACC}/recipe/test_models_adapters.py::test_fresh_adapters_change_nothing",
            f"{DPACC}/recipe/test_models_adapters.py::test_adapters_are_float32_on_any_base",
        ),
    ),
    Bug(
        "outliers of a whole batch",
        "an int8 base looks for outliers over all examples of a micro-batch, and is admitted",
        (
            Patch(
                "dpacc.recipe.models",
                "load_in_8bit=True, llm_int8_threshold=0.0",
                "load_in_8bit=True",
            ),
            Patch(
                "dpacc.step.admission.trainable",
                '"MatmulLtState" and state.threshold > 0',
                '"MatmulLtState" and state.threshold < 0',
            ),
        ),
        (
            f"{DPACC}/recipe/test_models.py::test_an_int8_base_computes_each_example_by_itself",
            f"{DPACC}/step/admission/test_trainable.py::test_an_int8_base_that_looks_for_outliers_is_refused",
        ),
    ),
    Bug(
        "sampled twice as often",
        "examples join with probability 2q",
        (
            Patch(
                "dpacc.randomness.sampling",
                "np.uint64(self.probability * _WORD_VALUES",
                "np.uint64(2 * self.probability * _WORD_VALUES",
            ),
        ),
        (
            DOCTOR,
            f"{DPACC}/randomness/test_sampling.py::test_batch_sizes_are_binomial",
        ),
    ),
    Bug(
        "adaptive count without noise",
        "how many gradients lie below C is used exactly",
        (
            Patch(
                "dpacc.step.release",
                "noise[self._width :] *= plan.count_noise",
                "noise[self._width :] *= 0.0",
            ),
        ),
        (f"{DPACC}/step/test_wiring.py::test_the_count_below_c_is_noised",),
    ),
    Bug(
        "adaptive count for free",
        "the count's share of the budget is not taken from the gradients'",
        (
            Patch(
                "dpacc.plan.privacy_plan",
                'if self.clipping != "adaptive":\n            return self.noise_multiplier',
                "if True:\n            return self.noise_multiplier",
            ),
        ),
        (f"{DPACC}/step/test_accumulation.py::test_adaptive_clipping_spends_what_the_plan_says",),
    ),
    Bug(
        "users clipped by the example",
        "each of a user's examples may weigh C",
        (
            Patch(
                "dpacc.step.logical_step",
                "self._accumulate(losses, None if each_its_own else owners)",
                "self._accumulate(losses, None)",
            ),
        ),
        (f"{DPACC}/step/test_accumulation.py::test_a_whole_user_changes_the_sum_by_at_most_c",),
    ),
    Bug(
        "second pass unchecked",
        "ghost adds whatever the second backward gives",
        (Patch("dpacc.step.strategies", "        into.require_bounded(sink)\n", ""),),
        (f"{DPACC}/step/test_strategies.py::test_ghost_refuses_passes_that_disagree",),
    ),
    Bug(
        "journal before the noise",
        "the journal on disk holds the clipped sum without its noise",
        (
            Patch(
                "dpacc.step.release",
                "entry = JournalEntry(step=index, gradient=gradient, bound=self.bound.value, charge=line)",
                "entry = JournalEntry(\n"
                "                step=index,\n"
                "                gradient=clipped[: self._width] / plan.expected_batch_size,\n"
                "                bound=self.bound.value,\n"
                "                charge=line,\n"
                "            )",
            ),
        ),
        (f"{DPACC}/step/test_wiring.py::test_the_journal_holds_what_was_released",),
    ),
    Bug(
        "secret shown",
        "the run's secret appears in logs and tracebacks",
        (
            Patch(
                "dpacc.randomness.run_secret",
                'return "RunSecret(<hidden>)" if hidden',
                'return f"RunSecret({self._key.hex()})" if hidden',
            ),
        ),
        (f"{DPACC}/randomness/test_gaussian_noise.py::test_fresh_secrets_differ_and_stay_hidden",),
    ),
    Bug(
        "a step too few",
        "ε is stated for one step fewer than was charged",
        (
            Patch(
                "dpacc.plan.privacy_plan",
                "event=self.event(steps=steps)",
                "event=self.event(steps=max((steps or self.steps) - 1, 1))",
            ),
        ),
        (f"{DPACC}/step/test_wiring.py::test_the_plans_epsilon_is_that_of_its_ledger",),
    ),
    Bug(
        "fixed seed not noted",
        "a run with predictable noise calls itself private",
        (
            Patch(
                "dpacc.step.run_ledger",
                "voids = () if fixed_seed is None else (",
                "voids = () if True else (",
            ),
        ),
        (f"{DPACC}/step/test_engine_ledger.py::test_a_charge_counts_even_when_what_follows_fails",),
    ),
    Bug(
        "ledger not synced",
        "charges wait in the system's buffers while the adapters move on",
        (
            Patch(
                "dpacc_accounting.ledger.writer",
                "            sync_file(self._descriptor)\n        except",
                "            pass\n        except",
            ),
        ),
        (
            "tests/accounting/ledger/test_writer.py::TestWriting::test_each_line_is_synced_before_charge_returns",
        ),
    ),
    Bug(
        "unexamined devices",
        "a Mac's GPU, which Accelerate takes unasked, may sum, drop and noise inexactly",
        (Patch("dpacc.ranks.backends.selection", "if device not in _EXAMINED:", "if False:"),),
        (
            "tests/dpacc/ranks/test_backends_refusals.py::test_a_device_that_was_never_examined_is_refused",
        ),
    ),
    Bug(
        "charges in the drive's memory",
        "on a Mac a power cut takes charges back, and not what they paid for",
        (
            Patch(
                "dpacc_accounting.ledger.disk",
                "        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)",
                "        pass",
            ),
        ),
        (
            "tests/accounting/ledger/test_ledger_endurance.py::TestProcesses::test_a_macs_drive_is_told_to_keep_its_charges",
        ),
    ),
)
