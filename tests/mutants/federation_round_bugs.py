"""Mistakes in what a federation's server makes of a round, and in what it keeps of it."""
# ruff: noqa: E501 - excerpts of source stay on their lines

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

_NOISE = f"{DPACC}/federated/aggregation/test_robust_noise.py"
_ROLLBACK = f"{DPACC}/federated/aggregation/test_rollback.py"
_ABSURD = "tests/accounting/federation/test_absurd_books.py"

FEDERATION_ROUND_BUGS = (
    Bug(
        "rule that noise turns",
        "a robust rule is taken where noise lets a few hostile clients steer it, and every budget is spent under it",
        (
            Patch(
                "dpacc.federated.aggregation.robust",
                "if defence.signal_to_noise < least:",
                "if False:",
            ),
        ),
        (f"{_NOISE}::test_at_a_real_epsilon_a_federation_refuses_what_noise_turns",),
    ),
    Bug(
        "rule at an unknown noise",
        "a robust rule is taken although nobody said how much of an update is noise",
        (
            Patch(
                "dpacc.federated.aggregation.robust",
                "if least is None or defence.despite_noise:",
                "if least is None or defence.despite_noise or defence.signal_to_noise is None:",
            ),
        ),
        (f"{_NOISE}::test_a_rule_is_refused_where_it_is_worse_than_none",),
    ),
    Bug(
        "round given up without its price",
        "a round that is rolled back is left out of the books, although every client's update has left it",
        (
            Patch(
                "dpacc.federated.server.strategy",
                "books=answers.books,",
                "books={} if rolled_back else answers.books,",
            ),
        ),
        (f"{_ROLLBACK}::test_rounds_that_were_all_given_up_are_no_success",),
    ),
    Bug(
        "round kept that broke the model",
        "a round that broke what the server measures is reported as given up and goes on all the same",
        (
            Patch(
                "dpacc.federated.server.strategy",
                "self.arrays = self._round_start\n",
                "pass\n",
            ),
        ),
        (f"{_ROLLBACK}::test_a_round_that_breaks_quality_is_given_up_and_paid_for",),
    ),
    Bug(
        "rounds that are gone",
        "a server whose kept rounds were cut off goes on, and forgets steps that it has seen",
        (
            Patch(
                "dpacc.artifacts.kept.appended_lines",
                'if digest.hexdigest() != mark["sha256"] or len(rows) != mark["lines"]:',
                "if False:",
            ),
        ),
        (
            "tests/dpacc/artifacts/kept/test_appended_lines.py::test_lines_that_count_and_are_not_there_are_refused",
        ),
    ),
    Bug(
        "steps seen once",
        "the server compares a client's ledger with its first round alone, so that an older copy passes",
        (
            Patch(
                "dpacc.federated.server.history",
                "most = max(self._most_steps.get(client, 0), books.steps_charged)",
                "most = self._most_steps.get(client, books.steps_charged)",
            ),
        ),
        (
            f"{DPACC}/federated/server/test_kept_state.py::test_steps_seen_are_not_counted_anew_for_every_client",
        ),
    ),
    Bug(
        "many kinds at their mean noise",
        "rounds of very many kinds are priced by the largest noise of those that are taken together",
        (
            Patch(
                "dpacc_accounting.federation.rounds",
                "noise_multiplier=parts[0].noise_multiplier,",
                "noise_multiplier=parts[-1].noise_multiplier,",
            ),
        ),
        (
            f"{_ABSURD}::test_a_client_of_very_many_kinds_of_rounds_is_priced_by_a_few_that_cost_no_less",
        ),
    ),
    Bug(
        "unpriced for nothing",
        "a client whose rounds cannot be priced is listed as one that costs nothing",
        (
            Patch(
                "dpacc_accounting.federation.guarantees",
                'none = Guarantee(epsilon=math.inf, method="pld", slack=math.inf, **stated)\n            return {name: none.noted([why]) for name in events}',
                'none = Guarantee(epsilon=0.0, method="pld", slack=0.0, **stated)\n            del why\n            return {name: none for name in events}',
            ),
        ),
        (f"{_ABSURD}::test_rounds_that_cannot_be_priced_have_no_price_and_the_others_theirs",),
    ),
)
