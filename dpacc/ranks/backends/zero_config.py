"""Which DeepSpeed settings the engine runs under; the others are refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dpacc.errors import ConfigurationError

_OWN = "the engine forms logical batches and accumulates by itself"
_NUMBERS: dict[str, tuple[object, str]] = {
    "gradient_accumulation_steps": (1, _OWN),
    "gradient_clipping": (0.0, "each example is clipped by the privacy plan; set max_grad_norm"),
    "train_micro_batch_size_per_gpu": (1, f"{_OWN}; set micro_batch_tokens"),
    "train_batch_size": ("auto", f"{_OWN}; set expected_batch_size"),
}
"""Settings that must be "auto", absent, or the engine's own value; and why."""

_HARMLESS = {"steps_per_print", "wall_clock_breakdown", "zero_allow_untested_optimizer"}

_ZERO = {
    "stage",
    "allgather_bucket_size",
    "allgather_partitions",
    "contiguous_gradients",
    "overlap_comm",
    "reduce_bucket_size",
    "reduce_scatter",
    "round_robin_gradients",
    "stage3_gather_16bit_weights_on_model_save",
    "stage3_max_live_parameters",
    "stage3_max_reuse_distance",
    "stage3_param_persistence_threshold",
    "stage3_prefetch_bucket_size",
    "sub_group_size",
}

_BUCKETS = {"reduce_bucket_size": 5_000_000}
"""What "auto" stands for where there is no model to take it from."""


def settle_configuration(configuration: dict[str, Any]) -> int:
    """Fill in what the engine decides, in place, and return the ZeRO stage.

    Raises:
        ConfigurationError: a setting that would change, clip or scale the private gradient, or
            whose effect on it is not known.
    """
    for name, (own, reason) in _NUMBERS.items():
        if configuration.get(name, "auto") not in ("auto", None, own):
            raise ConfigurationError(
                f"DeepSpeed's {name}={configuration[name]}: {reason}; set it to {own} or 'auto'"
            )
        configuration[name] = own
    for name, section in configuration.items():
        if name not in {*_NUMBERS, *_HARMLESS, "zero_optimization"} and _is_on(section):
            _refuse(name, section)
    zero = configuration["zero_optimization"]
    for name, value in zero.items():
        if name not in _ZERO and _is_on(value):
            _refuse(f"zero_optimization.{name}", value)
    return _stage(zero)


def without_auto(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that have a value already.

    >>> without_auto({"train_batch_size": "auto", "zero_optimization": {"stage": 3}})
    {'zero_optimization': {'stage': 3}}
    """
    return {
        name: without_auto(value) if isinstance(value, Mapping) else value
        for name, value in configuration.items()
        if value != "auto"
    }


def _stage(zero: dict[str, Any]) -> int:
    stage = int(zero["stage"])
    if stage not in (1, 2, 3):
        raise ConfigurationError(
            f"DeepSpeed's zero_optimization.stage={stage} cuts nothing; set it to 1, 2 or 3, or "
            "launch with launch_configs/ddp.yaml"
        )
    if stage < 3:
        zero.update({k: v for k, v in _BUCKETS.items() if zero.get(k) == "auto"})
        zero["contiguous_gradients"] = False  # a copy of gradients that never come
    return stage


def _is_on(section: object) -> bool:
    """Whether a section does anything: {"enabled": false} and {"device": "none"} do not."""
    if isinstance(section, Mapping):
        return bool(section.get("enabled", section.get("device", "on") != "none"))
    return section not in (None, False, "none")


def _refuse(name: str, value: object) -> None:
    remedies = {
        "fp16": "loss scaling moves gradients out of their range; set dtype in the recipe instead",
        "bf16": "it would round the adapters to 16 bits; set dtype=bfloat16 in the recipe instead, "
        "and mixed_precision: 'no' in the launch configuration",
        "optimizer": "build the optimizer in the recipe",
        "scheduler": "build the schedule in the recipe",
        "zero_optimization.offload_optimizer": "the adapters' optimizer is small; leave it out",
    }
    remedy = remedies.get(name, "its effect on the private gradient is not known; leave it out")
    raise ConfigurationError(f"DeepSpeed's {name}={value} is not supported: {remedy}")
