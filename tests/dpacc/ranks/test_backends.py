"""Every backend gives the optimizer the same private gradient, and never sees another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.dpacc.artifacts.test_written_files import unknown_files
from tests.dpacc.ranks.backend_program import ALONE, BACKENDS, CUTTING, SCENARIOS, Scenario, train
from tests.ranks import filled_once, require_success, run_ranks

EVERY = [(backend, scenario) for backend in BACKENDS for scenario in SCENARIOS]
NAMES = [f"{backend} {scenario.name}" for backend, scenario in EVERY]
Seen = list[dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of one run of the program."""

    def fill(folder: Path) -> None:
        require_success(run_ranks("tests.dpacc.ranks.backend_program", folder, ranks=1))

    return filled_once(tmp_path_factory, "backends", fill)


@pytest.fixture(scope="module")
def seen(folder: Path) -> Seen:
    """What each of two ranks saw."""
    return [torch.load(folder / f"rank-{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The adapters that one process trains under each scenario."""

    def fill(folder: Path) -> None:
        trained = {
            s.name: train("plain", s, folder / f"{s.name}.jsonl")["adapters"] for s in SCENARIOS
        }
        torch.save(trained, folder / "trained.pt")

    trained: dict[str, torch.Tensor] = torch.load(
        filled_once(tmp_path_factory, "alone", fill) / "trained.pt"
    )
    return trained


@pytest.mark.parametrize(("backend", "scenario"), EVERY, ids=NAMES)
def test_the_update_does_not_depend_on_the_backend(
    backend: str, scenario: Scenario, seen: Seen, alone: dict[str, torch.Tensor]
) -> None:
    """Two ranks under any backend train the adapters that one process trains, but for rounding.

    With SGD at learning rate 1 the adapters are the start minus the sum of what the optimizer got.
    """
    results = [rank[backend][scenario.name] for rank in seen]
    assert torch.equal(results[0]["adapters"], results[1]["adapters"])
    # 16-bit products round differently with how weights lie in memory, which ZeRO-3 changes; a
    # 16-bit wire rounds what differs by less than its last digit to neighbours.
    rtol, atol = (2e-2, 2e-4) if scenario.base == "bf16" else (1e-4, 1e-6)
    if scenario.optimizer == "adamw":  # it divides by the gradient's size, however small
        atol = 1e-5
    torch.testing.assert_close(results[0]["adapters"], alone[scenario.name], rtol=rtol, atol=atol)


def test_one_rank_that_cuts_its_base_trains_as_one_that_does_not(
    folder: Path, alone: dict[str, torch.Tensor]
) -> None:
    """ZeRO-3 and FSDP2 on a single rank: the same adapters, but for rounding."""
    seen = torch.load(folder / "alone.pt")
    for backend in CUTTING:
        for scenario in ALONE:
            outcome = seen[backend][scenario.name]
            expected = alone[scenario.name]
            torch.testing.assert_close(outcome["adapters"], expected, rtol=1e-4, atol=1e-6)
            assert outcome["still"] == outcome["base changed"] == []


@pytest.mark.usefixtures("seen")
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_checkpoint_keeps_is_its_owners(backend: str, folder: Path) -> None:
    """The files that every run keeps, a part of each rank's beside them where ZeRO cuts what
    AdamW holds, and nothing that others may read."""
    kept = folder / f"{backend} {SCENARIOS[1].name}.checkpoints"
    assert unknown_files(kept) == []
    parts = {path.name for path in kept.rglob("rank-*")}
    cut = {f"rank-0000{rank}.safetensors" for rank in range(2)}
    assert parts == (cut if backend.startswith("zero") else set())
    files = [path for path in kept.rglob("*") if path.is_file()]
    assert len(files) >= 3
    assert all(
        path.stat().st_mode & 0o077 == path.parent.stat().st_mode & 0o077 == 0 for path in files
    )


@pytest.mark.parametrize(("backend", "scenario"), EVERY, ids=NAMES)
def test_every_adapter_moves_and_the_base_stays(
    backend: str, scenario: Scenario, seen: Seen
) -> None:
    """No adapter is as it was; every frozen parameter, packed 4-bit ones too, is bit-identical."""
    for rank in seen:
        assert rank[backend][scenario.name]["still"] == []
        assert rank[backend][scenario.name]["base changed"] == []


@pytest.mark.parametrize(("backend", "scenario"), EVERY, ids=NAMES)
def test_a_step_reduces_once(backend: str, scenario: Scenario, seen: Seen) -> None:
    """One reduction of adapter size a logical step, however many micro-batches it has."""
    results = [rank[backend][scenario.name] for rank in seen]
    assert results[0]["micro-batches"] == results[1]["micro-batches"]
    assert max(results[0]["micro-batches"]) > 1
    assert [result["reductions"] for result in results] == [[1] * scenario.steps] * 2


def test_empty_draws_are_stepped_through_under_every_backend(seen: Seen) -> None:
    """The scenario does contain steps in which no rank has a micro-batch."""
    (empty,) = [s.name for s in SCENARIOS if s.empty_draws]
    for backend in BACKENDS:
        assert seen[0][backend][empty]["micro-batches"][1::2] == [0, 0]


@pytest.mark.parametrize("backend", CUTTING)
def test_each_rank_holds_its_share_of_the_base(backend: str, seen: Seen) -> None:
    """Before training and after every backward, two ranks hold half the frozen elements each."""
    for scenario in SCENARIOS:
        whole = seen[0]["plain"][scenario.name]["base elements held"]
        held = [rank[backend][scenario.name]["base elements held"] for rank in seen]
        assert max(held) < 0.51 * whole


@pytest.mark.parametrize("backend", ["zero2", "zero3"])
def test_no_raw_gradient_reaches_deepspeed(backend: str, seen: Seen) -> None:
    """A weight used outside its layer is refused by name, and DeepSpeed has seen no gradient."""
    for rank in seen:
        found = rank["leaks"][backend]
        assert "an unclipped gradient reached" in found["error"]
        assert found["layer"] in found["error"]
        assert found["seen"] == 0


@pytest.mark.parametrize("backend", ["zero2", "zero3"])
def test_deepspeeds_optimizer_keeps_the_parameters_it_had(backend: str, seen: Seen) -> None:
    """DeepSpeed's partitions stand for the adapters; another parameter beside them is refused."""
    for rank in seen:
        assert "changed after prepare()" in rank["leaks"][backend]["tampering"]
