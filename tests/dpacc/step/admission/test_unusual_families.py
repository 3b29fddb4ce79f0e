"""Families whose layers see their inputs in another form than [examples, tokens, features]."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaConfig,
    DebertaV2Config,
    GPT2Config,
    LongformerConfig,
    MixtralConfig,
    Qwen2MoeConfig,
)

from dpacc.errors import PrivacyError
from dpacc.layers.adapters import attach_gradient_buffer
from dpacc.recipe.models import add_lora
from dpacc.step.admission.experts import names_in_every_block
from dpacc.step.admission.trainable import admit_model
from dpacc.step.strategies import Materialize
from tests.dpacc.layers.test_adapters import (
    LENGTHS,
    assert_same_gradients,
    backward,
    loop_gradients,
    one_pass_gradients,
)
from tests.tiny_models import (
    BERT_LIKE,
    LLAMA_LIKE,
    collate,
    examples,
    losses_of,
    set_upper_factors,
)

_DEBERTA = {**BERT_LIKE, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
_V2 = {**_DEBERTA, "position_buckets": 16, "norm_rel_ebd": "layer_norm"}
_DECODER = {**LLAMA_LIKE, "intermediate_size": 48}
_MIXTURES = {
    "mixtral": MixtralConfig(**_DECODER, num_local_experts=4, num_experts_per_tok=2),
    "qwen2_moe": Qwen2MoeConfig(
        **_DECODER,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
    ),
}


def adapted(configuration: Any, targets: Any, *, trained: str | None = None) -> nn.Module:
    """A random model with LoRA on `targets`, and with the layer `trained` trained whole."""
    torch.manual_seed(0)
    classifies = hasattr(configuration, "type_vocab_size")
    loader = AutoModelForSequenceClassification if classifies else AutoModelForCausalLM
    model = get_peft_model(
        loader.from_config(configuration),
        LoraConfig(
            r=3,
            target_modules=targets,
            task_type="SEQ_CLS" if classifies else "CAUSAL_LM",
            modules_to_save=None if trained is None else [trained],
            fan_in_fan_out=isinstance(configuration, GPT2Config),
        ),
    )
    set_upper_factors(model)
    return model.train()


@pytest.mark.parametrize(
    ("configuration", "targets"),
    [
        (LongformerConfig(**BERT_LIKE, attention_window=8), ["query", "value", "query_global"]),
        (DebertaConfig(**_DEBERTA), ["in_proj", "dense"]),
        (DebertaV2Config(**_V2, share_att_key=True), ["value_proj", "dense"]),
        (DebertaV2Config(**_V2, share_att_key=False), ["query_proj", "key_proj"]),
    ],
    ids=["longformer", "deberta", "deberta-v2", "deberta-v2 apart"],
)
def test_projections_that_are_scaled_in_place_or_see_tokens_first(
    configuration: Any, targets: list[str]
) -> None:
    """Each example has the gradient it has alone, through the fused layers as through PEFT's."""
    model, data = adapted(configuration, targets), examples(LENGTHS, family="bert")
    admit_model(model)
    expected = loop_gradients(model, "bert", data)
    assert_same_gradients(one_pass_gradients(model, "bert", data), expected)


@pytest.mark.parametrize(
    ("configuration", "targets", "trained", "family"),
    [
        (GPT2Config(**_DECODER, n_positions=256, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
         ["c_attn"], "wpe", "gpt2"),
        (BertConfig(**BERT_LIKE), ["query"], "position_embeddings", "bert"),
    ],
    ids=["gpt2", "bert"],
)  # fmt: skip
def test_positions_that_are_looked_up_once_for_all_can_be_trained(
    configuration: Any, targets: list[str], trained: str, family: str
) -> None:
    """The table's gradient is told apart by example, as if each had looked up its own."""
    model, data = adapted(configuration, targets, trained=trained), examples(LENGTHS, family=family)
    expected = loop_gradients(model, family, data)
    buffer = attach_gradient_buffer(model)
    buffer.expect(len(data))
    losses = losses_of(family)(model, collate(data))
    actual = Materialize(buffer, backward, torch.device("cpu")).rows(losses)
    assert_same_gradients(actual, expected)
    with torch.no_grad():
        buffer.expect(len(data))
        assert len(losses_of(family)(model, collate(data[:1]))) == 1


def test_a_projection_of_relative_positions_is_refused_for_what_it_reads() -> None:
    """Shared by content and positions, of which there is one input for all examples."""
    model = adapted(DebertaV2Config(**_V2, share_att_key=True), ["query_proj"])
    with pytest.raises(PrivacyError, match=r"reads one input for all examples.*value_proj"):
        one_pass_gradients(model, "bert", examples(LENGTHS, family="bert"))


@pytest.mark.parametrize("family", _MIXTURES)
def test_adapters_within_a_mixture_of_experts_are_refused_by_name(family: str) -> None:
    """A router's and a shared expert's layers see all tokens in one row."""
    admit_model(adapted(_MIXTURES[family], ["q_proj", "v_proj"]))
    model = adapted(_MIXTURES[family], "all-linear")
    if not any("lora_" in name and ".mlp." in name for name, _ in model.named_parameters()):
        pytest.skip("this version of PEFT adapts nothing within the experts of this family")
    with pytest.raises(PrivacyError, match=r"mixture of experts.*q_proj"):
        admit_model(model)


@pytest.mark.parametrize("family", _MIXTURES)
def test_all_linear_layers_of_a_recipe_are_those_outside_the_experts(family: str) -> None:
    """`all-linear` adapts the attention, and the run goes on."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(_MIXTURES[family])
    assert names_in_every_block(base)
    model = add_lora(model=base, rank=2, alpha=4)
    admit_model(model)
    adapted_layers = {
        name.split(".lora_")[0] for name, _ in model.named_parameters() if "lora_" in name
    }
    assert adapted_layers
    assert all(".self_attn." in name for name in adapted_layers)
