"""Adapters on any base are float32, reproducible, and on the layers that were asked for."""

import copy

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    ModernBertConfig,
    RobertaConfig,
)

from dpacc.errors import ConfigurationError
from dpacc.recipe.models import add_lora, new_head
from tests.dpacc.recipe.test_models import LLAMA, TOKENS, tiny_llama
from tests.tiny_models import tiny_base


def trainable(model):
    """The names and values of what will be trained."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def test_adapters_are_float32_on_any_base():
    """Adapters are held in float32 on a bfloat16 base, and only they can be trained."""
    model = add_lora(model=tiny_llama(), rank=2, alpha=4, target_modules=["q_proj", "v_proj"])
    adapters = trainable(model)
    assert len(adapters) == 2 * 2 * 2
    assert all("lora_" in name for name in adapters)
    assert {value.dtype for value in adapters.values()} == {torch.float32}
    assert model.base_model.model.lm_head.weight.dtype == torch.bfloat16


def test_fresh_adapters_change_nothing():
    """B starts at zero, so the adapted model predicts what the base does."""
    base = tiny_llama()
    with torch.no_grad():
        before = base(TOKENS).logits
        after = add_lora(model=base, rank=2, alpha=4)(TOKENS).logits
    assert torch.equal(before, after)


def test_the_seed_alone_decides_the_adapters():
    """Equal seeds give equal adapters, whatever was drawn before: so every rank starts alike."""
    torch.manual_seed(5)
    first = trainable(add_lora(model=tiny_llama(), rank=2, alpha=4, seed=1))
    torch.manual_seed(7)
    second = trainable(add_lora(model=tiny_llama(), rank=2, alpha=4, seed=1))
    third = trainable(add_lora(model=tiny_llama(), rank=2, alpha=4, seed=2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], third[name]) for name in first)


def test_adapters_leave_the_global_generator_alone():
    """Adding adapters draws nothing from torch's own generator, which others seed."""
    base = tiny_llama()
    state = torch.random.get_rng_state()
    add_lora(model=base, rank=2, alpha=4, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("target", ["q_prj", "proj", "embed_tokens", ""])
def test_an_unknown_layer_is_refused_with_the_known_ones(target):
    """The message lists the names that would do, by their last part."""
    with pytest.raises(ConfigurationError) as refused:
        add_lora(model=tiny_llama(), rank=2, alpha=4, target_modules=["q_proj", target])
    message = str(refused.value)
    assert f"lora_target_modules={target} names no linear layer" in message
    assert "down_proj, gate_proj, k_proj, lm_head, o_proj, q_proj, up_proj, v_proj" in message


def test_a_longer_name_picks_some_of_the_layers():
    """`1.self_attn.q_proj` adapts the second block alone."""
    model = add_lora(model=tiny_llama(), rank=2, alpha=4, target_modules=["1.self_attn.q_proj"])
    assert len(trainable(model)) == 2


def test_all_linear_leaves_the_head_alone():
    """`all-linear` adapts the seven projections of each block and not the output head."""
    model = add_lora(model=tiny_llama(), rank=2, alpha=4)
    assert len(trainable(model)) == 2 * 7 * 2
    assert not any("lm_head" in name for name in trainable(model))


@pytest.mark.parametrize("family", ["distilbert", "modernbert", "roberta", "bert"])
def test_all_new_layers_of_a_classifier_are_trained_saved_and_read_again(family, tmp_path):
    """DistilBERT has two of them and ModernBERT three; none stays random, or gets an adapter."""
    sizes = {"vocab_size": 20, "pad_token_id": 1, "num_labels": 2, "max_position_embeddings": 30}
    usual = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config, new = {
        "distilbert": (
            DistilBertConfig(**sizes, dim=16, n_layers=1, n_heads=2, hidden_dim=16),
            {"pre_classifier", "classifier"},
        ),
        "modernbert": (
            ModernBertConfig(
                **sizes,
                **usual,
                intermediate_size=16,
                cls_token_id=2,
                sep_token_id=3,
                bos_token_id=2,
                eos_token_id=3,
            ),
            {"head", "classifier"},
        ),
        "roberta": (RobertaConfig(**sizes, **usual, intermediate_size=16), {"classifier"}),
        "bert": (BertConfig(**sizes, **usual, intermediate_size=16), {"classifier"}),
    }[family]
    base = AutoModelForSequenceClassification.from_config(config)
    base.requires_grad_(False)
    fresh = copy.deepcopy(base)
    assert set(new_head(base)) == new
    model = add_lora(model=base, rank=2, alpha=4.0)
    learned = {name for name, p in model.named_parameters() if p.requires_grad}
    whole = {name for name in learned if "lora" not in name}
    assert {name.split(".")[2] for name in whole} == new
    assert not any("lora" in name and name.split(".")[2] in new for name in learned)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    for name, parameter in fresh.named_parameters():
        if name.split(".")[0] in new:
            parameter.data.normal_()
    again = PeftModel.from_pretrained(fresh, tmp_path).eval()
    ids = torch.tensor([[2, 5, 6, 3]])
    torch.testing.assert_close(again(input_ids=ids).logits, model.eval()(input_ids=ids).logits)


def test_conv1d_layers_are_adapted_without_a_warning(recwarn):
    """GPT-2's transposed layers are known, and PEFT has nothing to say about them."""
    base = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=2))
    model = add_lora(model=base.requires_grad_(False), rank=2, alpha=4, target_modules=["c_attn"])
    assert {tuple(value.shape) for value in trainable(model).values()} == {(2, 32), (96, 2)}
    assert not list(recwarn)


def test_checkpointing_recomputes_and_still_trains_the_adapters():
    """With it, block activations are recomputed in the backward, to the same gradients."""
    gradients = []
    for checkpointing in (False, True):
        base = LlamaForCausalLM(LLAMA)
        base.load_state_dict(tiny_llama().state_dict())
        base.config.use_cache = False
        model = add_lora(
            model=base.requires_grad_(False),
            rank=2,
            alpha=4,
            gradient_checkpointing=checkpointing,
        )
        passes = []
        base.model.layers[0].mlp.register_forward_pre_hook(lambda *_, seen=passes: seen.append(1))
        model.train()
        model(input_ids=TOKENS, labels=TOKENS).loss.backward()
        assert len(passes) == (2 if checkpointing else 1)
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    plain, recomputed = gradients
    assert len(plain) > 0
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain, recomputed, strict=True))


@pytest.mark.parametrize("keep_head", [True, False])
def test_nothing_to_train_is_refused(keep_head):
    """Without a linear layer, or with the head alone, there is nothing to adapt: said at once."""
    base = tiny_llama()
    base.model.layers = torch.nn.ModuleList()
    if not keep_head:
        base.lm_head = torch.nn.Identity()
    with pytest.raises(ConfigurationError, match="no trainable adapter"):
        add_lora(model=base, rank=2, alpha=4)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("targets", [("all-linear",), ("q_proj", "v_proj")])
def test_no_backward_runs_beneath_the_top_layers(targets, checkpointing):
    """Only the top block is adapted, and the hidden states that enter it need no gradient."""
    base = tiny_llama()
    model = add_lora(
        model=base,
        rank=2,
        alpha=4,
        target_modules=targets,
        top_layers=1,
        gradient_checkpointing=checkpointing,
    ).train()
    assert {name.split("layers.")[1][0] for name in trainable(model)} == {"1"}
    needs_gradient = []
    for block in base.model.layers:
        block.register_forward_hook(lambda *call: needs_gradient.append(call[-1].requires_grad))
    model(input_ids=TOKENS, labels=TOKENS, use_cache=False).loss.backward()
    assert needs_gradient[:2] == [False, True]
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_more_top_layers_than_there_are_are_refused():
    """The error shows both numbers."""
    with pytest.raises(ConfigurationError, match=r"lora_top_layers=3 exceeds the 2 layers"):
        add_lora(model=tiny_llama(), rank=2, alpha=4, top_layers=3)


def test_rank_stabilised_adapters_are_scaled_by_the_root_of_the_rank():
    """s is alpha/√r under rslora, and alpha/r otherwise; the same parameters learn."""
    scales = {}
    for method in ("lora", "rslora"):
        model = add_lora(model=tiny_base("llama"), rank=4, alpha=8, method=method)
        (layer, *_) = (m for m in model.modules() if isinstance(getattr(m, "scaling", None), dict))
        scales[method] = layer.scaling["default"]
    assert scales == {"lora": 2.0, "rslora": 4.0}


def test_ffa_trains_b_alone():
    """A is drawn as ever, held in float32 and frozen; half of the adapters' matrices learn."""
    whole = add_lora(model=tiny_base("llama"), rank=4, alpha=8)
    half = add_lora(model=tiny_base("llama"), rank=4, alpha=8, method="ffa")
    learned = {name for name, p in half.named_parameters() if p.requires_grad}
    both = {name for name, p in whole.named_parameters() if p.requires_grad}
    assert learned == {name for name in both if "lora_B" in name}
    assert 2 * len(learned) == len(both)
    drawn = dict(whole.named_parameters())
    for name, parameter in half.named_parameters():
        if "lora_A" in name:
            assert parameter.dtype == torch.float32
            torch.testing.assert_close(parameter, drawn[name])


def test_whitened_adapters_train_a_alone():
    """B is orthonormal and fixed, A zero: the model starts as its base."""
    model = add_lora(model=tiny_base("llama"), rank=4, alpha=8, method="whitened")
    learned = [name for name, p in model.named_parameters() if p.requires_grad]
    assert learned
    assert all("lora_A" in name for name in learned)
    uppers = [p for name, p in model.named_parameters() if "lora_B" in name]
    assert len(uppers) == len(learned)
    for matrix in uppers:
        torch.testing.assert_close(matrix.T @ matrix, torch.eye(4))
    ids = torch.arange(3, 9)[None]
    assert torch.equal(model(ids).logits, tiny_base("llama")(ids).logits)
