"""Bugs of ranks that change from step to step."""

from __future__ import annotations

from tests.mutants.bug import Bug, Patch
from tests.mutants.checks import DPACC

_TESTS = f"{DPACC}/layers/test_dynamic_rank.py"
_ROUNDS = f"{DPACC}/federated/ranks/test_round_ranks.py"
_SUMS = f"{DPACC}/federated/ranks/test_round_ranks_of_sums.py"

DYNAMIC_RANK_BUGS = [
    Bug(
        "silent rows without noise",
        "what a step does not train has a gradient, and what it gets of it has no noise",
        (
            Patch("dpacc.layers.dynamic_rank", "rest.zero_()", "pass"),
            Patch("dpacc.layers.dynamic_rank", "self._buffer.learning = learning", "pass"),
            Patch(
                "dpacc.step.release",
                "if bool(clipped[: self._width][rest].any()):",
                "if False:",
            ),
            Patch(
                "dpacc.step.release",
                "return torch.where(self._dynamic_rank.learns(index).to(gradient.device), "
                "gradient, 0.0)",
                "return gradient",
            ),
        ),
        (
            f"{_TESTS}::test_a_gradient_beyond_the_rank_is_never_released",
            f"{_TESTS}::test_noise_falls_on_what_learns_alone",
        ),
    ),
    Bug(
        "clipped by the rows that learn alone",
        "rows beyond the rank are added with what they hold, and no norm counts them",
        (
            Patch(
                "dpacc.layers.gradient_buffer",
                "gradient = torch.where(self.learning[slot], gradient.view(-1, *slot.shape), 0.0)",
                "pass",
            ),
            Patch("dpacc.layers.dynamic_rank", "rest.zero_()", "pass"),
            Patch(
                "dpacc.step.release",
                "if bool(clipped[: self._width][rest].any()):",
                "if False:",
            ),
        ),
        (
            f"{_TESTS}::test_a_step_has_the_gradients_of_the_adapter_cut_to_its_rank",
            f"{_TESTS}::test_a_gradient_beyond_the_rank_is_never_released",
        ),
    ),
    Bug(
        "rows beyond the round's rank",
        "of rows that do not learn in a federation's round, what optimizer and noise make of them "
        "crosses, and moves the shared adapter",
        (
            Patch(
                "dpacc.federated.ranks.round_ranks",
                "return () if axis is None else (slice(None),) * axis + (slice(self.rank),)",
                "return ()",
            ),
        ),
        (
            f"{_ROUNDS}::test_beyond_a_rounds_rank_nothing_moves",
            f"{_SUMS}::test_beyond_a_rounds_rank_no_sum_moves_anything",
        ),
    ),
    Bug(
        "noise beyond the round's rank",
        "a server's noise stays on rows that did not learn, and drowns what they hold",
        (
            Patch(
                "dpacc.federated.server.strategy",
                "return FirstRanks(rank=self._round_rank, whole=self.arrays).kept(arrays)",
                "return arrays",
            ),
        ),
        (f"{_SUMS}::test_beyond_a_rounds_rank_no_sum_moves_anything",),
    ),
    Bug(
        "whatever rank a server names",
        "a server gives each client a rank of its own, and none of them notices",
        (
            Patch("dpacc.federated.ranks.round_ranks", "if said != drawn:", "if False:"),
            Patch("dpacc.federated.ranks.round_ranks", "return drawn", "return said"),
        ),
        (f"{_ROUNDS}::test_whoever_draws_another_rank_is_refused_before_any_charge",),
    ),
    Bug(
        "a rank a step within the round",
        "a client's steps have ranks of their own, so that what it sends was not trained as agreed",
        (
            Patch(
                "dpacc.federated.clients.local_training",
                "(lambda _: self._round_rank)",
                "config.seed",
            ),
        ),
        (f"{_ROUNDS}::test_all_clients_train_at_the_rounds_rank",),
    ),
]
