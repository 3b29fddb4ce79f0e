"""Launch settings that would touch the private gradient are refused by name, with the remedy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn

from dpacc.backends import Fsdp2, Replicated, backend_for
from dpacc.backends.cutting import refuse_bases_that_cannot_be_cut
from dpacc.backends.zero_config import settle_configuration
from dpacc.errors import ConfigurationError, PrivacyError
from tests.tiny_models import tiny_model


def configuration(**changes: Any) -> dict[str, Any]:
    """What Accelerate makes of a DeepSpeed launch configuration, changed."""
    usual: dict[str, Any] = {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "steps_per_print": float("inf"),
        "fp16": {"enabled": False},
        "bf16": {"enabled": False},
        "zero_optimization": {
            "stage": 2,
            "offload_optimizer": {"device": "none", "nvme_path": None},
            "offload_param": {"device": "none", "nvme_path": None},
            "stage3_gather_16bit_weights_on_model_save": False,
        },
    }
    zero = usual["zero_optimization"] | changes.pop("zero", {})
    return usual | changes | {"zero_optimization": zero}


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_deepspeed_neither_accumulates_nor_clips(stage: int) -> None:
    """The usual configuration is admitted, and what was open is closed."""
    settled = configuration(zero={"stage": stage})
    assert settle_configuration(settled) == stage
    assert settled["gradient_accumulation_steps"] == 1
    assert settled["gradient_clipping"] == 0.0
    assert settled["train_micro_batch_size_per_gpu"] == 1


@pytest.mark.parametrize(
    ("changes", "culprit", "remedy"),
    [
        ({"gradient_clipping": 1.0}, "gradient_clipping=1.0", "max_grad_norm"),
        ({"gradient_accumulation_steps": 4}, "gradient_accumulation_steps=4", "set it to 1"),
        ({"train_batch_size": 64}, "train_batch_size=64", "expected_batch_size"),
        ({"train_micro_batch_size_per_gpu": 8}, "train_micro_batch_size_per_gpu=8", "tokens"),
        ({"fp16": {"enabled": True}}, "fp16", "dtype"),
        ({"bf16": {"enabled": True}}, "bf16", "dtype=bfloat16"),
        ({"optimizer": {"type": "AdamW"}}, "optimizer", "in the recipe"),
        ({"scheduler": {"type": "WarmupLR"}}, "scheduler", "in the recipe"),
        ({"zero": {"stage": 0}}, "stage=0", "ddp.yaml"),
        ({"zero": {"offload_optimizer": {"device": "cpu"}}}, "offload_optimizer", "leave it out"),
        ({"zero": {"offload_param": {"device": "nvme"}}}, "offload_param", "leave it out"),
        ({"zero": {"zero_quantized_gradients": True}}, "zero_quantized_gradients", "leave it out"),
        ({"compression_training": {"x": 1}}, "compression_training", "leave it out"),
    ],
)
def test_deepspeed_settings_that_touch_gradients_are_refused(
    changes: dict[str, Any], culprit: str, remedy: str
) -> None:
    """Clipping, scaling, rounding or accumulating by DeepSpeed stops the run before it starts."""
    with pytest.raises(ConfigurationError) as refusal:
        settle_configuration(configuration(**changes))
    assert culprit in str(refusal.value)
    assert remedy in str(refusal.value)


def launched(kind: DistributedType, precision: str = "no", **plugin: Any) -> Any:
    settings = {"fsdp_version": 2, "activation_checkpointing": False, "cpu_offload": None}
    return SimpleNamespace(
        mixed_precision=precision,
        distributed_type=kind,
        state=SimpleNamespace(
            fsdp_plugin=SimpleNamespace(reshard_after_forward=True, **settings | plugin)
        ),
    )


def test_each_launch_has_its_backend() -> None:
    """FSDP version 2 is sharded, plain launches are replicated."""
    assert isinstance(backend_for(launched(DistributedType.FSDP)), Fsdp2)
    for kind in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
        assert type(backend_for(launched(kind))) is Replicated


@pytest.mark.parametrize(
    ("kind", "plugin", "culprit"),
    [
        (DistributedType.FSDP, {"fsdp_version": 1}, "fsdp_version=1"),
        (DistributedType.FSDP, {"activation_checkpointing": True}, "fsdp_activation_checkpointing"),
        (DistributedType.FSDP, {"cpu_offload": object()}, "fsdp_offload_params"),
        (DistributedType.FSDP, {"precision": "bf16"}, "mixed_precision=bf16"),
        (DistributedType.MULTI_GPU, {"precision": "fp16"}, "mixed_precision=fp16"),
        (DistributedType.MEGATRON_LM, {}, "MEGATRON_LM"),
        (DistributedType.XLA, {}, "XLA"),
    ],
)
def test_other_launches_are_refused(
    kind: DistributedType, plugin: dict[str, Any], culprit: str
) -> None:
    """What was never tried is refused by name."""
    with pytest.raises(ConfigurationError, match=culprit):
        backend_for(launched(kind, **plugin))


def test_fsdp_needs_to_know_where_to_cut() -> None:
    """A model that does not name its blocks is refused rather than gathered whole."""
    model = nn.Sequential(nn.Linear(2, 2))
    backend = Fsdp2(Accelerator(cpu=True), mesh=object())  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="_no_split_modules"):
        backend.place(model, torch.optim.SGD(model.parameters(), lr=0.1))


def test_an_int8_base_is_not_cut() -> None:
    """bitsandbytes keeps int8 weights where neither FSDP nor ZeRO-3 would find them."""
    from bitsandbytes.nn import Linear8bitLt

    model = nn.Sequential(Linear8bitLt(4, 4, has_fp16_weights=False))
    with pytest.raises(ConfigurationError, match="0 holds an int8 weight"):
        refuse_bases_that_cannot_be_cut(model)
    refuse_bases_that_cannot_be_cut(tiny_model("llama"))


def test_an_optimizer_changed_after_prepare_is_refused(tmp_path: Any) -> None:
    """A parameter added to the optimizer later is noticed by the backend."""
    model = tiny_model("llama")
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    backend = Replicated(Accelerator(cpu=True))
    backend.place(model, optimizer)
    backend.require_same_optimizer(model)
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    with pytest.raises(PrivacyError, match="not the model's"):
        backend.require_same_optimizer(model)
