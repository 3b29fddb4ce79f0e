"""Ranks agree before the first step; when one is gone the others stop, and the books are true."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from dpacc_accounting import read_ledger

from dpacc.errors import DpaccError
from dpacc.ranks.collectives import idle_cores, sum_over_ranks, telling_of_lost_ranks
from dpacc.ranks.fingerprints import code_fingerprint, data_fingerprint
from tests.dpacc.ranks.failing_ranks_program import FAILS_AT, LOSSES, Loss
from tests.ranks import filled_once, require_success, run_ranks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ranks were told that disagreed, or lost one another."""

    def fill(folder: Path) -> None:
        program = "tests.dpacc.ranks.failing_ranks_program"
        require_success(run_ranks(program, folder, ranks=1, seconds=600))

    return filled_once(tmp_path_factory, "failing ranks", fill)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize("loss", LOSSES, ids=[loss.name for loss in LOSSES])
def test_a_rank_that_is_gone_stops_the_other(loss: Loss, folder: Path) -> None:
    """After SIGKILL, and after SIGSTOP once the time given is over; what was charged stays charged.

    Also where the base is gathered in forward and backward, or DeepSpeed shares out its update.
    """
    assert read(folder / "statuses.json")[loss.name] == [2, -9][:: 1 if loss.victim else -1]
    told = read(folder / loss.name / "told.json")
    assert told["error"] == "DpaccError", told["says"]
    assert "another rank died or did not answer in time" in told["says"]
    assert "\n" not in told["says"]
    took = told["at"] - read(folder / loss.name / "gone")
    assert loss.signal != signal.SIGSTOP or took > loss.patience_seconds - 1
    record = read_ledger(path=folder / loss.name / "ledger.jsonl")
    charged = FAILS_AT + (loss.when in ("after its charge", "before its update"))
    assert [release.step for release in record.releases] == list(range(charged))


def test_an_error_of_this_ranks_own_is_not_laid_on_another() -> None:
    """Want of memory amid a gathered forward passes as it is; what torch says of NCCL does not."""
    with pytest.raises(RuntimeError, match=r"^out of memory$"), telling_of_lost_ranks():
        raise RuntimeError("out of memory")
    with pytest.raises(DpaccError, match="another rank died"), telling_of_lost_ranks():
        raise torch.distributed.DistBackendError("NCCL communicator was aborted on rank 0")


def test_ranks_that_disagree_stop_before_the_first_step(folder: Path) -> None:
    """Another length, order or code: both ranks are told what differs, and no ledger is begun."""
    told = [read(folder / f"told-{rank}.json") for rank in range(2)]
    assert told[0] == told[1]
    assert "ranks disagree on the number of examples: 10, 9" in told[0]["length"]
    assert "ranks disagree on the training data or its order;" in told[0]["order"]
    assert "ranks disagree on the source code of dpacc;" in told[0]["code"]
    assert "ranks disagree on the version of dpacc: 0.0, " in told[0]["version"]
    assert "ranks disagree on the group 0's lr: 0.1, 0.2;" in told[0]["rate"]
    assert list(folder.glob("*.jsonl")) == []


def test_the_code_fingerprint_covers_every_source_file() -> None:
    """It is that of a copy of nothing else: the same twice, and 64 hexadecimal digits."""
    assert code_fingerprint() == code_fingerprint()
    assert len(code_fingerprint()) == 64


@pytest.mark.parametrize(
    "other",
    [
        [{"input_ids": [1, 2]}, {"input_ids": [3, 5]}],
        [{"input_ids": [1, 2]}, {"labels": [3, 4]}],
        [{"input_ids": [3, 4]}, {"input_ids": [1, 2]}],
        [{"input_ids": torch.tensor([1, 2])}, {"input_ids": torch.tensor([4, 3])}],
        [{"input_ids": [[1], [2, 0]]}, {"input_ids": [3, 4]}],
    ],
)
def test_the_data_fingerprint_tells_other_data(other: list[dict[str, object]]) -> None:
    """Another token, field or order is another fingerprint, and so is another owner."""
    data = [{"input_ids": [1, 2]}, {"input_ids": [3, 4]}]
    assert data_fingerprint(data) == data_fingerprint([dict(example) for example in data])
    assert data_fingerprint(data) != data_fingerprint(other)
    assert data_fingerprint(data, ["a", "b"]) != data_fingerprint(data, ["a", "a"])


def test_objects_of_unknown_kinds_do_not_make_ranks_disagree() -> None:
    """An object's text may hold its address, which differs from rank to rank."""
    assert data_fingerprint([object()]) == data_fingerprint([object()])


@pytest.mark.parametrize(
    ("device", "ranks_here", "cores"),
    [("cpu", "1", 1), ("cuda", "1", 4), ("cuda", "4", 3), ("cuda", "24", 1)],
)
def test_idle_cores_are_shared_among_a_machines_ranks(
    device: str, ranks_here: str, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve cores: the model has them on a processor, and on GPUs each rank has its share."""
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks_here)
    accelerator = SimpleNamespace(device=torch.device(device), num_processes=1)
    assert idle_cores(accelerator) == cores  # type: ignore[arg-type]


def test_a_sole_ranks_sum_is_not_copied() -> None:
    """It is as large as all that is trained, and is there already."""
    alone: Any = SimpleNamespace(num_processes=1)
    mine = torch.ones(3)
    assert sum_over_ranks(alone, mine) is mine
