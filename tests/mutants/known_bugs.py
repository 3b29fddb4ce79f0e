"""Mistakes that other tools really made."""

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import AUDIT, DOCTOR, DPACC, ENGINE, TWO_RANKS
from tests.mutants.planting import Patch

KNOWN_BUGS = (
    Bug(
        "coupled loss",
        "the loss is a mean over all tokens of the micro-batch",
        (
            Patch(
                "dpacc.losses.per_example",
                "    return losses / tokens.clamp(min=1)\n",
                "    return losses / tokens.sum().clamp(min=1)\n",
            ),
        ),
        (
            f"{DPACC}/losses/test_per_example.py::test_a_loss_does_not_depend_on_its_neighbours",
            f"{ENGINE}::test_the_cut_into_micro_batches_does_not_change_the_sum",
        ),
        known=True,
    ),
    Bug(
        "deaf coupling probe",
        "the probe sees that examples are coupled and says nothing",
        (
            Patch(
                "dpacc.step.admission.probe_verdict",
                "if not changes.others <= unequal:",
                "if False:",
            ),
            Patch(
                "dpacc.step.admission.probe_verdict",
                "if not changes.among <= self.other_shapes:",
                "if False:",
            ),
            Patch(
                "dpacc.step.admission.probe_verdict",
                "if not changes.leaked <= _EXACT:",
                "if False:",
            ),
        ),
        (
            f"{DPACC}/step/admission/test_coupling_probe.py::test_the_verdict_allows_rounding_and_nothing_more",
            f"{ENGINE}::test_coupled_losses_are_refused_before_the_first_step",
        ),
        known=True,
    ),
    Bug(
        "shuffled batches",
        "each step takes the next batch of a shuffled order, and is priced as Poisson",
        (
            Patch(
                "dpacc.randomness.sampling",
                "return np.flatnonzero(joins if self.groups == 1 "
                "else joins & self._may_join(step))",
                "epoch = self.secret.stream(purpose='sampling', step=0)\n"
                "        order = np.argsort(epoch.words(start=0, count=self.dataset_size))\n"
                "        first = step * self.expected_batch_size\n"
                "        taken = range(first, first + self.expected_batch_size)\n"
                "        return np.sort(np.take(order, taken, mode='wrap'))",
            ),
        ),
        (
            DOCTOR,
            f"{DPACC}/randomness/test_sampling.py::test_batch_sizes_are_binomial",
            f"{DPACC}/randomness/test_sampling.py::test_examples_join_equally_often_and_independently",
        ),
        known=True,
        quick=True,
    ),
    Bug(
        "each rank its own secret",
        "ranks draw their own samples and their own noise",
        (
            Patch(
                "dpacc.ranks.collectives",
                "RunSecret(share_from_main(secrets.token_bytes(SECRET_BYTES)))",
                "RunSecret(secrets.token_bytes(SECRET_BYTES))",
            ),
        ),
        (f"{DPACC}/step/test_two_ranks.py::test_ranks_share_a_fresh_secret",),
        known=True,
        ranks=True,
    ),
    Bug(
        "every rank the same shard",
        "all ranks take the first rank's share, so that its examples count twice",
        (
            Patch(
                "dpacc.step.micro_batches",
                "cut[self._accelerator.process_index]",
                "cut[0]",
            ),
        ),
        (TWO_RANKS,),
        known=True,
        ranks=True,
    ),
    Bug(
        "empty draw skipped",
        "a step in which nobody joined is passed over",
        (
            Patch(
                "dpacc.step.engine",
                "                total = self._zero_sum()\n",
                "                if not drawn:\n                    continue\n"
                "                total = self._zero_sum()\n",
            ),
        ),
        (f"{ENGINE}::test_empty_draws_still_release_noise",),
        known=True,
    ),
    Bug(
        "empty draw without noise",
        "a step in which nobody joined releases zeros",
        (
            Patch(
                "dpacc.step.release",
                "self._reduction.part(self._noise(index))",
                "self._reduction.part(self._noise(index)) * bool(total.any())",
            ),
        ),
        (
            DOCTOR,
            f"{ENGINE}::test_empty_draws_still_release_noise",
        ),
        known=True,
    ),
    Bug(
        "noise on every rank",
        "each rank adds noise before the reduction",
        (
            Patch(
                "dpacc.step.release",
                "self._reduction.sum(clipped)",
                "self._reduction.sum(clipped + self._noise(index))",
            ),
            Patch("dpacc.step.release", "self._reduction.part(self._noise(index))", "0.0"),
        ),
        (TWO_RANKS,),
        known=True,
        ranks=True,
    ),
    Bug(
        "noise scaled by a setting",
        "a setting that a user may choose divides the noise, here by 1.3",
        (
            Patch(
                "dpacc.step.release",
                "plan.gradient_noise_multiplier * self.bound.value",
                "plan.gradient_noise_multiplier * self.bound.value / 1.3",
            ),
        ),
        (DOCTOR, f"{ENGINE}::test_noise_appears_exactly_once", f"{AUDIT}[flat]"),
        known=True,
    ),
    Bug(
        "NaN passes the clip",
        "an example with a NaN gradient wipes out the whole sum",
        (
            Patch(
                "dpacc.step.clipping",
                "return torch.where(finite, scales, 0.0).expand_as(squares)",
                "return scales.expand_as(squares)",
            ),
        ),
        (
            DOCTOR,
            f"{DPACC}/step/test_clipping.py::test_a_non_finite_unit_contributes_zero",
            f"{ENGINE}::test_one_example_changes_the_sum_by_at_most_c[NaN-flat]",
        ),
        known=True,
    ),
    Bug(
        "NaN zeroed after the noise",
        "a NaN sum becomes a step without any noise",
        (
            Patch(
                "dpacc.step.clipping",
                "return torch.where(finite, scales, 0.0).expand_as(squares)",
                "return scales.expand_as(squares)",
            ),
            Patch(
                "dpacc.step.release",
                "gradient = total[: self._width] / plan.expected_batch_size",
                "gradient = total[: self._width].nan_to_num() / plan.expected_batch_size",
            ),
        ),
        (
            DOCTOR,
            f"{ENGINE}::test_one_example_changes_the_sum_by_at_most_c[NaN-flat]",
        ),
        known=True,
        quick=True,
    ),
    Bug(
        "books start at zero",
        "a resumed run forgets what its ledger holds",
        (
            Patch(
                "dpacc.step.run_ledger",
                "steps_charged=0 if last is None else last + 1)",
                "steps_charged=0)",
            ),
        ),
        (
            f"{DPACC}/step/test_engine_ledger.py::test_a_spent_ledger_stops_the_next_run",
            f"{DPACC}/step/test_resumption.py::test_a_shortened_ledger_is_refused",
        ),
        known=True,
    ),
    Bug(
        "noise used again",
        "every run has the same secret, so that a resumed step adds old noise to other data",
        (
            Patch(
                "dpacc.ranks.collectives",
                "RunSecret(share_from_main(secrets.token_bytes(SECRET_BYTES)))",
                "RunSecret(bytes(SECRET_BYTES))",
            ),
        ),
        (f"{ENGINE}::test_without_a_fixed_seed_runs_differ",),
        known=True,
    ),
    Bug(
        "backward counted twice",
        "a layer's gradient is written twice, as hooks do under activation checkpointing",
        (
            Patch(
                "dpacc.layers.adapters",
                "        buffer.write_products(weight_slot, gradient, input)\n",
                "        buffer.write_products(weight_slot, gradient, input)\n"
                "        buffer.write_products(weight_slot, gradient, input)\n",
            ),
            Patch(
                "dpacc.layers.fused_lora",
                "        buffer.write_products(lower_slot, of_low, x)\n",
                "        buffer.write_products(lower_slot, of_low, x)\n"
                "        buffer.write_products(lower_slot, of_low, x)\n",
            ),
        ),
        (
            f"{DPACC}/layers/test_adapters.py::test_one_pass_equals_loop_under_activation_checkpointing[llama]",
        ),
        known=True,
    ),
    Bug(
        "gradients left over",
        "a layer that took no part keeps the last micro-batch's gradients",
        (
            Patch(
                "dpacc.step.strategies",
                "        kept = self._keep(",
                "        kept = self.__dict__.get('left') or self._keep(",
            ),
            Patch(
                "dpacc.step.strategies",
                "        with self._buffer.open(examples=len(losses), sink=kept, owners=owners):\n",
                "        self.left = kept\n"
                "        with self._buffer.open(examples=len(losses), sink=kept, owners=owners):\n",
            ),
            Patch(
                "dpacc.layers.gradient_buffer",
                "        while self.blocks:\n            slot, block = self.blocks.popitem()\n",
                "        for slot, block in self.blocks.items():\n",
            ),
        ),
        (f"{DPACC}/layers/test_adapters.py::test_an_unused_layer_is_zero_not_left_over",),
        known=True,
    ),
    Bug(
        "secure noise on one path only",
        "noise beyond the first chunk comes from a generator that anybody can predict",
        (
            Patch(
                "dpacc.randomness.gaussian_noise",
                "        normals[start:stop] = normals_at(stream, start, stop - start)\n",
                "        normals[start:stop] = (\n"
                "            normals_at(stream, start, stop - start)\n"
                "            if start == 0\n"
                "            else np.random.default_rng(start).standard_normal(stop - start)\n"
                "        )\n",
            ),
        ),
        (f"{DPACC}/step/test_wiring.py::test_noise_beyond_the_first_chunk_is_keyed_too",),
        known=True,
    ),
    Bug(
        "losses printed",
        "the exact mean loss of each micro-batch goes to the log",
        (
            Patch(
                "dpacc.step.logical_step",
                "            self._take(losses)\n",
                "            print(f'loss {float(losses.detach().mean()):.4f}')\n"
                "            self._take(losses)\n",
            ),
        ),
        (f"{DPACC}/step/test_wiring.py::test_nothing_that_is_shown_depends_on_the_data",),
        known=True,
        quick=True,
    ),
    Bug(
        "BatchNorm admitted",
        "a layer that mixes the examples of a batch trains along",
        (Patch("dpacc.step.admission.trainable", "    _refuse_batch_norm(model)\n", ""),),
        (f"{DPACC}/step/admission/test_trainable.py::test_batch_norm_is_refused_even_when_frozen",),
        known=True,
    ),
    Bug(
        "router loss admitted",
        "a balance loss over all examples is added to each",
        (Patch("dpacc.step.admission.trainable", "    _refuse_router_losses(model)\n", ""),),
        (f"{DPACC}/step/admission/test_trainable.py::test_router_balance_losses_are_refused",),
        known=True,
    ),
    Bug(
        "adapters replaced unnoticed",
        "adapters loaded after prepare() are never updated, or without privacy",
        (
            Patch(
                "dpacc.step.engine",
                "        refuse_replaced_adapters(self._model, self._parameters)\n",
                "",
            ),
        ),
        (f"{DPACC}/step/test_wiring.py::test_adapters_replaced_while_training_stop_the_step",),
        known=True,
    ),
    Bug(
        "head without a rule",
        "a trainable layer that no rule covers is updated with its raw gradient",
        (Patch("dpacc.step.admission.trainable", "    _require_per_example_rules(model)\n", ""),),
        (
            f"{DPACC}/step/admission/test_trainable.py::test_a_trainable_layer_without_a_rule_is_refused",
        ),
        known=True,
    ),
    Bug(
        "raw gradients let through",
        "a weight used outside its layer gets an unclipped gradient",
        (Patch("dpacc.step.engine", "        refuse_raw_gradients(self._model)\n", ""),),
        (f"{DPACC}/step/test_wiring.py::test_a_raw_gradient_stops_the_step",),
        known=True,
    ),
)
