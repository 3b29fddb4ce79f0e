"""Mistakes about mechanisms whose losses are mixed, cut off, or bounded in range."""

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.planting import Patch

HERE = "tests/accounting"
CUT = f"{HERE}/pld/test_truncation.py"
AMOUNTS = f"{HERE}/events/test_clipped_sums.py"

MECHANISM_BUGS = (
    Bug(
        "another's place counted as one's own",
        "a unit that takes another's place in a full batch moves the sum by 2C, not by C",
        (
            Patch(
                "dpacc_accounting.pld.truncation",
                "        cases.append((full, Release(min(share, 1.0), sigma / 2)))\n",
                "        cases.append((full, Release(min(share, 1.0), sigma)))\n",
            ),
        ),
        (
            f"{CUT}::test_a_batch_that_is_always_full_has_this_price",
            f"{CUT}::test_no_data_lose_more_than_the_bound[0.9-2-others0]",
        ),
    ),
    Bug(
        "full batches left out",
        "a cut sample is priced as Poisson's, as if no batch were ever full",
        (
            Patch(
                "dpacc_accounting.pld.truncation",
                "    full = float(betainc(most, size - most, q))\n",
                "    full = 0.0\n",
            ),
        ),
        (
            f"{CUT}::test_a_composition_costs_what_its_worst_data_cost_with_all_samples_listed",
            f"{CUT}::test_the_chances_are_those_of_the_binomial_law",
        ),
    ),
    Bug(
        "what one side alone puts out counted as nothing",
        "noise that ends gives some units away; their chance is δ, whatever ε",
        (
            Patch(
                "dpacc_accounting.pld.finite_losses",
                "    infinite = max(math.fsum(chances[~shared]), _LEAST_CHANCE)\n",
                "    infinite = _LEAST_CHANCE\n",
            ),
        ),
        (
            f"{HERE}/events/test_finite_mechanisms.py"
            "::test_noise_that_ends_gives_some_units_away[3-6]",
        ),
    ),
    Bug(
        "a replaced unit's amounts counted as hidden",
        "under replace-one adjacency the pair of the two mixtures need not dominate",
        (
            Patch(
                "dpacc_accounting.pld.event_losses",
                "        case MixtureOfGaussians() if adjacency is Adjacency.REPLACE_ONE:\n",
                "        case MixtureOfGaussians() if adjacency is None:\n",
            ),
        ),
        (f"{AMOUNTS}::test_a_replaced_units_draw_counts_as_seen",),
    ),
    Bug(
        "bounded range taken for half of itself",
        "a choice of range ε has Rényi divergence up to αε²/8, not of range ε/2",
        (
            Patch(
                "dpacc_accounting.renyi.divergence",
                "            return _bounded_range(width, orders)\n",
                "            return _bounded_range(width / 2, orders)\n",
            ),
        ),
        (
            f"{HERE}/renyi/test_divergence.py::test_a_bounded_range_is_worth_its_worst_choice[1.0-1.5]",
        ),
    ),
)
