"""Launch settings that would touch the private gradient are refused by name, with the remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from accelerate import Accelerator
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_multi_gpu_env
from torch import nn

from dpacc.errors import ConfigurationError, PrivacyError
from dpacc.ranks.backends import Fsdp2, Replicated, backend_for
from dpacc.ranks.backends.cutting import refuse_bases_that_cannot_be_cut
from dpacc.ranks.backends.zero_config import settle_configuration
from tests.tiny_models import tiny_model

FSDP2 = Path(__file__).parents[3] / "launch_configs/fsdp2.yaml"


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


def launched(
    kind: DistributedType,
    precision: str = "no",
    plugin: FullyShardedDataParallelPlugin | None = None,
) -> Any:
    return SimpleNamespace(
        mixed_precision=precision,
        distributed_type=kind,
        device=SimpleNamespace(type="cpu"),
        state=SimpleNamespace(fsdp_plugin=plugin),
    )


@pytest.fixture
def fsdp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """What Accelerate makes of launch_configs/fsdp2.yaml, changed: through the environment."""

    def launch(precision: str = "no", **changes: Any) -> Any:
        settings = yaml.safe_load(FSDP2.read_text())
        settings["fsdp_config"] |= {f"fsdp_{name}": value for name, value in changes.items()}
        changed = tmp_path / "fsdp2.yaml"
        changed.write_text(yaml.safe_dump(settings))
        given = launch_command_parser().parse_args(["--config_file", str(changed), "train.py"])
        arguments, *_ = _validate_launch_command(given)
        for name, value in prepare_multi_gpu_env(arguments).items():
            if name.startswith("FSDP_"):
                monkeypatch.setenv(name, value)
        plugin = FullyShardedDataParallelPlugin()
        return launched(DistributedType.FSDP, precision, plugin)

    return launch


@pytest.mark.parametrize("kind", [DistributedType.NO, "MULTI_CPU", "MULTI_GPU"])
def test_a_plain_launch_is_replicated(kind: str) -> None:
    """Every rank holds the whole model."""
    assert type(backend_for(launched(DistributedType(kind)))) is Replicated


@pytest.mark.parametrize("reshard", [True, False])
def test_the_shipped_fsdp_launch_is_sharded(fsdp: Callable[..., Any], reshard: bool) -> None:
    """FSDP version 2 as Accelerate reads it from the file, cut again after the forward or not."""
    backend = backend_for(fsdp(reshard_after_forward=reshard))
    assert isinstance(backend, Fsdp2)
    assert backend._reshard_after_forward is reshard


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        (
            {"version": 1, "reshard_after_forward": "FULL_SHARD", "sync_module_states": False},
            "fsdp_version=1",
        ),
        ({"activation_checkpointing": True}, "fsdp_activation_checkpointing"),
        ({"offload_params": True}, "fsdp_offload_params"),
        ({"precision": "bf16"}, "mixed_precision=bf16"),
    ],
)
def test_other_ways_to_shard_are_refused(
    fsdp: Callable[..., Any], changes: dict[str, Any], culprit: str
) -> None:
    """What would meet the private gradient, or was never tried, is named."""
    with pytest.raises(ConfigurationError, match=culprit):
        backend_for(fsdp(**changes))


@pytest.mark.parametrize(
    ("kind", "precision", "culprit"),
    [
        (DistributedType.MULTI_GPU, "fp16", "mixed_precision=fp16"),
        (DistributedType.MEGATRON_LM, "no", "MEGATRON_LM"),
        (DistributedType.XLA, "no", "XLA"),
    ],
)
def test_other_launches_are_refused(kind: DistributedType, precision: str, culprit: str) -> None:
    """What was never tried is refused by name."""
    with pytest.raises(ConfigurationError, match=culprit):
        backend_for(launched(kind, precision))


@pytest.mark.parametrize("device", ["mps", "xpu", "npu"])
def test_a_device_that_was_never_examined_is_refused(device: str) -> None:
    """Accelerate takes a Mac's GPU unasked, where nobody saw that a gradient is exact."""
    found = launched(DistributedType.NO)
    found.device = SimpleNamespace(type=device)
    with pytest.raises(ConfigurationError, match=rf"device={device}: .*cpu=True"):
        backend_for(found)


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
