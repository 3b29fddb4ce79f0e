"""However a base is stored, adapters on it learn each example's own clipped gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from dpacc.recipe.models import add_lora, load_base
from dpacc.step.engine import PrivacyEngine
from tests.dpacc.layers.test_adapters import loop_gradients
from tests.dpacc.step.engine_runs import RecordingOptimizer, noiseless
from tests.tiny_models import (
    collate,
    examples,
    losses_of,
    save_tiny_llama,
    set_upper_factors,
    tiny_base,
)

LENGTHS = [7, 3, 12, 1, 9]
STORAGES: dict[str, dict[str, Any]] = {
    "nf4": {"quantization": "nf4", "dtype": "float32"},
    "int8": {"quantization": "int8", "dtype": "float32"},
    "float16": {"dtype": "float16"},
    "bfloat16": {"dtype": "bfloat16"},
}
ROUNDING = {"nf4": 5e-6, "int8": 5e-6, "float16": 4e-3, "bfloat16": 3e-2}
"""Of the sum's norm: an example is padded beside others, so its products add up in other orders."""
HELD_IN = {
    ("llama", "nf4"): "Linear4bit",
    ("llama", "int8"): "Linear8bitLt",
    ("llama", "float16"): "Linear",
    ("llama", "bfloat16"): "Linear",
    ("gpt2", "nf4"): "Linear4bit",
    ("gpt2", "int8"): "Linear8bitLt",
    ("gpt2", "float16"): "Conv1D",
}


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], nn.Module]:
    """Load a tiny base of a family in a storage, as a run does, with adapters that do something."""
    folders = {family: tmp_path_factory.mktemp(family) for family in ("llama", "gpt2")}
    for family, folder in folders.items():
        save_tiny_llama(folder, words=["word"])
        tiny_base(family, hidden=64).save_pretrained(folder)

    def load(family: str, storage: str) -> nn.Module:
        base = load_base(model=str(folders[family]), **STORAGES[storage]).model
        model = add_lora(model=base, rank=3, alpha=6)
        set_upper_factors(model)
        return model.train()

    return load


def sum_received(model: nn.Module, data: list[Any], ledger: Path, *, bound: float) -> torch.Tensor:
    """What one step of the engine without noise hands to the optimizer, times the batch size."""
    optimizer = RecordingOptimizer([p for p in model.parameters() if p.requires_grad])
    plan = noiseless(len(data), steps=1, max_grad_norm=bound)
    engine = PrivacyEngine(Accelerator(cpu=True), plan, ledger=ledger, fixed_seed=3)
    engine.prepare(model, optimizer)
    for step in engine.steps(data, collate):
        for batch in step:
            step.backward(losses_of("llama")(model, batch))
        step.update()
    engine.close()
    return optimizer.received[0] * len(data)


def clipped_sum(rows: torch.Tensor, *, bound: float) -> torch.Tensor:
    """Σ min(1, C/‖g‖)·g of rows of gradients."""
    norms = rows.norm(dim=1, keepdim=True)
    assert (norms > bound).any()
    return (rows * (bound / norms).clamp(max=1).nan_to_num(1.0)).sum(dim=0)


@pytest.mark.parametrize(("family", "storage"), list(HELD_IN))
def test_a_base_in_any_storage_trains_as_one_example_at_a_time(
    family: str, storage: str, adapted: Callable[[str, str], nn.Module], tmp_path: Path
) -> None:
    """The probe admits it, and the optimizer gets the sum of clipped gradients, by a loop."""
    model, data = adapted(family, storage), examples(LENGTHS)
    assert HELD_IN[family, storage] in {type(module).__name__ for module in model.modules()}
    expected = clipped_sum(loop_gradients(model, family, data), bound=0.05)
    found = sum_received(model, data, tmp_path / "ledger.jsonl", bound=0.05)
    assert (found - expected).norm() < ROUNDING[storage] * expected.norm()


def test_an_int8_base_trains_exactly_in_the_arithmetic_of_a_gpu(
    adapted: Callable[[str, str], nn.Module], tmp_path: Path
) -> None:
    """There activations are rounded to eight bits as well, each token by its own scale.

    bitsandbytes does so on a processor for layers in evaluation mode. Some activations are made
    so large that their columns would count as outliers.
    """
    model, data = adapted("llama", "int8"), examples(LENGTHS)
    with torch.no_grad():
        model.get_submodule("base_model.model.model.layers.0.input_layernorm").weight[::5] = 20.0
    in_training = loop_gradients(copy.deepcopy(model), "llama", data)
    model.eval()
    rows = loop_gradients(model, "llama", data)
    assert (rows - in_training).norm() > 1e-3 * rows.norm()
    found = sum_received(model, data, tmp_path / "ledger.jsonl", bound=0.05)
    expected = clipped_sum(rows, bound=0.05)
    # A sum in another order may round an activation to the next of its eight bits.
    assert (found - expected).norm() < 1e-4 * expected.norm()
