"""A private step with Triton's kernels is the step without them, up to rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from dpacc.errors import ConfigurationError
from dpacc.layers.kernels import choice
from dpacc.randomness.run_secret import RunSecret
from dpacc.step.release import Release
from dpacc.step.strategies import Ghost, Materialize, Strategy
from tests.dpacc.layers.kernels.devices import DEVICE
from tests.dpacc.randomness.test_device_noise import on_the_processor
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


def released(plan: Any) -> tuple[torch.Tensor, Release]:
    """What the optimizer gets of a step whose sum is zero: its noise."""
    got: list[torch.Tensor] = []

    class Backend:
        def update(self, _: Any, gradient: torch.Tensor) -> None:
            got.append(gradient)

    release = Release(
        accelerator=Accelerator(cpu=True),
        backend=cast(Any, Backend()),
        plan=plan,
        parameters=[nn.Parameter(torch.zeros(37))],
        secret=RunSecret.from_fixed_seed(5),
        charge=str,
    )
    release.begin(2)
    ahead = release._ahead
    release(2, torch.zeros(37 + (plan.clipping == "adaptive"), device="cpu"))
    assert (ahead is None) == release._drawn_on_device
    return got[0], release


@on_a_processor
@pytest.mark.parametrize(
    ("options", "moves"),
    [
        ({}, True),
        ({"clipping": "adaptive"}, True),
        ({"noise": "discrete_gaussian"}, False),
    ],
)
def test_the_noise_of_a_step_is_the_same_to_the_last_bit(
    options: dict[str, Any], moves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made where it is added, with the count's; discrete noise stays on the processor."""
    on_the_processor(monkeypatch)
    wanted, before = released(plan_for(8, **options))
    choice._chosen = "triton"
    found, after = released(plan_for(8, **options))
    assert (before._drawn_on_device, after._drawn_on_device) == (False, moves)
    assert wanted.abs().min() > 0
    assert torch.equal(found, wanted)
    assert before.bound.value == after.bound.value


def test_an_engine_takes_its_kernels_and_refuses_them_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is placed or charged; whoever comes next without them has torch's."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ConfigurationError, match="needs a GPU"):
        prepared(plan_for(8), tmp_path / "ledger", kernels="triton")
    assert not (tmp_path / "ledger").exists()
