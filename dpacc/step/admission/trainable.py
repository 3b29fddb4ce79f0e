"""Which models and optimizers may train privately: everything else is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from dpacc.errors import ConfigurationError, PrivacyError
from dpacc.layers.adapters import PER_EXAMPLE_RULES, trainable_layers
from dpacc.ranks.backends.held_parameters import named_modules, parameters
from dpacc.step.admission.experts import refuse_routed_layers
from dpacc.step.admission.rotary import refuse_rotary_embeddings_of_a_whole_batch
from dpacc.step.admission.starting_point import refuse_starts_from_data

_PROMPTS_READ_ONCE = ("PROMPT_TUNING", "P_TUNING")


def admit_model(model: nn.Module) -> None:
    """Refuse a model whose per-example gradients cannot be had or bounded.

    Raises:
        ConfigurationError: nothing is trainable.
        PrivacyError: a trainable parameter without a per-example rule, a layer that mixes
            examples, as BatchNorm, int8 with outliers, float8 with one scale and rotary
            embeddings that follow the longest row do, an auxiliary loss that does, or adapters
            that start from data which nobody declared public.
    """
    _require_trainable(model)
    refuse_starts_from_data(model)
    _refuse_batch_norm(model)
    _refuse_outliers_of_a_whole_batch(model)
    _refuse_rounded_activations(model)
    _refuse_layers_that_round_activations(model)
    refuse_rotary_embeddings_of_a_whole_batch(model)
    _refuse_expert_capacity(model)
    _refuse_router_losses(model)
    _refuse_prompts_read_once(model)
    refuse_routed_layers(model)
    _require_per_example_rules(model)
    _refuse_half_precision_parameters(model)
    _refuse_layers_packed_for_inference(model)
    _refuse_embeddings_that_mix_examples(model)


def refuse_replaced_adapters(model: nn.Module, adapters: Sequence[nn.Parameter]) -> None:
    """Refuse a model whose trainable parameters are no longer those that were prepared."""
    now = {id(p) for p in parameters(model) if p.requires_grad}
    prepared = {id(p) for p in adapters}
    if now != prepared:
        raise PrivacyError(
            f"the model's trainable parameters changed after prepare(): {len(now - prepared)} new, "
            f"{len(prepared - now)} gone; add or load adapters first, then call prepare()"
        )
    for name, layer in trainable_layers(model):
        if type(layer) not in PER_EXAMPLE_RULES.values() or "forward" in vars(layer):
            raise PrivacyError(
                f"the layer {name} was replaced or its forward patched after prepare(); "
                "change the model first, then call prepare()"
            )


def refuse_raw_gradients(model: nn.Module) -> None:
    """Refuse to go on when an unclipped gradient reached a parameter."""
    reached = [p for p in parameters(model) if p.grad is not None]
    if reached:
        name = next((n for n, p in model.named_parameters() if p is reached[0]), "a parameter")
        raise PrivacyError(
            f"an unclipped gradient reached {name}: its weight is used outside its layer "
            "(as DoRA, weight tying and penalties on weights do); make it frozen, use plain "
            "LoRA, or leave the penalty to the optimizer's weight decay"
        )


def _require_trainable(model: nn.Module) -> None:
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigurationError(
            "the model has no trainable parameter; add LoRA adapters with peft.get_peft_model"
        )


def _refuse_batch_norm(model: nn.Module) -> None:
    for name, module in named_modules(model):
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise PrivacyError(
                f"{name} is a {type(module).__name__}, which mixes the examples of a batch; "
                "replace it by GroupNorm or LayerNorm"
            )


def _refuse_outliers_of_a_whole_batch(model: nn.Module) -> None:
    for name, module in named_modules(model):
        state: Any = getattr(module, "state", None)
        if type(state).__name__ == "MatmulLtState" and state.threshold > 0:
            raise PrivacyError(
                f"{name} is an int8 layer with threshold={state.threshold}: an outlier in one "
                "example changes how the others of its batch are computed; load the base with "
                "llm_int8_threshold=0.0 in its BitsAndBytesConfig or its config.json"
            )


_ROUND_WEIGHTS_ONLY = {
    *("bitsandbytes", "gptq", "awq", "hqq", "aqlm", "eetq", "vptq", "spqr", "higgs", "gguf"),
}
"""Quantizations that leave activations alone, by transformers' names (int8 layers: see above)."""


def _refuse_rounded_activations(model: nn.Module) -> None:
    settings: Any = getattr(getattr(model, "config", None), "quantization_config", None)
    if settings is None:
        return
    named = settings if isinstance(settings, dict) else vars(settings)
    method = named.get("quant_method")
    name = getattr(method, "value", method)
    if name not in _ROUND_WEIGHTS_ONLY:
        raise PrivacyError(
            f"the base is quantized by {name}, which may round activations by one scale for all "
            "examples of a micro-batch; load it unquantized, or with bitsandbytes in NF4 or int8"
        )


_FLOAT8_LIBRARIES = ("torchao", "transformer_engine", "msamp", "fbgemm_gpu")
_FLOAT8_CLASSES = ("float8", "fp8", "fakequantize")


def _refuse_layers_that_round_activations(model: nn.Module) -> None:
    """Converted layers, of which the configuration says nothing."""
    for name, module in named_modules(model):
        weight = getattr(module, "weight", None)
        for kind in (type(module), type(weight)):
            if _rounds_activations(kind):
                raise PrivacyError(_one_scale(name, kind.__name__))
        if isinstance(weight, torch.Tensor) and str(weight.dtype).startswith("torch.float8"):
            raise PrivacyError(_one_scale(name, f"layer in {weight.dtype}"))


def _rounds_activations(kind: type) -> bool:
    library = kind.__module__.partition(".")[0]
    converted = kind.__module__.startswith("torch.ao.")
    named = any(part in kind.__name__.lower() for part in _FLOAT8_CLASSES)
    return library in _FLOAT8_LIBRARIES or converted or named


def _one_scale(name: str, kind: str) -> str:
    return (
        f"{name} is a {kind}, which may round activations by one scale for all examples of a "
        "micro-batch; leave the conversion to float8 or int8 out, and load the base unquantized, "
        "or with bitsandbytes in NF4 or int8"
    )


_CAPACITIES = ("expert_capacity", "capacity_factor", "moe_capacity_factor")


def _refuse_expert_capacity(model: nn.Module) -> None:
    config = getattr(model, "config", None)
    for name in _CAPACITIES:
        if getattr(config, name, None) is not None:
            raise PrivacyError(
                f"config.{name}={getattr(config, name)} bounds how many tokens of a micro-batch "
                "an expert takes, so that examples crowd each other out; choose a base that "
                "routes each token by itself"
            )


def _refuse_router_losses(model: nn.Module) -> None:
    config = getattr(model, "config", None)
    if getattr(config, "output_router_logits", False):
        raise PrivacyError(
            "the model adds a router balance loss that mixes examples "
            "(config.output_router_logits=True); set it to False"
        )


def _refuse_prompts_read_once(model: nn.Module) -> None:
    config = getattr(model, "active_peft_config", None)
    kind = getattr(getattr(config, "peft_type", None), "value", None)
    if kind in _PROMPTS_READ_ONCE:
        raise PrivacyError(
            f"PEFT's {kind} reads its virtual tokens once for all examples of a micro-batch, so "
            "that none has a gradient of its own; use prefix tuning (PrefixTuningConfig) or LoRA"
        )


def _require_per_example_rules(model: nn.Module) -> None:
    allowed = ", ".join(rule.__name__ for rule in PER_EXAMPLE_RULES)
    for name, layer in trainable_layers(model):
        parameter = next(n for n, p in layer.named_parameters(recurse=False) if p.requires_grad)
        known = type(layer) in PER_EXAMPLE_RULES or type(layer) in PER_EXAMPLE_RULES.values()
        if not known:
            raise PrivacyError(
                f"no per-example rule covers {name}.{parameter} of type {type(layer).__name__}; "
                f"freeze it with requires_grad_(False), or train only {allowed} layers"
            )
        if "forward" in vars(layer) and type(layer) in PER_EXAMPLE_RULES:
            raise PrivacyError(
                f"the forward of {name} is patched on the instance, so its per-example gradients "
                "cannot be had; remove the hook that patches it before prepare()"
            )


def _refuse_half_precision_parameters(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            raise ConfigurationError(
                f"{name} is {parameter.dtype}; keep trainable parameters in float32 "
                "(the arithmetic still runs in the base's dtype), or noise is lost in rounding"
            )


def _refuse_layers_packed_for_inference(model: nn.Module) -> None:
    for name, module in named_modules(model):
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if getattr(state, "packing_format_for_cpu", False):
            raise ConfigurationError(
                f"bitsandbytes has packed {name} for inference, through which no gradient flows; "
                "load the model again, and call prepare() before the first evaluation"
            )


def _refuse_embeddings_that_mix_examples(model: nn.Module) -> None:
    for name, layer in trainable_layers(model):
        if isinstance(layer, nn.Embedding) and (layer.scale_grad_by_freq or layer.max_norm):
            raise PrivacyError(
                f"{name} scales gradients by word frequency or renormalises rows it looks up, "
                "which mixes the examples of a batch; set scale_grad_by_freq=False, max_norm=None"
            )
