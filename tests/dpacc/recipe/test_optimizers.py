"""The optimizer that the settings name, over the parameters it is given."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig, load_config
from dpacc.recipe.models import add_lora, load_base
from dpacc.recipe.optimizers import gain_beneath, optimizer_for, rate_under_noise


def config(**changes: object) -> TrainingConfig:
    values = {"model": "m", "train_data": "d.jsonl", "epsilon": 8.0, "steps": 4}
    return TrainingConfig(**{**values, "expected_batch_size": 8, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_the_named_one_takes_rate_and_decay(name: str, kind: type[torch.optim.Optimizer]) -> None:
    """Both settings reach it, and every parameter."""
    weights = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))]
    asked = config(optimizer=name, learning_rate=0.3, weight_decay=0.1)
    found = optimizer_for(weights, config=asked, rate=0.3)
    assert type(found) is kind
    (group,) = found.param_groups
    assert group["params"] == weights
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.1)


def test_momentum_carries_on() -> None:
    """A gradient that was seen once moves the next step by 0.9 of what it moved the first."""
    weight = nn.Parameter(torch.zeros(1))
    asked = config(optimizer="sgd", learning_rate=1.0)
    optimizer = optimizer_for([weight], config=asked, rate=1.0)
    weight.grad = torch.tensor([-1.0])
    optimizer.step()
    weight.grad = torch.tensor([0.0])
    optimizer.step()
    assert weight.item() == pytest.approx(1.9)


def test_noise_alone_moves_adapters_of_any_size_equally_far() -> None:
    """AdamW at the usual rate, fed with noise, ends as far from where it began for few parameters
    in many steps as for many in few, within the noise's own spread."""
    generator, ends = torch.Generator().manual_seed(1), []
    for width, steps in ((50_000, 90), (450_000, 10)):
        weight = nn.Parameter(torch.zeros(width))
        rate = rate_under_noise(trained=width, steps=steps)
        optimizer = optimizer_for([weight], config=config(), rate=rate)
        for _ in range(steps):
            weight.grad = torch.randn(width, generator=generator)
            optimizer.step()
        ends.append(float(weight.detach().norm()))
    assert ends[0] == pytest.approx(ends[1], rel=0.15)
    assert ends[0] == pytest.approx(48, rel=0.3)


def _turned(*, gain: float) -> float:
    """‖B·A·x‖ over ‖W·x‖ after noise alone, at the usual rate, on both factors."""
    width, rank, steps = 512, 4, 40
    generator = torch.Generator().manual_seed(2)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    weight = drawn(width, width) * gain / math.sqrt(width)
    factors = [nn.Parameter(torch.zeros(rank, width)), nn.Parameter(torch.zeros(width, rank))]
    rate = rate_under_noise(trained=2**18, steps=steps, gain=gain)
    optimizer = optimizer_for(factors, config=config(), rate=rate)
    for _ in range(steps):
        for factor in factors:
            factor.grad = drawn(*factor.shape)
        optimizer.step()
    inputs = drawn(width, 64)
    lower, upper = (factor.detach() for factor in factors)
    return float((upper @ lower @ inputs).norm() / (weight @ inputs).norm())


def test_noise_alone_turns_outputs_of_every_base_equally_far() -> None:
    """At the usual rate what noise makes of B·A·x is a share of W·x that W's size does not
    change."""
    turned = [_turned(gain=gain) for gain in (4.0, 1.0, 0.25)]
    assert turned[1:] == pytest.approx(turned[:1] * 2, rel=0.01)
    assert turned[0] > 0.1


def test_a_base_that_makes_more_of_its_inputs_bears_no_larger_rate() -> None:
    """Beyond a gain of 4 the rate stays, for none larger was measured."""
    usual = rate_under_noise(trained=10**6, steps=100)
    assert rate_under_noise(trained=10**6, steps=100, gain=5.2) == usual
    assert rate_under_noise(trained=10**6, steps=100, gain=3.9) < usual


def test_whitened_adapters_take_a_quarter_on_any_base() -> None:
    """12/√(d·T), whatever the frozen layers make of their inputs, and 0.025 at most."""
    usual = rate_under_noise(trained=10**6, steps=100)
    for gain in (5.2, 4.0, 0.5):
        found = rate_under_noise(trained=10**6, steps=100, gain=gain, method="whitened")
        assert found == usual / 4
    assert rate_under_noise(trained=100, steps=100, gain=0.5, method="whitened") == 0.025


LLAMA = LlamaConfig(
    vocab_size=32,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=1,
    num_attention_heads=2,
)


def test_the_gain_is_that_of_white_inputs() -> None:
    """The mean over adapted layers of |W·x|/|x| in root mean square, by drawing x."""
    torch.manual_seed(0)
    base = LlamaForCausalLM(LLAMA)
    layer = base.model.layers[0]
    adapted = [layer.self_attn.q_proj, layer.mlp.down_proj]
    with torch.no_grad():
        adapted[0].weight.mul_(30)
        adapted[1].weight.mul_(10)
    model: Any = add_lora(model=base, rank=2, alpha=4.0, target_modules=["q_proj", "down_proj"])
    by_drawing = []
    for each in adapted:
        inputs = torch.randn(20_000, each.in_features)
        outputs = inputs @ each.weight.detach().T
        by_drawing.append(float(outputs.square().mean().sqrt() / inputs.square().mean().sqrt()))
    assert gain_beneath(model) == pytest.approx(sum(by_drawing) / 2, rel=0.02)


def test_a_transposed_layer_has_the_gain_of_its_outputs() -> None:
    """GPT-2 stores [inputs, outputs]."""
    torch.manual_seed(0)
    shape = GPT2Config(vocab_size=16, n_positions=8, n_embd=32, n_layer=1, n_head=2)
    base = GPT2LMHeadModel(shape)
    weight = base.transformer.h[0].mlp.c_fc.weight
    assert weight.shape == (32, 128)
    with torch.no_grad():
        weight.fill_(0.5)
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["c_fc"], fan_in_fan_out=True))
    assert gain_beneath(model) == float(f"{0.5 * math.sqrt(32):.2g}")


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantized_base_has_the_gain_of_its_weights(tmp_path: Path, quantization: str) -> None:
    """Within what quantizing changes, and reading it leaves the base what it was."""
    torch.manual_seed(0)
    whole = LlamaForCausalLM(LLAMA)
    for parameter in whole.parameters():
        parameter.data.mul_(20)
    whole.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(TOKENIZER, encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "a"}', encoding="utf-8"
    )
    tokens = torch.arange(8)[None]
    base, _ = load_base(model=str(tmp_path), quantization=quantization)  # type: ignore[arg-type]
    model = add_lora(model=base, rank=2, alpha=4.0)
    before = model(tokens).logits
    found = gain_beneath(model)
    assert torch.equal(model(tokens).logits, before)
    assert found == pytest.approx(gain_beneath(add_lora(model=whole, rank=2, alpha=4.0)), rel=0.03)


TOKENIZER = """{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0},
"unk_token": "a"}, "added_tokens": []}"""


def test_sgd_needs_a_rate() -> None:
    """Its own depends on the task, and no default serves."""
    with pytest.raises(ConfigurationError, match="optimizer=sgd without learning_rate"):
        config(optimizer="sgd")


def test_another_name_is_refused() -> None:
    """The known ones are listed."""
    given = ["--model=m", "--train_data=d.jsonl", "--epsilon=8", "--steps=4"]
    with pytest.raises(ConfigurationError, match=r"adamw\|sgd"):
        load_config(arguments=[*given, "--expected_batch_size=8", "--optimizer=lion"])
