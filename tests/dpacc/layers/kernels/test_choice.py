"""Triton's kernels are used where they were asked for, can run, and agree with torch."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from dpacc.errors import ConfigurationError, PrivacyError
from dpacc.layers.kernels import agreement, choice
from dpacc.layers.kernels.choice import choose, fused_on
from tests.dpacc.layers.kernels.devices import DEVICE

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def torch_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_chosen", "torch")


def test_nothing_is_fused_unless_it_is_asked_for() -> None:
    """Torch is the default, and what an engine chooses next holds for the whole process."""
    assert not fused_on(DEVICE)
    choose("triton", on=DEVICE)
    assert fused_on(DEVICE)
    choose("torch", on=DEVICE)
    assert not fused_on(DEVICE)


def test_a_processor_and_a_machine_without_triton_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside the interpreter Triton needs a GPU; a choice that failed leaves torch chosen."""
    with pytest.raises(ConfigurationError, match="one of torch, triton"):
        choose("cuda", on=CPU)  # type: ignore[arg-type]
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    choice._chosen = "triton"
    with pytest.raises(ConfigurationError, match="this run is on cpu"):
        choose("triton", on=CPU)
    assert not fused_on(torch.device("cuda"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="builds for CUDA"):
        choose("triton", on=torch.device("cuda"))


def test_every_kernel_agrees_with_torch() -> None:
    """The check that a GPU's run begins with passes, at shapes that fill no block."""
    agreement.require_agreement(DEVICE)


@pytest.mark.parametrize("name", agreement.CHECKS)
def test_a_kernel_that_differs_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name, before the first step, and torch's are left chosen."""
    wrong = {each: lambda *_, each=each: each != name for each in agreement.CHECKS}
    monkeypatch.setattr(agreement, "CHECKS", wrong)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(PrivacyError, match=f"kernel of {name} does not give on this cuda"):
        choose("triton", on=torch.device("cuda"))
    assert not fused_on(torch.device("cuda"))
