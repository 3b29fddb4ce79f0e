"""A private step with Triton's kernels is the step without them, up to rounding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dpacc.errors import ConfigurationError
from dpacc.layers.kernels import choice
from dpacc.step.strategies import Ghost, Materialize, Strategy
from tests.dpacc.layers.kernels.devices import DEVICE
from tests.dpacc.step.engine_runs import noiseless, plan_for, prepared
from tests.dpacc.step.test_strategies import sums
from tests.tiny_models import examples

on_a_processor = pytest.mark.skipif(DEVICE.type == "cuda", reason="test_gpu.py has it")


@pytest.fixture(autouse=True)
def torch_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_chosen", "torch")


@on_a_processor
@pytest.mark.parametrize("strategy", [Materialize, Ghost])
def test_the_clipped_sum_is_torchs(strategy: type[Strategy]) -> None:
    """Through the head's losses and every layer's gradients, by either strategy."""
    data, plan = examples([5, 3]), noiseless(2, max_grad_norm=0.05)
    wanted = sums(strategy, "llama", plan, data)
    choice._chosen = "triton"
    torch.testing.assert_close(sums(strategy, "llama", plan, data), wanted, rtol=1e-5, atol=1e-8)


def test_an_engine_takes_its_kernels_and_refuses_them_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is placed or charged; whoever comes next without them has torch's."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ConfigurationError, match="needs a GPU"):
        prepared(plan_for(8), tmp_path / "ledger", kernels="triton")
    assert not (tmp_path / "ledger").exists()
