"""Bugs of what sees that examples are coupled: the probe, admission, and steady buffers."""

# ruff: noqa: E501 - excerpts of source stay on their lines

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

LOSSES = f"{DPACC}/step/admission/test_coupled_losses.py"
COLLATION = f"{DPACC}/step/admission/test_coupled_collation.py"
MODELS = f"{DPACC}/step/admission/test_coupled_models.py"
INVENTED = f"{DPACC}/step/admission/test_invented_examples.py"

PROBE_BUGS = (
    Bug(
        "invented rows alike",
        "invented examples of one length learn equally many tokens, so a mean over tokens passes",
        (
            Patch(
                "dpacc.step.admission.invented_examples",
                "        unlearned = min(round(self._part.unlearned * filled), filled - 2)\n",
                "        unlearned = 0\n",
            ),
            Patch(
                "dpacc.step.admission.invented_examples",
                "self._filled = self._length if fixed is None else max(2, round(part.filled * fixed))",
                "self._filled = self._length",
            ),
        ),
        (
            f"{LOSSES}::test_a_mean_over_tokens_of_rows_of_one_length",
            f"{INVENTED}::test_rows_of_one_length_are_padded_within",
        ),
    ),
    Bug(
        "invented numbers alike",
        "every invented number is the same, so losses over the batch's mean weight pass",
        (
            Patch(
                "dpacc.step.admission.invented_examples",
                "return part.level * self._generator.uniform(0.5, 1.0, size=shape)",
                "return np.full(shape, 0.5)",
            ),
        ),
        (
            f"{LOSSES}::test_losses_over_the_mean_weight_of_the_batch",
            f"{INVENTED}::test_they_differ_wherever_examples_can",
        ),
    ),
    Bug(
        "invented texts alike",
        "every invented text is the same, so a mean over tokens passes where collating tokenizes",
        (
            Patch(
                "dpacc.step.admission.invented_examples",
                "            return self._text()\n",
                '            return "made up"\n',
            ),
        ),
        (
            f"{COLLATION}::test_texts_that_are_tokenized_in_the_collate_function",
            f"{INVENTED}::test_they_differ_wherever_examples_can",
        ),
    ),
    Bug(
        "16 bits hide padding",
        "a convolution that reads padding passes as rounding where the base is in 16 bits",
        (
            Patch(
                "dpacc.step.admission.probe_verdict",
                "return min(self.same_shapes, max(least, _ALL_ROWS_TOGETHER / self._most_rows))",
                "return self.other_shapes",
            ),
        ),
        (
            f"{DPACC}/step/admission/test_coupling_probe.py::test_less_is_allowed_where_one_row_can_touch_many",
            f"{MODELS}::test_convolutions_that_read_padding",
        ),
    ),
    Bug(
        "16 bits hide neighbours",
        "in 16 bits a neighbour's words may change a gradient as much as its length may",
        (
            Patch(
                "dpacc.step.admission.coupling_probe",
                "                changes.alike = change_of(among, alike)\n",
                "                changes.alike = 0.0\n",
            ),
        ),
        (
            f"{DPACC}/step/admission/test_coupling_probe.py::test_what_neighbours_say_is_a_coupling_in_16_bits_too",
        ),
    ),
    Bug(
        "losses through neighbours",
        "a loss that reaches through a neighbour's row passes where it changes little",
        (
            Patch(
                "dpacc.step.admission.probe_verdict",
                "if not changes.leaked <= _EXACT:",
                "if False:",
            ),
        ),
        (
            f"{DPACC}/step/admission/test_coupling_probe.py::test_a_loss_must_not_reach_through_a_neighbour",
            f"{LOSSES}::test_losses_over_the_mean_loss_of_the_batch",
        ),
    ),
    Bug(
        "neighbours unmeasured",
        "what of a loss reaches the gradients of its neighbours is not measured where it comes by",
        (
            Patch(
                "dpacc.layers.gradient_buffer",
                "self._others[slot.index] += block[1:].float().norm()",
                "self._others[slot.index] += block[:0].float().norm()",
            ),
        ),
        (
            f"{DPACC}/layers/test_gradient_buffer.py::test_the_first_gradient_is_the_first_of_those_that_are_kept",
            f"{LOSSES}::test_losses_over_the_mean_loss_of_the_batch",
        ),
    ),
    Bug(
        "rows put elsewhere",
        "a collate function that sorts gives one unit's row to another",
        (
            Patch(
                "dpacc.step.admission.collation",
                "            _require_order(batch, [self([each]) for each in several])\n",
                "            pass\n",
            ),
        ),
        (f"{COLLATION}::test_a_collate_function_keeps_order_and_number",),
    ),
    Bug(
        "masks of a known seed",
        "a collate function masks by the generator that everybody seeds",
        (
            Patch(
                "dpacc.step.admission.collation",
                "        with global_generators(stream):\n            return self._collate(examples)\n",
                "        return self._collate(examples)\n",
            ),
        ),
        (f"{COLLATION}::test_masks_that_a_collate_function_draws_are_secret",),
    ),
    Bug(
        "buffer saved",
        "an exact maximum of private activations stays in a buffer, and is saved",
        (
            Patch(
                "dpacc.step.admission.steady_buffers",
                "            if now.get(name) != self._marks.get(name):\n",
                "            if False:\n",
            ),
        ),
        (
            f"{MODELS}::test_a_buffer_that_changes_is_refused",
            f"{DPACC}/step/admission/test_steady_buffers.py::test_a_buffer_that_changes_in_training_stops_step_and_save",
        ),
    ),
    Bug(
        "buffer watched by the probe alone",
        "a buffer that only real examples change goes unseen",
        (
            Patch(
                "dpacc.step.engine",
                "        self.require_steady_buffers()\n        self._backend.require",
                "        self._backend.require",
            ),
        ),
        (
            f"{DPACC}/step/admission/test_steady_buffers.py::test_a_buffer_that_changes_in_training_stops_step_and_save",
        ),
    ),
    Bug(
        "what was found once is looked for",
        "a layer that joined the model after the first look may hold a raw gradient",
        (
            Patch(
                "dpacc.ranks.backends.held_parameters",
                "    return list({id(p): p for p in every}.values())\n",
                "    return found.setdefault(id(model), list({id(p): p for p in every}.values()))\n"
                "\n\n"
                "found: dict[int, list[nn.Parameter]] = {}\n",
            ),
        ),
        (
            f"{DPACC}/ranks/test_held_parameters.py::test_what_was_added_since_the_last_look_is_seen",
        ),
    ),
    Bug(
        "longest row sets frequencies",
        "rotary embeddings follow the longest row of a micro-batch",
        (
            Patch(
                "dpacc.step.admission.trainable",
                "    refuse_rotary_embeddings_of_a_whole_batch(model)\n",
                "",
            ),
        ),
        (f"{DPACC}/step/admission/test_rotary.py::test_what_follows_the_longest_row_is_refused",),
    ),
    Bug(
        "one scale for all",
        "layers converted to float8 round all activations by one scale",
        (
            Patch(
                "dpacc.step.admission.trainable",
                "    _refuse_layers_that_round_activations(model)\n",
                "",
            ),
        ),
        (f"{DPACC}/step/admission/test_trainable.py::test_layers_converted_to_8_bits_are_refused",),
    ),
)
"""Mistakes by which an example could move its neighbours unseen."""
