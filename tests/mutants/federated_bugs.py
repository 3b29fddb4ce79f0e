"""Mistakes that the clients and the server of a federation could make."""
# ruff: noqa: E501 - excerpts of source stay on their lines

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

_SERVER = f"{DPACC}/federated/server/test_federated_server.py"
_CENTRAL = f"{DPACC}/federated/aggregation/test_central_noise.py"
_CLIENT_LEVEL = f"{DPACC}/federated/aggregation/test_client_level.py"
_LEARNS = f"{DPACC}/federated/test_what_a_server_learns.py"
_BUDGETS = f"{DPACC}/federated/test_budgets.py"

FEDERATED_BUGS = (
    Bug(
        "client sends without a charge",
        "a client's update leaves although its ledger could not be written",
        (
            Patch(
                "dpacc.federated.clients.local_training",
                '            cast("Generator[LogicalStep]", self._steps).close()\n            self._steps = None\n            raise\n',
                "            taken += 1\n",
            ),
        ),
        (f"{_SERVER}::test_nothing_leaves_a_client_whose_ledger_cannot_be_written",),
    ),
    Bug(
        "client opens new books",
        "a client that restarts forgets what it has spent",
        (
            Patch(
                "dpacc.federated.clients.local_training",
                "ledger=books",
                'ledger=folder / f"ledger-{id(self)}.jsonl"',
            ),
        ),
        (f"{_SERVER}::test_a_client_that_restarts_goes_on_where_its_ledger_stands",),
    ),
    Bug(
        "replayed round trained again",
        "a request that was answered already is answered with a second update, from fresh draws",
        (
            Patch(
                "dpacc.federated.clients.private_client",
                "update = self._last.find(lambda kept: kept == request)",
                "update = None",
            ),
        ),
        (f"{_SERVER}::test_a_server_that_restarts_goes_on_with_the_same_run",),
    ),
    Bug(
        "client's error quotes its data",
        "the text of an error that private records have shaped goes to the server",
        (
            Patch(
                "dpacc.federated.requests",
                '_LOG.exception("client %s could not answer", client)\n        return refusal(COULD_NOT, message)',
                "return refusal(str(__import__('sys').exc_info()[1]), message)",
            ),
        ),
        (f"{_LEARNS}::test_a_record_that_spoils_later_says_no_more",),
    ),
    Bug(
        "client reports on its data",
        "a number computed from private texts, without noise, stands beside the books",
        (
            Patch(
                "dpacc.federated.clients.private_client",
                '"steps-taken": update.steps,',
                '"steps-taken": update.steps,\n                "tokens": sum(len(str(each)) for each in training._examples),',
            ),
        ),
        (f"{_SERVER}::test_a_client_tells_what_its_ledger_holds_and_nothing_else",),
    ),
    Bug(
        "budget of another client",
        "every client gets the budget of the level that spends most",
        (
            Patch(
                "dpacc.federated.budgets",
                "        entry = levels[entry]\n",
                '        entry = max(levels.values(), key=lambda level: level["epsilon"])\n',
            ),
        ),
        (f"{_BUDGETS}::test_levels_defaults_and_own_settings_are_told_apart",),
    ),
    Bug(
        "client's noise for twice its budget",
        "a client's noise is sized for 2ε",
        (
            Patch(
                "dpacc.federated.clients.local_training",
                "target_epsilon=config.epsilon",
                "target_epsilon=2 * config.epsilon",
            ),
        ),
        (f"{_BUDGETS}::test_each_clients_noise_keeps_its_own_budget_in_its_own_ledger",),
    ),
    Bug(
        "any promise taken",
        "the server averages updates of clients that spend more than it promises",
        (
            Patch(
                "dpacc.federated.settings",
                "delta != self.delta or epsilon > self.epsilon",
                "delta != self.delta",
            ),
        ),
        (f"{_SERVER}::test_a_promise_that_a_client_does_not_keep_is_refused",),
    ),
    Bug(
        "updates without noise to any server",
        "a client that adds no noise answers a server that adds none either",
        (
            Patch(
                "dpacc.federated.clients.trusting_client",
                'if asked.get("privacy") != "client":',
                "if False:",
            ),
        ),
        (f"{_CLIENT_LEVEL}::test_the_two_modes_are_never_mixed",),
    ),
    Bug(
        "client not clipped",
        "one client's update may be as long as it likes",
        (
            Patch(
                "dpacc.federated.aggregation.central_noise",
                "moved *= min(1 / self._most, 1 / length)",
                "moved *= 1 / self._most",
            ),
        ),
        (
            f"{_CENTRAL}::test_no_client_moves_the_release_by_more_than_its_share",
            f"{_CENTRAL}::test_the_release_is_the_clipped_sum_over_a_fixed_number",
        ),
    ),
    Bug(
        "central noise divided by clients",
        "the noise is added to the mean as if it were for the sum divided once more",
        (
            Patch(
                "dpacc.federated.aggregation.central_noise",
                "self._privacy.clipping_norm * noise\n",
                "self._privacy.clipping_norm * noise / self._denominator\n",
            ),
        ),
        (f"{_CENTRAL}::test_the_noise_is_gaussian_of_the_promised_size",),
    ),
    Bug(
        "central noise repeated",
        "every round draws the same noise",
        (
            Patch(
                "dpacc.federated.aggregation.central_noise",
                "self._noise.row(step=step, count",
                "self._noise.row(step=0, count",
            ),
        ),
        (f"{_CENTRAL}::test_the_noise_is_gaussian_of_the_promised_size",),
    ),
    Bug(
        "mean of those who came",
        "the clipped sum is divided by how many took part, which is private",
        (
            Patch(
                "dpacc.federated.aggregation.central_noise",
                "before + noised / self._denominator",
                "before + noised / max(updates, 1)",
            ),
        ),
        (f"{_CENTRAL}::test_the_release_is_the_clipped_sum_over_a_fixed_number",),
    ),
    Bug(
        "empty round without noise",
        "a round that nobody joined leaves the adapter as it is",
        (
            Patch(
                "dpacc.federated.server.strategy",
                "due = bool(survivors) or self._budget is None",
                "due = bool(survivors)",
            ),
        ),
        (f"{_CENTRAL}::test_a_round_that_nobody_joined_looks_like_any_other",),
    ),
    Bug(
        "rounds amplified twice",
        "the server charges the square of the rate at which it draws",
        (
            Patch(
                "dpacc.federated.aggregation.client_level",
                "PoissonSampled(probability=sampling_rate, event=noise)",
                "PoissonSampled(probability=sampling_rate**2, event=noise)",
            ),
        ),
        (f"{_CENTRAL}::test_each_round_is_charged_before_it_is_released",),
    ),
)
