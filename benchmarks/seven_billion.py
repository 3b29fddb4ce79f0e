"""One private logical step on a base of seven billion parameters, on a processor: time and memory.

    python benchmarks/seven_billion.py --shape llama-7b

The base has the published shape of Llama-2-7B or GPT-J-6B, random weights, and is stored in NF4
with doubly quantized scales, one layer after another, so that it is never whole in 16 bits. The
step is the real one: coupling probe, sampling, two-pass ghost clipping, ledger, noise, AdamW.
Large arrays are returned to the system as soon as they are freed: the script starts itself again
with glibc told so, whose own threshold grows until a layer's worth stays behind for every layer.
"""

from __future__ import annotations

import hashlib
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import click
import torch
from accelerate import Accelerator
from torch import nn
from tqdm import tqdm
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GPTJConfig, LlamaConfig
from transformers.integrations.bitsandbytes import replace_with_bnb_linear

from dpacc import PrivacyEngine, PrivacyPlan, causal_lm_losses
from dpacc.config import PerExampleGradients
from dpacc.data import pad_examples
from dpacc.models import add_lora

SHAPES: dict[str, Any] = {
    "llama-7b": LlamaConfig(
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
    ),
    "gptj-6b": GPTJConfig(vocab_size=50400, n_embd=4096, n_layer=28, n_head=16, rotary_dim=64),
}
NF4 = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=torch.bfloat16,
)


def random_base(*, shape: str, layers: int | None = None) -> nn.Module:
    """A causal LM of that shape whose weights are N(0, 0.02²), its linear layers in NF4."""
    config = SHAPES[shape]
    if layers is not None:
        config.num_hidden_layers = layers
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model = replace_with_bnb_linear(
        model, modules_to_not_convert=["lm_head"], quantization_config=NF4
    )
    rotary = {name for name, _ in model.named_buffers()}
    for module in tqdm(list(model.modules()), desc=f"{shape} in NF4"):
        _fill(module)
    _restore_buffers(model, config, rotary)
    model.is_loaded_in_4bit = True
    model.is_quantized = True
    model.config.quantization_config = NF4
    model.config.use_cache = False
    return model.requires_grad_(False)


def _fill(module: nn.Module) -> None:
    """Give the module's own parameters values; quantize them where the module is quantized."""
    for name, parameter in list(module._parameters.items()):
        if parameter is None:
            continue
        if isinstance(module, bnb.nn.Linear4bit) and name == "weight":
            drawn = torch.empty(module.out_features, module.in_features).normal_(std=0.02)
            module.weight = bnb.nn.Params4bit(
                drawn.to(torch.bfloat16),
                requires_grad=False,
                quant_type="nf4",
                compress_statistics=True,
                module=module,
            ).to("cpu")
            continue
        value = torch.empty(parameter.shape, dtype=torch.bfloat16)
        is_scale = name == "weight" and parameter.ndim == 1
        value = torch.ones_like(value) if is_scale else value.normal_(std=0.02)
        module._parameters[name] = nn.Parameter(value, requires_grad=False)


def _restore_buffers(model: nn.Module, config: Any, names: set[str]) -> None:
    """Compute anew what a constructor computes (rotary angles), from a model of one layer."""
    small = type(config)(**(config.to_dict() | {"num_hidden_layers": 1, "vocab_size": 8}))
    small.intermediate_size = 8
    computed = dict(AutoModelForCausalLM.from_config(small).named_buffers())
    for name in names:
        owner, _, leaf = name.rpartition(".")
        one_layer = ".".join("0" if part.isdigit() else part for part in name.split("."))
        setattr(model.get_submodule(owner), leaf, computed[one_layer].clone())


@click.command()
@click.option("--shape", type=click.Choice(list(SHAPES)), default="llama-7b", show_default=True)
@click.option("--examples", default=8, show_default=True, help="Examples in the logical batch.")
@click.option("--tokens", default=64, show_default=True, help="Tokens of each example.")
@click.option("--rank", default=16, show_default=True, help="Rank of the adapters.")
@click.option("--strategy", type=click.Choice(["ghost", "materialize"]), default="ghost")
@click.option("--micro-batch-tokens", default=512, show_default=True)
@click.option("--layers", type=int, help="Fewer layers, to try the script.")
def main(
    shape: str,
    examples: int,
    tokens: int,
    rank: int,
    strategy: PerExampleGradients,
    micro_batch_tokens: int,
    layers: int | None,
) -> None:
    """Build the base, train two logical steps, and print what they took."""
    started = time.monotonic()
    model = random_base(shape=shape, layers=layers)
    parameters = sum(_count(p) for p in model.parameters())
    print(f"{shape}: {parameters / 1e9:.2f} billion parameters, built in {_since(started)}")
    print(f"peak so far {_peak():.2f} GiB")
    model = add_lora(model=model, rank=rank, alpha=2 * rank, gradient_checkpointing=True)
    trainable = [p for p in model.parameters() if p.requires_grad]
    plan = PrivacyPlan(
        dataset_size=examples,
        expected_batch_size=examples,
        steps=2,
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        target_delta=1e-5,
    )
    optimizer = torch.optim.AdamW(trainable, lr=1e-4)
    before = [_digest(p) for p in trainable]
    with tempfile.TemporaryDirectory() as folder:
        engine = PrivacyEngine(
            Accelerator(cpu=True),
            plan,
            ledger=Path(folder) / "ledger.jsonl",
            per_example_gradients=strategy,
            micro_batch_tokens=micro_batch_tokens,
        )
        model, optimizer = engine.prepare(model, optimizer)
        vocabulary = model.config.vocab_size
        rows = torch.randint(vocabulary, (examples, tokens)).tolist()
        data = [{"input_ids": ids, "attention_mask": [1] * tokens, "labels": ids} for ids in rows]
        asked = time.monotonic()
        for step in engine.steps(data, lambda batch: pad_examples(batch, pad_token_id=0)):
            for batch in step:
                step.backward(causal_lm_losses(model, batch))
            step.update()
            print(f"step {step.index}: {_since(asked)}, peak so far {_peak():.2f} GiB")
            asked = time.monotonic()
        engine.close()
    moved = sum(_digest(p) != old for p, old in zip(trainable, before, strict=True))
    print(f"{sum(p.numel() for p in trainable):,} trainable parameters")
    print(f"{moved} of {len(trainable)} adapter matrices moved; {strategy}, rank {rank}, ", end="")
    print(f"{examples} examples of {tokens} tokens")


def return_freed_memory() -> None:
    """Start again with a fixed threshold above which glibc maps, and unmaps, each array."""
    name = "MALLOC_MMAP_THRESHOLD_"
    if name not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {name: "1000000"})


def _count(parameter: nn.Parameter) -> int:
    packed = isinstance(parameter, bnb.nn.Params4bit)
    return parameter.numel() * (2 if packed else 1)


def _digest(parameter: nn.Parameter) -> bytes:
    return hashlib.sha256(parameter.detach().numpy().data).digest()


def _since(start: float) -> str:
    return f"{time.monotonic() - start:.0f} s"


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    return_freed_memory()
    main()
