"""Mistakes about what an event may cost at most, and about what its parameters mean."""

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.planting import Patch

HERE = "tests/accounting"
PURE = f"{HERE}/pricing/test_outright_claims.py"
FINITE = f"{HERE}/events/test_finite_mechanisms.py"
SEVERAL = f"{HERE}/pld/test_several_participations.py"

EVENT_BUGS = (
    Bug(
        "pure ε of a coin's mildest side",
        "a mixture's pure ε is its largest event's, not its smallest's",
        (
            Patch(
                "dpacc_accounting.pricing.outright_claims",
                "    return Claim(max(claim.epsilon for _, claim in likely), lost)\n",
                "    return Claim(min(claim.epsilon for _, claim in likely), lost)\n",
            ),
        ),
        (f"{PURE}::test_gaussians_have_no_largest_loss",),
    ),
    Bug(
        "a replaced unit's sample counted as hidden",
        "under replace-one the output without the unit need not lie between the other two",
        (
            Patch(
                "dpacc_accounting.pricing.outright_claims",
                "    if whole.epsilon > 700 or not hidden:\n",
                "    if whole.epsilon > 700:\n",
            ),
        ),
        (f"{PURE}::test_nothing_is_lost_beyond_the_largest_loss[event7-replace-one-2.0]",),
    ),
    Bug(
        "pure ε rounded down",
        "a sum of fractions becomes the nearest float, which may lie below it",
        (
            Patch(
                "dpacc_accounting.pricing.outright_claims",
                "    return near if Fraction(near) >= value else math.nextafter(near, math.inf)\n",
                "    return near\n",
            ),
        ),
        (f"{PURE}::test_the_largest_loss_is_never_rounded_down",),
    ),
    Bug(
        "δ of a bare claim left out",
        "an (ε, δ)-private mechanism is priced as an ε-private one",
        (
            Patch(
                "dpacc_accounting.pld.finite_losses",
                "            return losses, masses * (1 - delta), delta\n",
                "            return losses, masses, 0.0\n",
            ),
        ),
        (
            f"{FINITE}::test_compositions_are_those_of_all_outcomes[event0-add-or-remove-5]",
            f"{FINITE}::test_samples_are_those_of_all_outcomes[event0-add-or-remove-5]",
        ),
    ),
    Bug(
        "permute-and-flip priced from below",
        "two candidates' cost is taken for the most that any choice costs",
        (
            Patch(
                "dpacc_accounting.pld.finite_losses",
                "        if not above and isinstance(mechanism, PermuteAndFlip):\n",
                "        if isinstance(mechanism, PermuteAndFlip):\n",
            ),
        ),
        (f"{FINITE}::test_no_choice_by_permute_and_flip_costs_more[1.0]",),
    ),
    Bug(
        "k participations counted once",
        "a unit in k of t steps is priced as if one block were all",
        (
            Patch(
                "dpacc_accounting.events.flattening",
                "                _collect(once, times * blocks, counts, others)\n",
                "                _collect(once, times, counts, others)\n",
            ),
        ),
        (
            f"{SEVERAL}::test_the_price_holds_for_every_set_of_steps[0.0-3-2-1.0]",
            f"{SEVERAL}::test_it_lies_between_sampling_nothing_and_one_participation[9-3]",
            f"{SEVERAL}::test_unequal_blocks_are_those_of_a_partition",
        ),
    ),
    Bug(
        "ρ without its order",
        "the divergence of ρ-zCDP at order α is ρ·α, not ρ·(α − 1)",
        (
            Patch(
                "dpacc_accounting.renyi.divergence",
                "            return xi + rho * orders\n",
                "            return xi + rho * (orders - 1)\n",
            ),
        ),
        (f"{HERE}/pricing/test_zcdp.py::test_it_is_dp_accountings[0.0]",),
    ),
    Bug(
        "peaks between the nodes",
        "with little noise a Rényi moment is read off nodes that step over its peak",
        (
            Patch(
                "dpacc_accounting.renyi.sampled_gaussian",
                "        return _log_moment_between(q, shift, order)\n",
                "        pass\n",
            ),
        ),
        (
            f"{HERE}/renyi/test_sampled_gaussian.py::test_little_noise_is_not_missed_between_nodes[2.5-1e-06]",
        ),
    ),
    Bug(
        "adjacency forgotten at little noise",
        "what no grid can hold is priced under an adjacency that no pair is known for",
        (
            Patch(
                "dpacc_accounting.pricing.certified_bounds",
                "    require_adjacency(event=event, adjacency=adjacency)\n    if not resolved(",
                "    if not resolved(",
            ),
        ),
        (f"{HERE}/pld/test_event_extremes.py::test_adjacency_is_refused_at_any_noise[0.001]",),
    ),
)
