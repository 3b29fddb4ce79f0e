"""Ranks agree before the first step; when one is gone the others stop, and the books are true."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from dpacc_accounting import read_ledger

from dpacc.fingerprints import code_fingerprint, data_fingerprint
from dpacc.ranks import idle_cores
from tests.dpacc.failing_ranks_program import FAILS_AT, GONE, PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]


def start_ranks(folder: Path, how: str) -> list[subprocess.Popen[str]]:
    """Two ranks without a launcher that would stop one for the other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.dpacc.failing_ranks_program", str(folder), how],
            cwd=ROOT,
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def stop_all(ranks: Sequence[subprocess.Popen[str]]) -> None:
    for rank in ranks:
        rank.kill()
        rank.wait(timeout=20)


@pytest.mark.parametrize("how", list(GONE))
def test_a_rank_that_is_gone_stops_the_other(how: str, tmp_path: Path) -> None:
    """After SIGKILL at once, after SIGSTOP in the time given; what was charged stays charged."""
    ranks = start_ranks(tmp_path, how)
    survivor = ranks[1 - GONE[how][0]]
    try:
        while not (tmp_path / "gone").exists():
            assert survivor.poll() is None, survivor.communicate()[1]
            time.sleep(0.05)
        gone = time.monotonic()
        _, said = survivor.communicate(timeout=120)
        took = time.monotonic() - gone
    finally:
        stop_all(ranks)
    assert survivor.returncode == 2
    assert "another rank died or did not answer in time" in said
    assert took < PATIENCE_SECONDS + 30
    assert how != "stopped" or took > PATIENCE_SECONDS - 1
    record = read_ledger(path=tmp_path / "ledger.jsonl")
    charged = FAILS_AT + (how == "killed after its charge")
    assert [release.step for release in record.releases] == list(range(charged))


def test_ranks_that_disagree_stop_before_the_first_step(tmp_path: Path) -> None:
    """Another length, order or code: both ranks are told what differs, and no ledger is begun."""
    ranks = start_ranks(tmp_path, "disagree")
    try:
        for rank in ranks:
            _, said = rank.communicate(timeout=120)
            assert rank.returncode == 0, said
    finally:
        stop_all(ranks)
    told = [torch.load(tmp_path / f"rank-{rank}.pt") for rank in range(2)]
    assert told[0] == told[1]
    assert "ranks disagree on the number of examples: 10, 9" in told[0]["length"]
    assert "ranks disagree on the training data or its order;" in told[0]["order"]
    assert "ranks disagree on the source code of dpacc;" in told[0]["code"]
    assert list(tmp_path.glob("*.jsonl")) == []


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
