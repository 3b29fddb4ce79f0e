"""Who may train: everything that cannot be proved private is refused by name, before a step."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from bitsandbytes.nn import Linear8bitLt
from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from torch import nn
from torch.utils.data import DataLoader
from transformers.utils.quantization_config import QuantizationMethod

from dpacc.errors import ConfigurationError, PrivacyError
from dpacc.layers.adapters import attach_gradient_buffer
from dpacc.loops import drop_in
from dpacc.plan import PrivacyPlan
from dpacc.ranks.backends import backend_for
from dpacc.ranks.backends.held_parameters import admit_optimizer
from dpacc.step.admission.trainable import (
    admit_model,
    refuse_raw_gradients,
    refuse_replaced_adapters,
)
from dpacc.step.engine import PrivacyEngine
from tests.dpacc.layers.test_adapters import materialize
from tests.tiny_models import collate, examples, tiny_base, tiny_model, with_lora


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize("family", ["llama", "gptj", "gpt2", "bert"])
def test_lora_models_are_admitted(family: str) -> None:
    """Plain LoRA, with BERT's linear head trained as well, is what the engine is for."""
    model = tiny_model(family)
    admit_model(model)
    admit_optimizer(torch.optim.AdamW(trainable(model)), model)


def test_a_model_with_nothing_to_train_is_refused() -> None:
    """A frozen model names the missing adapters."""
    model = tiny_base("llama").requires_grad_(False)
    with pytest.raises(ConfigurationError, match="no trainable parameter; add LoRA"):
        admit_model(model)


def test_a_trainable_layer_without_a_rule_is_refused() -> None:
    """A trainable embedding, norm or bare parameter is named, with the remedy."""
    model = tiny_model("llama")
    model.get_submodule("base_model.model.model.norm").weight.requires_grad_(True)
    with pytest.raises(PrivacyError, match=r"norm\.weight of type LlamaRMSNorm; freeze"):
        admit_model(model)
    with pytest.raises(PrivacyError, match=r"1\.weight of type Conv1d"):
        admit_model(nn.Sequential(nn.Linear(3, 3), nn.Conv1d(3, 3, 1)))


def test_an_unfrozen_base_is_refused() -> None:
    """Full fine-tuning of GPT-2's Conv1D layers has no rule and is refused by name."""
    with pytest.raises(PrivacyError, match=r"no per-example rule covers transformer"):
        admit_model(tiny_base("gpt2"))


@pytest.mark.parametrize("option", [{"scale_grad_by_freq": True}, {"max_norm": 1.0}])
def test_embeddings_that_mix_examples_are_refused(option: dict[str, object]) -> None:
    """Frequency scaling and renormalisation depend on the whole batch."""
    with pytest.raises(PrivacyError, match="mixes the examples"):
        admit_model(nn.Sequential(nn.Embedding(4, 3, **option)))


@pytest.mark.parametrize(
    ("configuration", "options"),
    [(PromptTuningConfig, {}), (PromptEncoderConfig, {"encoder_hidden_size": 8})],
)
def test_prompts_that_are_read_once_for_all_examples_are_refused(
    configuration: Any, options: dict[str, int]
) -> None:
    """PEFT reads virtual tokens once a batch and repeats them; prefix tuning reads them each."""
    chosen = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 3}
    prompted = get_peft_model(tiny_base("llama"), configuration(**chosen, **options))
    with pytest.raises(PrivacyError, match="use prefix tuning"):
        admit_model(prompted)
    admit_model(get_peft_model(tiny_base("llama"), PrefixTuningConfig(**chosen)))


def test_batch_norm_is_refused_even_when_frozen() -> None:
    """BatchNorm mixes examples whether or not it is trained."""
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3).requires_grad_(False))
    with pytest.raises(PrivacyError, match="1 is a BatchNorm1d, which mixes the examples"):
        admit_model(model)


def test_router_balance_losses_are_refused() -> None:
    """A mixture-of-experts auxiliary loss couples examples."""
    model = tiny_model("llama")
    model.config.output_router_logits = True
    with pytest.raises(PrivacyError, match="output_router_logits=True"):
        admit_model(model)


def test_half_precision_adapters_are_refused() -> None:
    """Noise added to bf16 parameters would be lost in rounding."""
    model = nn.Sequential(nn.Linear(3, 3).bfloat16())
    with pytest.raises(ConfigurationError, match=r"0\.weight is torch\.bfloat16"):
        admit_model(model)


def test_a_patched_forward_is_refused() -> None:
    """An instance-level forward would bypass the per-example layer."""
    layer = nn.Linear(3, 3)
    layer.forward = lambda x: x  # type: ignore[method-assign]
    with pytest.raises(PrivacyError, match="forward of 0 is patched"):
        admit_model(nn.Sequential(layer))


def test_the_optimizer_holds_exactly_the_trainable_parameters() -> None:
    """Too few, or another model's: both are refused."""
    model, other = tiny_model("llama"), tiny_model("llama")
    with pytest.raises(PrivacyError, match="does not hold the trainable parameter"):
        admit_optimizer(torch.optim.SGD(trainable(model)[1:], lr=0.1), model)
    with pytest.raises(PrivacyError, match="holds 1 parameters that are frozen or not"):
        admit_optimizer(torch.optim.SGD([*trainable(model), trainable(other)[0]], lr=0.1), model)


def test_adapters_added_after_prepare_are_refused() -> None:
    """A second adapter would train without anyone clipping it."""
    model = tiny_model("llama")
    attach_gradient_buffer(model)
    prepared = trainable(model)
    refuse_replaced_adapters(model, prepared)
    model.add_adapter("late", model.peft_config["default"])
    model.set_adapter("late")
    with pytest.raises(PrivacyError, match="changed after prepare"):
        refuse_replaced_adapters(model, prepared)


def test_a_layer_replaced_around_the_same_parameter_is_refused() -> None:
    """Swapping the module but keeping its weight is seen as well."""
    model = nn.Sequential(nn.Linear(3, 3, bias=False))
    attach_gradient_buffer(model)
    prepared = trainable(model)
    plain = nn.Linear(3, 3, bias=False)
    plain.weight = model[0].weight
    model[0] = plain
    with pytest.raises(PrivacyError, match="the layer 0 was replaced"):
        refuse_replaced_adapters(model, prepared)


def test_a_weight_used_outside_its_layer_is_caught() -> None:
    """The part of the gradient that goes round the layer appears on the parameter: stop."""
    layer = nn.Linear(3, 3, bias=False)
    gradients = materialize(layer)
    gradients.rows(layer(torch.ones(2, 3)).sum(dim=1) + layer.weight.square().sum())
    with pytest.raises(PrivacyError, match="an unclipped gradient reached weight"):
        refuse_raw_gradients(layer)


def int8_layer(*, threshold: float) -> nn.Module:
    """A linear layer in int8, as a loaded base holds it."""
    torch.manual_seed(0)
    layer = Linear8bitLt(32, 16, has_fp16_weights=False, threshold=threshold)
    return layer.to("cpu").requires_grad_(False).eval()


@pytest.mark.parametrize("threshold", [0.0, 6.0])
def test_an_int8_layer_couples_examples_only_where_it_looks_for_outliers(threshold: float) -> None:
    """A column with an outlier in one example is computed in 16 bits for its neighbours too."""
    layer = int8_layer(threshold=threshold)
    alone = torch.randn(1, 4, 32)
    loud = torch.cat([alone, alone.index_fill(2, torch.arange(0, 32, 3), 50.0)])
    with torch.no_grad():
        beside, by_itself = layer(loud)[0], layer(alone)[0]
    assert torch.equal(beside, by_itself) is (threshold == 0)


def with_int8_projection(*, threshold: float) -> nn.Module:
    """A tiny Llama with adapters, one of whose frozen projections is in int8."""
    base = tiny_base("llama").requires_grad_(False)
    base.model.layers[1].self_attn.k_proj = int8_layer(threshold=threshold)
    return with_lora(base, "llama", targets=["k_proj", "v_proj"])


def test_an_int8_base_that_looks_for_outliers_is_refused() -> None:
    """The layer is named, also beneath an adapter, with what to load it with."""
    with pytest.raises(PrivacyError, match=r"1\.self_attn\.k_proj\S* .* threshold=6\.0") as told:
        admit_model(with_int8_projection(threshold=6.0))
    assert "llm_int8_threshold=0.0" in str(told.value)
    assert "\n" not in str(told.value)
    admit_model(with_int8_projection(threshold=0.0))


def test_a_plain_loop_refuses_it_too(tmp_path: Path) -> None:
    """make_private goes through the same admission, before anything is charged."""
    model, ledger = with_int8_projection(threshold=6.0), tmp_path / "ledger.jsonl"
    with pytest.raises(PrivacyError, match="llm_int8_threshold"):
        drop_in.PrivacyEngine(ledger=ledger).make_private(
            model=model,
            optimizer=torch.optim.SGD(trainable(model), lr=0.1),
            data_loader=DataLoader(examples([3] * 8), batch_size=2, collate_fn=collate),
            noise_multiplier=1.0,
            target_delta=1e-3,
            max_grad_norm=1.0,
            epochs=1,
        )
    assert not ledger.exists()


@pytest.mark.parametrize("method", ["fp8", QuantizationMethod.NVFP4, "torchao", None])
def test_a_base_that_may_round_activations_together_is_refused(
    method: str | QuantizationMethod | None,
) -> None:
    """One scale for a micro-batch's activations would couple its examples, too little to probe."""
    model = tiny_model("llama")
    model.config.quantization_config = {"quant_method": method}
    name = getattr(method, "value", method)
    with pytest.raises(PrivacyError, match=f"quantized by {name}.* load it unquantized") as told:
        admit_model(model)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("method", ["gptq", QuantizationMethod.AWQ, "gguf"])
def test_a_base_whose_weights_alone_are_rounded_is_admitted(
    method: str | QuantizationMethod,
) -> None:
    """Weights are the same for every example."""
    model = tiny_model("llama")
    model.config.quantization_config = SimpleNamespace(quant_method=method)
    admit_model(model)


def test_fp16_loss_scaling_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An accelerator set to fp16 would scale losses behind the engine's back."""
    accelerator = Accelerator(cpu=True)
    monkeypatch.setattr(type(accelerator), "mixed_precision", "fp16")
    plan = PrivacyPlan(
        dataset_size=10,
        expected_batch_size=2,
        steps=1,
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        target_delta=1e-3,
    )
    with pytest.raises(ConfigurationError, match="mixed_precision=fp16"):
        PrivacyEngine(accelerator, plan, ledger=tmp_path / "ledger.jsonl")


class Float8Linear(nn.Linear):
    """Called as converted layers are."""


def layer_of(library: str) -> nn.Module:
    """A frozen layer of a class that this library would define."""
    kind = type("Linear", (nn.Linear,), {"__module__": f"{library}.layers"})
    return kind(3, 3).requires_grad_(False)


@pytest.mark.parametrize(
    "layer",
    [
        Float8Linear(3, 3).requires_grad_(False),
        layer_of("torchao"),
        layer_of("transformer_engine"),
        layer_of("msamp"),
        torch.ao.nn.qat.Linear(3, 3, qconfig=torch.ao.quantization.get_default_qat_qconfig()),
        nn.Linear(3, 3).requires_grad_(False).to(torch.float8_e4m3fn),
    ],
)
def test_layers_converted_to_8_bits_are_refused(layer: nn.Module) -> None:
    """A conversion leaves no word in the configuration; the class or the weight tells."""
    with pytest.raises(PrivacyError, match=r"1 is a .* one scale for all examples") as told:
        admit_model(nn.Sequential(nn.Linear(3, 3), layer))
    assert "\n" not in str(told.value)


def test_float8_by_accelerate_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would convert the layers behind the engine's back."""
    accelerator = Accelerator(cpu=True)
    monkeypatch.setattr(type(accelerator), "mixed_precision", "fp8")
    with pytest.raises(ConfigurationError, match="mixed_precision=fp8 rounds activations"):
        backend_for(accelerator)


@pytest.mark.parametrize("name", ["expert_capacity", "capacity_factor"])
def test_experts_with_a_capacity_are_refused(name: str) -> None:
    """Examples would crowd each other out."""
    model = tiny_model("llama")
    setattr(model.config, name, 1.25)
    with pytest.raises(PrivacyError, match=f"{name}=1.25 bounds how many tokens"):
        admit_model(model)
