"""A base is loaded frozen, in any storage, and silently; what is no base is refused."""

import json
import logging
import shutil
import subprocess
import sys

import bitsandbytes
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from dpacc.errors import ConfigurationError
from dpacc.recipe.models import load_base

LLAMA = LlamaConfig(
    vocab_size=64,
    hidden_size=64,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
)
TOKENS = torch.arange(12).reshape(2, 6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A complete folder of a tiny Llama in bfloat16, with a tokenizer that has no pad token."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    LlamaForCausalLM(LLAMA).to(torch.bfloat16).save_pretrained(path)
    core = Tokenizer(models.WordLevel({"<end>": 0, "word": 1}, unk_token="<end>"))
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>").save_pretrained(path)
    return path


@pytest.fixture
def damaged(folder, tmp_path):
    """A copy of the folder to damage."""
    return shutil.copytree(folder, tmp_path / "damaged")


def tiny_llama():
    """A frozen tiny Llama in bfloat16."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LLAMA).to(torch.bfloat16).requires_grad_(False)


def test_a_base_is_frozen_and_keeps_no_cache(folder):
    """Nothing of the base can be trained, and no key-value cache is kept while training."""
    model, tokenizer = load_base(model=str(folder))
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.config.use_cache is False
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 0


@pytest.mark.parametrize(
    ("dtype", "held_in"),
    [
        ("auto", torch.bfloat16),
        ("bfloat16", torch.bfloat16),
        ("float16", torch.float16),
        ("float32", torch.float32),
    ],
)
def test_a_base_is_held_in_the_asked_precision(folder, dtype, held_in, monkeypatch):
    """`auto` takes what was saved, where that is arithmetic; a name takes that."""
    monkeypatch.setattr("dpacc.recipe.precision.computes_in_16_bits", lambda device: True)
    base = load_base(model=str(folder), dtype=dtype)
    assert {parameter.dtype for parameter in base.model.parameters()} == {held_in}


@pytest.mark.parametrize(
    ("quantization", "layer"),
    [("nf4", bitsandbytes.nn.Linear4bit), ("int8", bitsandbytes.nn.Linear8bitLt)],
)
def test_a_quantized_base_runs_near_the_original(folder, quantization, layer):
    """NF4 and int8 bases load on the CPU, and predict almost what the original does."""
    original = load_base(model=str(folder)).model
    quantized = load_base(model=str(folder), quantization=quantization).model
    projection = quantized.model.layers[0].self_attn.q_proj
    assert isinstance(projection, layer)
    assert not any(parameter.requires_grad for parameter in quantized.parameters())
    with torch.no_grad():
        wanted, got = original(TOKENS).logits.float(), quantized(TOKENS).logits.float()
    assert torch.isfinite(got).all()
    assert not torch.equal(got, wanted)
    assert torch.nn.functional.cosine_similarity(got, wanted, dim=-1).min() > 0.9


def test_nf4_quantizes_its_scales_too(folder, monkeypatch):
    """Double quantization is on, and arithmetic is bfloat16 unless another dtype is asked for."""
    monkeypatch.setattr("dpacc.recipe.precision.computes_in_16_bits", lambda device: True)
    for dtype, computed_in in [("auto", torch.bfloat16), ("float32", torch.float32)]:
        model = load_base(model=str(folder), quantization="nf4", dtype=dtype).model
        weight = model.model.layers[0].self_attn.q_proj.weight
        assert weight.quant_state.quant_type == "nf4"
        assert weight.quant_state.nested
        settings = model.config.quantization_config
        assert settings.bnb_4bit_compute_dtype == computed_in


def test_an_int8_base_computes_each_example_by_itself(folder):
    """No layer looks for outliers, which it would over all examples of a micro-batch at once."""
    model = load_base(model=str(folder), quantization="int8").model.eval()
    layers = [m for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear8bitLt)]
    assert layers
    assert {layer.state.threshold for layer in layers} == {0.0}
    alone = torch.randn(1, 5, 64, dtype=torch.bfloat16)
    loud = torch.cat([alone, 50 * alone])
    with torch.no_grad():
        assert all(torch.equal(layer(loud)[:1], layer(alone)) for layer in layers)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_loading_is_silent(folder, quantization, capfd):
    """No bar, no warning: the terminal belongs to the recipe."""
    level = logging.root.manager.disable
    load_base(model=str(folder), quantization=quantization)
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""
    assert logging.root.manager.disable == level


def test_an_int8_base_says_nothing_as_it_computes(folder, caplog):
    """bitsandbytes would warn in every layer of every forward that it rounds to eight bits."""
    with torch.no_grad():
        load_base(model=str(folder), quantization="int8").model.eval()(TOKENS)
    assert not caplog.records


def refusal(model):
    """The message with which a model is refused."""
    with pytest.raises(ConfigurationError) as refused:
        load_base(model=str(model))
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("path", ["./nowhere", "/no/such/model", "a/b/c", "~/no-such-model"])
def test_a_missing_folder_is_not_looked_for_on_the_hub(path):
    """What reads as a path is one, and its absence is said at once, with where it was sought."""
    assert f"model={path} is no folder (looked in" in refusal(path)


def test_a_name_below_an_existing_folder_is_a_path(tmp_path, monkeypatch):
    """`data/gone` could be a hub id; where a folder `data` exists, it is a path."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert "is no folder (looked in" in refusal("data/gone")


@pytest.mark.parametrize("name", ["nobody/no-such-model", "no-such-model"])
def test_a_model_that_the_hub_does_not_give_is_refused_at_once(name, monkeypatch):
    """An id is asked for once, without a minute of retries, and the remedy is named."""

    def unreachable(*_, **__):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("dpacc.recipe.pretrained.model_info", unreachable)
    message = refusal(name)
    assert all(part in message for part in [name, "no route", "HF_HUB_OFFLINE"])


def test_an_empty_folder_is_refused(tmp_path):
    """A folder that holds no model is named, with what it must hold."""
    assert "cannot be read" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_file_is_refused(damaged, name):
    """A broken configuration, weights file or tokenizer is one line, not a traceback."""
    (damaged / name).write_bytes(b"\x00 not what it was")
    assert "cannot be read" in refusal(damaged)


def test_weights_that_are_missing_are_not_made_up(damaged):
    """transformers would fill a missing weight with random numbers; here it is an error."""
    weights = load_file(damaged / "model.safetensors")
    lost = "model.layers.1.mlp.up_proj.weight"
    del weights[lost]
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    assert f"lacks 1 weights, {lost} among them" in refusal(damaged)


def test_a_configuration_for_another_kind_of_model_is_refused(damaged):
    """A model that is no causal language model is refused by name."""
    settings = json.loads((damaged / "config.json").read_text())
    (damaged / "config.json").write_text(json.dumps({**settings, "model_type": "vit"}))
    assert "cannot be read" in refusal(damaged)


def test_a_fresh_process_prints_nothing(folder):
    """Loading and adapting say nothing, not even bitsandbytes' advice about kernels."""
    code = (
        "from dpacc.recipe.models import add_lora, load_base\n"
        f"base = load_base(model={str(folder)!r}, quantization='nf4')\n"
        "add_lora(model=base.model, rank=2, alpha=4, gradient_checkpointing=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""
