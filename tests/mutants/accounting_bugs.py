"""Mistakes in the laws of privacy losses, by which an accountant would report too little."""

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.planting import Patch

SAMPLED = "tests/accounting/pld/test_sampled_losses.py"
WHOLE = Patch(
    "dpacc_accounting.pld.privacy_losses",
    "    if not error <= (_LACKING if above else _EXCEEDING):\n",
    "    if False:\n",
)

ACCOUNTING_BUGS = (
    Bug(
        "outputs without the unit forgotten",
        "what P never puts out has a loss of ln(1 − q) after sampling; leaving it out loses mass",
        (
            Patch(
                "dpacc_accounting.pld.mixtures",
                "            np.append(mixed, (1 - q) * unmatched),\n",
                "            np.append(mixed, 0.0 * unmatched),\n",
            ),
        ),
        (
            f"{SAMPLED}::test_no_law_loses_mass[PoissonSampled1]",
            f"{SAMPLED}::test_long_compositions_are_not_priced_too_low[event0-0.01-55.07]",
            f"{SAMPLED}::test_many_sampled_discrete_gaussians_agree_with_the_reference[0.01-1-8-10-0.001]",
        ),
    ),
    Bug(
        "lost mass unnoticed",
        "the same, and nobody counts the mass of a law",
        (
            WHOLE,
            Patch(
                "dpacc_accounting.pld.mixtures",
                "            np.append(mixed, (1 - q) * unmatched),\n",
                "            np.append(mixed, 0.0 * unmatched),\n",
            ),
        ),
        (
            f"{SAMPLED}::test_long_compositions_are_not_priced_too_low[event0-0.01-55.07]",
            f"{SAMPLED}::test_many_sampled_discrete_gaussians_agree_with_the_reference[0.01-1-8-10-0.001]",
        ),
    ),
    Bug(
        "faint noise prices as none needed",
        "1/σ overflows, δ becomes no number, and ε 0",
        (
            Patch(
                "dpacc_accounting.events.flattening",
                "    return sigma if sigma >= _FAINTEST else 0.0\n",
                "    return sigma\n",
            ),
            Patch(
                "dpacc_accounting.gaussian",
                "    if mu == math.inf:\n        return 1.0\n",
                "",
            ),
        ),
        (
            "tests/accounting/test_gaussian.py::test_noise_too_faint_for_a_double_promises_nothing[add-or-remove-5e-324]",
        ),
    ),
    Bug(
        "losses beyond a double lowered by too little",
        "e^loss is cut at e^600, and a lower bound rises above the truth",
        (
            Patch(
                "dpacc_accounting.pld.connect_the_dots",
                "    if step > _WIDEST_STEP or losses[-1] > _LARGEST_LOSS:\n",
                "    if step > _WIDEST_STEP:\n",
            ),
        ),
        (
            "tests/accounting/pld/test_connect_the_dots.py::test_losses_beyond_a_double_are_bounded_on_both_sides[0.01-650.0]",
        ),
    ),
    Bug(
        "a null unit's batch of fixed size amplified as a replaced one's",
        "a curve that holds where another unit takes the place is used where none does",
        (
            Patch(
                "dpacc_accounting.pld.event_losses",
                "    if adjacency is Adjacency.ZERO_OUT:\n        return MixedLoss(",
                "    if False:\n        return MixedLoss(",
            ),
        ),
        (
            "tests/accounting/pricing/test_zero_out.py::test_one_batch_of_fixed_size_costs_its_share_of_one_contribution",
            "tests/accounting/pricing/test_zero_out.py::test_batches_of_fixed_size_are_never_priced_below_an_enumeration[1.0]",
        ),
    ),
    Bug(
        "a null unit taken for an absent one by what is no sum",
        "a mechanism known by ε alone may answer a null unit with what nothing else brings about",
        (
            Patch(
                "dpacc_accounting.pld.amplification",
                "        return all(isinstance(part, _SUMS) for part in nested_events(event))\n",
                "        return True\n",
            ),
        ),
        (
            "tests/accounting/pricing/test_zero_out.py::test_a_null_unit_may_tell_what_an_absent_one_does_not",
        ),
    ),
)
