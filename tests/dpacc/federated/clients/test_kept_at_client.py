"""A client whose disk is full is told so, and goes on once there is room."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from dpacc.errors import DiskRefused
from dpacc.federated.clients.last_update import LastUpdate, Update
from dpacc.federated.clients.optimizer_state import OptimizerMemory
from dpacc.federated.requests import Standstill


def full(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_no_failure_among_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AdamW's moments that cannot be written leave the file before them, and do not stop the
    client for good: that the disk is full says nothing of a record.
    """
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight])
    memory = OptimizerMemory(optimizer, tmp_path / "optimizer.safetensors")
    weight.grad = torch.ones(2)
    optimizer.step()
    memory.keep()
    before = (tmp_path / "optimizer.safetensors").read_bytes()
    optimizer.step()
    standstill = Standstill(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskRefused, match="free the disk"), standstill.among_records():
            memory.keep()
    standstill.refuse_to_go_on()
    assert (tmp_path / "optimizer.safetensors").read_bytes() == before
    memory.keep()
    assert (tmp_path / "optimizer.safetensors").read_bytes() != before


def test_an_update_is_on_the_disk_before_it_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a client sends and could not keep is not sent, lest it be made and charged twice."""
    last = LastUpdate(tmp_path)
    update = Update(arrays={"a": np.ones(2, np.float32)}, steps=3)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskRefused):
            last.keep(update, request="first")
    assert last.request == ""
    last.keep(update, request="first")
    found = last.find(lambda asked: asked == "first")
    assert found is not None
    assert found.steps == 3
    assert np.array_equal(found.arrays["a"], update.arrays["a"])


def test_moments_that_are_taken_up_hold_no_file(tmp_path: Path) -> None:
    """The next round replaces the file, which Windows refuses while anything is mapped from it."""
    weight = torch.nn.Parameter(torch.ones(50_000))
    path = tmp_path / "optimizer.safetensors"
    optimizer = torch.optim.AdamW([weight])
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    OptimizerMemory(optimizer, path).keep()
    again = torch.optim.AdamW([weight])
    OptimizerMemory(again, path).restore()
    kept, restored = optimizer.state[weight], again.state[weight]
    assert kept.keys() == restored.keys()
    assert all(torch.equal(kept[name], restored[name]) for name in kept)
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
