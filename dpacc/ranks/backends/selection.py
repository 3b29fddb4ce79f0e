"""Which backend a launch configuration asks for."""

from __future__ import annotations

from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch.distributed.fsdp import OffloadPolicy

from dpacc.errors import ConfigurationError
from dpacc.ranks.backends.contract import Backend
from dpacc.ranks.backends.fsdp2 import Fsdp2
from dpacc.ranks.backends.replicated import Replicated
from dpacc.ranks.backends.zero import Zero

_REPLICATED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
_EXAMINED = ("cpu", "cuda")


def backend_for(accelerator: Accelerator) -> Backend:
    """The backend of a launch configuration.

    Raises:
        ConfigurationError: the engine has none for it.
    """
    if accelerator.mixed_precision == "fp16":
        raise ConfigurationError(
            "mixed_precision=fp16 scales losses, which moves gradients out of their range; "
            "use bf16 or no mixed precision"
        )
    if accelerator.mixed_precision not in ("no", "bf16"):
        raise ConfigurationError(
            f"mixed_precision={accelerator.mixed_precision} rounds activations by one scale for "
            "all examples of a micro-batch, so that one changes how the others are rounded; use "
            "bf16 or no mixed precision"
        )
    device = accelerator.device.type
    if device not in _EXAMINED:
        raise ConfigurationError(
            f"device={device}: whether sums, noise and dropout are exact there was never examined; "
            "train on the processor, with Accelerator(cpu=True), or use_cpu=True in the arguments"
        )
    kind = accelerator.distributed_type
    if kind in _REPLICATED:
        return Replicated(accelerator)
    if kind == DistributedType.DEEPSPEED:
        return Zero(accelerator)
    if kind == DistributedType.FSDP:
        return _fsdp2(accelerator)
    raise ConfigurationError(
        f"distributed_type={kind.value} is not supported by the engine; launch with "
        "distributed_type NO, MULTI_CPU, MULTI_GPU, DEEPSPEED or FSDP (fsdp_version: 2)"
    )


def refuse_cut_models(accelerator: Accelerator) -> None:
    """Refuse a launch that cuts the model over ranks, for loops that are not the engine's own.

    Raises:
        ConfigurationError: it does.
    """
    kind = accelerator.distributed_type
    if kind not in _REPLICATED:
        raise ConfigurationError(
            f"distributed_type={kind.value} cuts the model over ranks, which only an open loop can "
            "drive; use engine.steps, as recipes/train.py does"
        )


def _fsdp2(accelerator: Accelerator) -> Backend:
    if accelerator.mixed_precision != "no":
        raise ConfigurationError(
            f"mixed_precision={accelerator.mixed_precision} is not applied under FSDP; set it to "
            "'no', and dtype in the recipe"
        )
    plugin = accelerator.state.fsdp_plugin
    if plugin.fsdp_version != 2:
        raise ConfigurationError(
            f"fsdp_version={plugin.fsdp_version} flattens adapters and base together; set "
            "fsdp_version: 2 in the launch configuration"
        )
    if plugin.activation_checkpointing:
        raise ConfigurationError(
            "fsdp_activation_checkpointing wraps the blocks again; set gradient_checkpointing "
            "in the recipe instead"
        )
    # What Accelerate makes of `false` is an object too, of the class that offloads nothing.
    if plugin.cpu_offload and type(plugin.cpu_offload) is not OffloadPolicy:
        raise ConfigurationError(
            "fsdp_offload_params is not supported; set it to false, or launch with more GPUs"
        )
    return Fsdp2(accelerator, reshard_after_forward=plugin.reshard_after_forward)
