"""Two gloo ranks release what one process would release, and fail together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from dpacc_accounting import read_ledger

from tests.dpacc.layers.test_frozen_activations import trained
from tests.dpacc.step.two_rank_program import (
    SCENARIOS,
    dropping_out,
    perplexity,
    preference_pairs,
    run_scenarios,
    users,
    within_subspace,
)
from tests.ranks import filled_once, require_success, run_ranks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of one two-rank run of the program."""

    def fill(folder: Path) -> None:
        require_success(run_ranks("tests.dpacc.step.two_rank_program", folder, ranks=1))

    return filled_once(tmp_path_factory, "two ranks", fill)


@pytest.fixture(scope="module")
def seen(folder: Path) -> list[dict[str, Any]]:
    """What each rank saw."""
    return [torch.load(folder / f"rank-{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """What one process releases in each scenario."""

    def fill(folder: Path) -> None:
        torch.save(run_scenarios(folder), folder / "sums.pt")

    sums: dict[str, torch.Tensor] = torch.load(
        filled_once(tmp_path_factory, "one rank", fill) / "sums.pt"
    )
    return sums


@pytest.mark.parametrize("scenario", list(SCENARIOS))
def test_the_noised_sum_does_not_depend_on_the_number_of_ranks(
    scenario: str, seen: list[dict[str, Any]], alone: dict[str, torch.Tensor]
) -> None:
    """Ragged shares, empty draws, one example for two ranks: equal to fp32 rounding."""
    assert torch.equal(seen[0]["sums"][scenario], seen[1]["sums"][scenario])
    torch.testing.assert_close(seen[0]["sums"][scenario], alone[scenario], rtol=1e-4, atol=1e-6)


def test_users_are_clipped_whole_on_whichever_rank_they_are(
    seen: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Users of one to four examples, drawn and shared out as such: equal to fp32 rounding."""
    assert torch.equal(seen[0]["users"], seen[1]["users"])
    torch.testing.assert_close(seen[0]["users"], users(tmp_path), rtol=1e-4, atol=1e-6)


def test_an_example_drops_the_same_on_whichever_rank_it_is(
    seen: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Dropout before adapters and in attention: equal to fp32 rounding."""
    assert torch.equal(seen[0]["dropout"], seen[1]["dropout"])
    torch.testing.assert_close(seen[0]["dropout"], dropping_out(tmp_path), rtol=1e-4, atol=1e-6)


def test_compiled_ranks_release_what_one_uncompiled_process_does(
    seen: list[dict[str, Any]], alone: dict[str, torch.Tensor]
) -> None:
    """Bit for bit one another's sums, and that process's to fp32 rounding."""
    assert torch.equal(seen[0]["compiled"], seen[1]["compiled"])
    torch.testing.assert_close(seen[0]["compiled"], alone["ragged"], rtol=1e-4, atol=1e-6)


def test_a_pair_of_answers_is_one_example_on_whichever_rank_it_is(
    seen: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Two ranks, or one, and whatever the cut: equal to fp32 rounding, with dropout too."""
    assert torch.equal(seen[0]["pairs"], seen[1]["pairs"])
    for tokens in (40, 1):
        alone = preference_pairs(tmp_path, micro_batch_tokens=tokens)
        torch.testing.assert_close(seen[0]["pairs"], alone, rtol=1e-4, atol=1e-6)


def test_ranks_go_on_in_one_subspace(seen: list[dict[str, Any]], tmp_path: Path) -> None:
    """The same directions on both: to fp32 rounding one process's, to bf16's on that wire."""
    alone = within_subspace(tmp_path)
    for name, close in (("subspace", 1e-3), ("subspace, 16 bits", 3e-2)):
        assert torch.equal(seen[0][name], seen[1][name])
        apart = (seen[0][name] - alone).norm(dim=1) / alone.norm(dim=1)
        assert (apart < close).all()


def test_ranks_share_a_fresh_secret(
    seen: list[dict[str, Any]], alone: dict[str, torch.Tensor]
) -> None:
    """Without a fixed seed both ranks still draw one sample and one noise, of their own run."""
    assert torch.equal(seen[0]["fresh secret"], seen[1]["fresh secret"])
    assert not torch.allclose(seen[0]["fresh secret"], alone["ragged"])


def test_ranks_with_unequal_memory_cut_alike(
    seen: list[dict[str, Any]], alone: dict[str, torch.Tensor]
) -> None:
    """How many gradients fit is decided once: else examples would be lost or counted twice."""
    for rank in seen:
        torch.testing.assert_close(
            rank["sums"]["uneven memory"], alone["ragged"], rtol=1e-4, atol=1e-6
        )


def test_ranks_share_the_activations_of_frozen_layers(
    seen: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Each rank computes half of them, both use all; the adapters are those of one full run."""
    alone, _ = trained(tmp_path, cached=False)
    assert torch.equal(seen[0]["cached"], seen[1]["cached"])
    torch.testing.assert_close(seen[0]["cached"], alone, rtol=1e-4, atol=1e-6)


def test_a_plain_loop_on_two_ranks_gets_what_one_rank_gets(
    seen: list[dict[str, Any]], alone: dict[str, torch.Tensor]
) -> None:
    """Also where nobody was drawn, or for one rank only: every rank's loop updates as often."""
    assert torch.equal(seen[0]["plain loop"], seen[1]["plain loop"])
    torch.testing.assert_close(seen[0]["plain loop"], alone["empty draws"], rtol=1e-4, atol=1e-6)


def test_the_trainer_on_two_ranks_gets_what_one_rank_gets(
    seen: list[dict[str, Any]], alone: dict[str, torch.Tensor]
) -> None:
    """Also when it was stopped and resumed."""
    assert torch.equal(seen[0]["trainer"], seen[1]["trainer"])
    torch.testing.assert_close(seen[0]["trainer"], alone["ragged"], rtol=1e-4, atol=1e-6)


def test_ranks_measure_what_one_rank_measures(seen: list[dict[str, Any]]) -> None:
    """The perplexity of held-out examples, each rank's share of micro-batches added up."""
    assert seen[0]["perplexity"] == seen[1]["perplexity"]
    assert seen[0]["perplexity"] == pytest.approx(perplexity(), rel=1e-5)


def test_only_the_first_rank_writes_the_ledger(folder: Path, seen: list[dict[str, Any]]) -> None:
    """Two ranks charge each step once."""
    assert seen
    for name, (_, plan) in SCENARIOS.items():
        assert len(read_ledger(path=folder / f"{name}.jsonl").releases) == plan.steps


def test_ranks_that_disagree_on_the_plan_all_stop(seen: list[dict[str, Any]]) -> None:
    """Both ranks name what differs, before the first step."""
    for rank in seen:
        assert "ranks disagree on the privacy plan" in rank["disagreement"]


def test_a_failed_charge_stops_every_rank(seen: list[dict[str, Any]]) -> None:
    """When rank 0 cannot write the ledger, no rank updates."""
    assert seen[0]["failed charge"] == "OSError: disk full; updates: 0"
    assert "the main process stopped: OSError: disk full; updates: 0" in seen[1]["failed charge"]
