"""Bugs of rounds whose noise is correlated and whose participants must wait."""

from __future__ import annotations

from tests.mutants.bug import Bug, Patch
from tests.mutants.checks import DPACC

_EVENT = "tests/accounting/events/test_separated_participation.py"
_BUFFERS = "tests/accounting/factorization/test_buffered.py"
_NOISE = f"{DPACC}/randomness/test_buffered_noise.py"
_TURNS = f"{DPACC}/federated/aggregation/test_turns.py"
_ROUNDS = f"{DPACC}/federated/aggregation/test_correlated_rounds.py"
_CENTRAL = "dpacc.federated.aggregation.central_noise"
_WHO = "dpacc.federated.aggregation.turns"
_EVENTS = "dpacc_accounting.events.separated_participation"

SEPARATION_BUGS = [
    Bug(
        "asked again too early",
        "a client's turn comes one round before its columns of C have left those of its last one",
        (
            Patch(
                _WHO,
                "return self._round - last >= self._separation",
                "return self._round - last >= self._separation - 1",
            ),
            Patch(
                _WHO,
                "last is not None and self._round - last < self._separation",
                "last is not None and self._round - last < self._separation - 1",
            ),
        ),
        (
            f"{_TURNS}::test_turns_are_spread_and_come_once_in_b_rounds",
            f"{_ROUNDS}::test_a_federation_asks_each_client_every_b_rounds_across_a_restart",
        ),
    ),
    Bug(
        "another key, no wait",
        "only the node is known again, so that a client with a new key is in a round too soon",
        (
            Patch(
                _WHO,
                "[_of_node(node)] if name is None else [_of_node(node), _of_name(name)]",
                "[_of_node(node)]",
            ),
        ),
        (f"{_TURNS}::test_by_a_list_a_name_is_one_nodes",),
    ),
    Bug(
        "another's name, its turn",
        "whoever says another's name is in a round only if that one is not, which moves it by 2C",
        (
            Patch(
                _WHO,
                "if any(node == other for other, _ in self._joining):",
                "if any(node == other or name == called for other, called in self._joining):",
            ),
        ),
        (f"{_TURNS}::test_a_name_that_is_anothers_moves_nobodys_turn",),
    ),
    Bug(
        "a listed node's word",
        "a node that is on the server's list takes part under whatever name it gives",
        (
            Patch(
                "dpacc.federated.aggregation.listed_clients",
                "if said != name:",
                "if not said:",
            ),
        ),
        (
            f"{_TURNS}::test_by_a_list_a_name_is_one_nodes",
            f"{_ROUNDS}::test_who_says_anothers_name_is_left_out_by_the_list",
        ),
    ),
    Bug(
        "a restart forgets names",
        "a node that took part is somebody else after a restart, by a list or by its own word",
        (
            Patch(
                _WHO,
                "        self._names |= dict(zip(nodes, names, strict=True))\n",
                "",
            ),
        ),
        (
            f"{_TURNS}::test_a_list_that_contradicts_who_took_part_is_refused",
            f"{_TURNS}::test_a_node_takes_part_once_in_b_rounds_and_keeps_its_name",
        ),
    ),
    Bug(
        "restart forgets who took part",
        "a restarted server begins with nobody having to wait",
        (Patch(_WHO, "self._note(number, nodes, names)\n        missing", "missing"),),
        (
            f"{_TURNS}::test_a_restart_remembers",
            f"{_ROUNDS}::test_a_federation_asks_each_client_every_b_rounds_across_a_restart",
        ),
    ),
    Bug(
        "an older list of participants",
        "a list that lacks rounds of the ledger is taken for whole",
        (
            Patch(
                _WHO,
                "if missing or max(covered, default=0) > charged:",
                "if missing and not covered:",
            ),
        ),
        (f"{_TURNS}::test_what_does_not_belong_to_the_ledger_is_refused",),
    ),
    Bug(
        "participants written after the charge",
        "a server that dies in between charges a round whose participants it does not know",
        (
            Patch(
                _CENTRAL,
                "        if self.turns is not None:\n"
                "            self.turns.keep(number=step, updates=updates)\n"
                "        event = self._privacy.event(after=step, "
                "sampling_rate=self._sampling_rate)\n"
                "        self._ledger.charge(step=step, event=event)\n",
                "        event = self._privacy.event(after=step, "
                "sampling_rate=self._sampling_rate)\n"
                "        self._ledger.charge(step=step, event=event)\n"
                "        if self.turns is not None:\n"
                "            self.turns.keep(number=step, updates=updates)\n",
            ),
        ),
        (f"{_ROUNDS}::test_participants_are_on_the_disk_before_the_charge",),
    ),
    Bug(
        "one turn charged",
        "a client that is in every b-th round is charged as if it were in one",
        (
            Patch(
                _EVENTS,
                "return fit if self.participations is None else min(fit, self.participations)",
                "return 1 if self.participations is None else min(fit, self.participations)",
            ),
        ),
        (
            f"{_EVENT}::test_no_pattern_moves_the_release_by_more_than_is_charged",
            f"{_ROUNDS}::test_after_every_round_the_books_hold_what_was_released",
        ),
    ),
    Bug(
        "buffers charged as bands",
        "turns whose columns overlap are charged as if they did not",
        (
            Patch(
                _EVENTS,
                "math.fsum(self._row(t) ** 2 for t in rows)",
                "math.fsum(c**2 for t in rows for c in self._ages(t))",
            ),
            Patch(
                _EVENTS,
                "    def _row(self, t: int) -> float:",
                "    def _ages(self, t: int) -> list[float]:\n"
                "        ages = [t - j * self.separation for j in range(self.turns)]\n"
                "        pairs = [*zip(self.weights, self.decays, strict=True)]\n"
                "        return [\n"
                "            (self.coefficients[age] if age < len(self.coefficients) else 0.0)\n"
                "            + sum(w * d ** (age - 1) for w, d in pairs if age)\n"
                "            for age in ages\n"
                "            if age >= 0\n"
                "        ]\n\n"
                "    def _row(self, t: int) -> float:",
            ),
        ),
        (
            f"{_EVENT}::test_no_pattern_moves_the_release_by_more_than_is_charged",
            f"{_ROUNDS}::test_a_client_moves_the_rounds_by_what_was_charged",
        ),
    ),
    Bug(
        "a column that increases",
        "coefficients whose worst rounds are others than 0, b, 2b … are priced by those",
        (Patch(_EVENTS, "all(later <= c for c, later in pairwise(column))", "True"),),
        (f"{_EVENT}::test_of_a_column_that_increases_nothing_is_claimed",),
    ),
    Bug(
        "noise of a C of first element 1",
        "columns are not normalised where the noise is made, which is smaller than what was priced",
        (
            Patch(
                _CENTRAL,
                "coefficients=column.coefficients)",
                "coefficients=[c / column.coefficients[0] for c in column.coefficients])",
            ),
        ),
        (f"{_ROUNDS}::test_its_noise_is_the_inverses_and_a_restart_begins_a_new_block",),
    ),
    Bug(
        "buffers that forget",
        "buffers are not filled, so that noise is independent and priced as if it were not",
        (
            Patch(
                "dpacc.randomness.buffered_noise",
                "self._decays[:, None] * self._buffers + row",
                "self._decays[:, None] * self._buffers + 0 * row",
            ),
        ),
        (
            f"{_NOISE}::test_its_covariance_is_that_of_the_inverse",
            f"{_ROUNDS}::test_its_noise_is_the_inverses_and_a_restart_begins_a_new_block",
        ),
    ),
    Bug(
        "buffers that take back twice",
        "the next round's noise is nearly cancelled, and C times it is not white",
        (
            Patch(
                "dpacc.randomness.buffered_noise",
                "drawn - self._weights @ self._buffers",
                "drawn - 2 * self._weights @ self._buffers",
            ),
        ),
        (f"{_NOISE}::test_its_covariance_is_that_of_the_inverse",),
    ),
    Bug(
        "drawn and waiting",
        "a sampling rate is accepted beside correlated noise, whose price knows of none",
        (
            Patch(
                "dpacc.federated.aggregation.client_level",
                "if sampled and privacy.correlated is not None:",
                "if False:",
            ),
        ),
        (f"{_ROUNDS}::test_a_whole_federation_and_its_restart",),
    ),
]
