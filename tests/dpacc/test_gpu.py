"""On a GPU the private step gives what it gives on the processor. Needs a GPU."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from transformers import AutoModelForCausalLM

from dpacc.errors import PrivacyError
from dpacc.randomness.device_noise import normals_on
from dpacc.randomness.gaussian_noise import standard_normals
from dpacc.randomness.run_secret import RunSecret
from dpacc.step.engine import PrivacyEngine
from dpacc.step.strategies import most_rows_that_fit
from tests.dpacc.layers.test_adapters import in_int8, quantized
from tests.dpacc.step.admission.test_trainable import int8_layer
from tests.dpacc.step.engine_runs import LENGTHS, plan_for
from tests.tiny_models import CONFIGURATIONS, collate, examples, losses_of, tiny_base, with_lora

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

FAMILIES = list(CONFIGURATIONS)
BASES = ["fp32", "bf16", "NF4", "int8"]
ROUNDING = 1e-5
"""Of adapters that three steps at learning rate 1, C = 1, have moved."""
ROUNDING_IN_16_BITS = 5e-3
"""Of the largest element, after one step: the two strategies may choose other attention kernels,
and what enters an int8 layer is rounded to 16 bits and then to eight.
"""


@pytest.fixture(autouse=True)
def devices(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let each test's Accelerator choose its device anew."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def model_for(family: str, base: str = "fp32", *, checkpointing: bool = False) -> nn.Module:
    made = tiny_base(family, hidden=64 if base == "NF4" else 32)
    if base == "bf16":
        made.bfloat16()
    if base == "NF4":
        made = quantized(made)
    if base == "int8":
        made = in_int8(made)
    if checkpointing:
        made.gradient_checkpointing_enable({"use_reentrant": False})
        made.enable_input_require_grads()
    return with_lora(made, family)


def trained(
    device: str,
    model: nn.Module,
    ledger: Path,
    *,
    family: str = "llama",
    strategy: str = "materialize",
    kernels: str = "torch",
    lengths: Sequence[int] = LENGTHS,
    micro_batch_tokens: int = 24,
    **plan: Any,
) -> torch.Tensor:
    """The adapters after the plan's noised steps of SGD under a fixed seed."""
    AcceleratorState._reset_state(reset_partial_state=True)
    data = examples(lengths, family=family)
    engine = PrivacyEngine(
        Accelerator(cpu=device == "cpu"),
        plan_for(len(data), expected_batch_size=len(data) - 2, max_grad_norm=1.0, **plan),
        ledger=ledger,
        micro_batch_tokens=micro_batch_tokens,
        per_example_gradients=strategy,  # type: ignore[arg-type]
        kernels=kernels,  # type: ignore[arg-type]
        fixed_seed=7,
    )
    adapters = [p for p in model.parameters() if p.requires_grad]
    prepared, _ = engine.prepare(model, torch.optim.SGD(adapters, lr=1.0))
    for step in engine.steps(data, collate):
        for batch in step:
            step.backward(losses_of(family)(prepared, batch))
        step.update()
    engine.close()
    assert {p.device.type for p in adapters} == {device}
    return torch.cat([p.detach().flatten().cpu() for p in adapters])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_as_on_the_processor(family: str, tmp_path: Path) -> None:
    """Sampling, clipping and noise of a seeded plan: the same adapters on both devices."""
    on_gpu, on_cpu = (
        trained(device, model_for(family), tmp_path / device, family=family)
        for device in ("cuda", "cpu")
    )
    start = torch.cat([p.flatten() for p in model_for(family).parameters() if p.requires_grad])
    assert (on_cpu - start).abs().max() > 0.1
    assert (on_gpu - on_cpu).abs().max() < ROUNDING


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("base", BASES)
def test_ghost_is_materialize_on_a_gpu(base: str, checkpointing: bool, tmp_path: Path) -> None:
    """On every base, with and without activation checkpointing."""
    one, two = (
        trained(
            "cuda",
            model_for("llama", base, checkpointing=checkpointing),
            tmp_path / strategy,
            strategy=strategy,
            steps=1,
        )
        for strategy in ("materialize", "ghost")
    )
    allowed = ROUNDING_IN_16_BITS * one.abs().max() if base in ("bf16", "int8") else ROUNDING
    assert (one - two).abs().max() < allowed


@pytest.mark.parametrize("strategy", ["materialize", "ghost"])
@pytest.mark.parametrize("base", BASES)
def test_tritons_kernels_train_as_torch_does(base: str, strategy: str, tmp_path: Path) -> None:
    """Every kernel of `dpacc.layers.kernels`, compiled, and noise that is made on the GPU."""
    one, two = (
        trained(
            "cuda",
            model_for("llama", base),
            tmp_path / kernels,
            strategy=strategy,
            kernels=kernels,
            steps=1,
        )
        for kernels in ("torch", "triton")
    )
    allowed = ROUNDING_IN_16_BITS * one.abs().max() if base in ("bf16", "int8") else ROUNDING
    assert (one - two).abs().max() < allowed


def test_noise_made_on_a_gpu_is_the_processors_bit_for_bit() -> None:
    """Five million numbers, over the edge of a chunk."""
    secret, count = RunSecret.from_fixed_seed(3), 5_000_001
    made = normals_on(torch.device("cuda"), secret=secret, step=2, count=count).cpu().numpy()
    assert (made == standard_normals(secret=secret, step=2, count=count)).all()


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("lengths", [[512] * 4, [512, 300, 500, 77]])
def test_ghost_is_materialize_with_the_attention_of_large_models(
    lengths: list[int], checkpointing: bool, tmp_path: Path
) -> None:
    """Flash attention's backward adds up in any order unless told not to; padded or not."""

    def large() -> nn.Module:
        configuration = copy.deepcopy(CONFIGURATIONS["llama"])
        configuration.hidden_size, configuration.head_dim = 512, 128
        configuration.max_position_embeddings = 1024
        torch.manual_seed(0)
        base = AutoModelForCausalLM.from_config(configuration, dtype=torch.bfloat16)
        if checkpointing:
            base.gradient_checkpointing_enable({"use_reentrant": False})
            base.enable_input_require_grads()
        return with_lora(base, "llama")

    one, two = (
        trained(
            "cuda",
            large(),
            tmp_path / strategy,
            strategy=strategy,
            lengths=lengths,
            micro_batch_tokens=4096,
            steps=1,
        )
        for strategy in ("materialize", "ghost")
    )
    assert (one - two).abs().max() < ROUNDING_IN_16_BITS * one.abs().max()


def test_an_nf4_base_trains_as_on_the_processor(tmp_path: Path) -> None:
    """bitsandbytes' CUDA kernels and its processor ones give the same private step."""
    on_gpu, on_cpu = (
        trained(device, model_for("llama", "NF4"), tmp_path / device) for device in ("cuda", "cpu")
    )
    assert (on_gpu - on_cpu).abs().max() < ROUNDING


def test_an_int8_layer_computes_each_example_by_itself_on_a_gpu() -> None:
    """Training takes the path there that would look for outliers over all examples at once."""
    layer = int8_layer(threshold=0.0).to("cuda").train()
    alone = torch.randn(1, 4, 32, device="cuda")
    loud = torch.cat([alone, 50 * alone])
    assert (layer(loud)[0] - layer(alone)[0]).abs().max() < 1e-6


@pytest.mark.parametrize("clipping", ["automatic", "per-layer", "adaptive"])
@pytest.mark.parametrize("noise", ["gaussian", "discrete_gaussian"])
def test_every_rule_and_noise_is_the_processors(clipping: str, noise: str, tmp_path: Path) -> None:
    """Integers too: the discrete sum on a GPU is the one on a processor."""
    on_gpu, on_cpu = (
        trained(device, model_for("llama"), tmp_path / device, clipping=clipping, noise=noise)
        for device in ("cuda", "cpu")
    )
    assert (on_gpu - on_cpu).abs().max() < ROUNDING


class Coupled(nn.Module):
    """A layer that hands each example a part of its neighbours."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return states + states.mean(dim=0, keepdim=True)


@pytest.mark.parametrize("base", ["fp32", "bf16"])
def test_coupled_examples_are_refused_on_a_gpu(base: str, tmp_path: Path) -> None:
    """The probe's verdict does not depend on the device."""
    model = model_for("llama", base)
    model.base_model.model.model.norm = nn.Sequential(model.base_model.model.model.norm, Coupled())
    with pytest.raises(PrivacyError, match="changed by"):
        trained("cuda", model, tmp_path / "ledger")


def test_room_for_gradients_is_read_off_the_gpu() -> None:
    """A quarter of what is free there, whatever the processor's memory is."""
    free, _ = torch.cuda.mem_get_info()
    found = most_rows_that_fit(width=1000, device=torch.device("cuda"))
    assert abs(found - free / 4 / 4000) < 0.05 * free / 4 / 4000


def test_a_stopped_run_resumes_on_a_gpu(tmp_path: Path) -> None:
    """From a checkpoint made there and the journal after it, bit for bit."""

    def run(folder: Path, stop_after: int) -> torch.Tensor:
        AcceleratorState._reset_state(reset_partial_state=True)
        model, data = model_for("llama"), examples(LENGTHS)
        adapters = [p for p in model.parameters() if p.requires_grad]
        engine = PrivacyEngine(
            Accelerator(),
            plan_for(len(data), expected_batch_size=6, steps=5),
            ledger=folder / "ledger.jsonl",
            checkpoints=folder / "checkpoints",
            fixed_seed=7,
        )
        started = (folder / "ledger.jsonl").exists()
        prepared, _ = engine.prepare(model, torch.optim.AdamW(adapters, lr=1e-2))
        if started:
            assert engine.resume() == 3
        for step in engine.steps(data, collate):
            for batch in step:
                step.backward(losses_of("llama")(prepared, batch))
            step.update()
            if step.index == 1:
                engine.checkpoint()
            if step.index + 1 == stop_after:
                break
        engine.close()
        return torch.cat([p.detach().flatten() for p in adapters])

    (tmp_path / "whole").mkdir()
    (tmp_path / "stopped").mkdir()
    uninterrupted = run(tmp_path / "whole", 5)
    stopped = run(tmp_path / "stopped", 3)
    assert not torch.equal(stopped, uninterrupted)
    assert torch.equal(run(tmp_path / "stopped", 5), uninterrupted)
