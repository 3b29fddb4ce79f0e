"""Private logical steps on a base of seven billion parameters: time and memory.

    python benchmarks/seven_billion.py --shape llama-7b
    python benchmarks/seven_billion.py --tokens 512 --examples 16 --micro-batch-tokens 4096 \\
        --steps 6 --strategy materialize --no-checkpointing     # on a GPU

On the GPU if there is one, else on the processor. `--tool PEFT` trains the same without privacy,
`--tool Opacus` with Opacus' hooks. The base has the published shape of Llama-2-7B or GPT-J-6B,
random weights, and is stored in NF4 with doubly quantized scales, one layer after another, so that
it is never whole in 16 bits. dpacc's step is the real one: coupling probe, sampling, clipping,
ledger, noise, AdamW.

On a processor, large arrays are returned to the system as soon as they are freed: the script
starts itself again with glibc told so, whose own threshold grows until a layer's worth stays
behind for every layer.
"""

from __future__ import annotations

import hashlib
import os
import resource
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import click
import torch
from accelerate import Accelerator
from contenders import trainable
from shapes import SHAPES
from torch import Tensor, nn
from tqdm import tqdm
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.integrations.bitsandbytes import replace_with_bnb_linear

from dpacc import PrivacyEngine, PrivacyPlan, causal_lm_losses
from dpacc.recipe.config import PerExampleGradients
from dpacc.recipe.examples import pad_examples
from dpacc.recipe.models import add_lora

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
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
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, trust_remote_code=False
        )
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
            shape = module.out_features, module.in_features
            drawn = torch.empty(shape, device=DEVICE).normal_(std=0.02)
            module.weight = bnb.nn.Params4bit(
                drawn.to(torch.bfloat16),
                requires_grad=False,
                quant_type="nf4",
                compress_statistics=True,
                module=module,
            ).to(DEVICE)
            continue
        value = torch.empty(parameter.shape, dtype=torch.bfloat16, device=DEVICE)
        is_scale = name == "weight" and parameter.ndim == 1
        value = torch.ones_like(value) if is_scale else value.normal_(std=0.02)
        module._parameters[name] = nn.Parameter(value, requires_grad=False)


def _restore_buffers(model: nn.Module, config: Any, names: set[str]) -> None:
    """Compute anew what a constructor computes (rotary angles), from a model of one layer."""
    small = type(config)(**(config.to_dict() | {"num_hidden_layers": 1, "vocab_size": 8}))
    small.intermediate_size = 8
    small_model = AutoModelForCausalLM.from_config(small, trust_remote_code=False)
    computed = dict(small_model.named_buffers())
    for name in names:
        owner, _, leaf = name.rpartition(".")
        one_layer = ".".join("0" if part.isdigit() else part for part in name.split("."))
        setattr(model.get_submodule(owner), leaf, computed[one_layer].to(DEVICE))


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every tool trains on: `examples` sequences of `tokens` random tokens, `steps` times."""

    examples: int
    tokens: int
    steps: int
    strategy: PerExampleGradients
    micro_batch_tokens: int

    def rows(self, vocabulary: int) -> list[list[int]]:
        """The sequences."""
        rows: list[list[int]] = torch.randint(vocabulary, (self.examples, self.tokens)).tolist()
        return rows

    def batches(self, vocabulary: int) -> list[dict[str, Tensor]]:
        """The micro-batches of a step, for the tools that do not cut it themselves."""
        at_once = self.micro_batch_tokens // self.tokens
        parts = torch.tensor(self.rows(vocabulary), device=DEVICE).split(at_once)
        return [{"input_ids": ids, "labels": ids} for ids in parts]


def private(model: Any, work: Work) -> Iterator[None]:
    """dpacc: a step at each turn."""
    plan = PrivacyPlan(
        dataset_size=work.examples,
        expected_batch_size=work.examples,
        steps=work.steps,
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        target_delta=1e-5,
    )
    optimizer = torch.optim.AdamW(trainable(model), lr=1e-4)
    with tempfile.TemporaryDirectory() as folder:
        engine = PrivacyEngine(
            Accelerator(cpu=DEVICE.type == "cpu"),
            plan,
            ledger=Path(folder) / "ledger.jsonl",
            per_example_gradients=work.strategy,
            micro_batch_tokens=work.micro_batch_tokens,
        )
        model, optimizer = engine.prepare(model, optimizer)
        data = [{"input_ids": ids, "labels": ids} for ids in work.rows(model.config.vocab_size)]
        for step in engine.steps(data, lambda batch: pad_examples(batch, pad_token_id=0)):
            for batch in step:
                step.backward(causal_lm_losses(model, batch))
            step.update()
            yield
        engine.close()


def non_private(model: Any, work: Work) -> Iterator[None]:
    """PEFT and AdamW without privacy."""
    optimizer = torch.optim.AdamW(trainable(model), lr=1e-4)
    batches = work.batches(model.config.vocab_size)
    for _ in range(work.steps):
        for batch in batches:
            (model(**batch).loss / len(batches)).backward()
        optimizer.step()
        optimizer.zero_grad()
        yield


def opacus(model: Any, work: Work) -> Iterator[None]:
    """Opacus' hooks, each micro-batch's gradients clipped and added up before the noise."""
    from opacus import PrivacyEngine as OpacusEngine
    from torch.utils.data import DataLoader

    warnings.filterwarnings("ignore")
    private, optimizer, _ = OpacusEngine().make_private(
        module=model,
        optimizer=torch.optim.AdamW(trainable(model), lr=1e-4),
        data_loader=DataLoader(range(work.examples), batch_size=work.examples),  # type: ignore[arg-type]
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        poisson_sampling=False,
    )
    criterion = nn.CrossEntropyLoss(reduction="none")
    batches = work.batches(model.config.vocab_size)
    for _ in range(work.steps):
        for place, batch in enumerate(batches, start=1):
            logits = private(input_ids=batch["input_ids"]).logits[:, :-1]
            losses = criterion(logits.transpose(1, 2), batch["labels"][:, 1:])
            losses.mean(dim=1).mean().backward()
            optimizer.signal_skip_step(do_skip=place < len(batches))
            optimizer.step()
            optimizer.zero_grad()
        yield


TOOLS: dict[str, Callable[[Any, Work], Iterator[None]]] = {
    "dpacc": private,
    "PEFT": non_private,
    "Opacus": opacus,
}


@click.command()
@click.option("--shape", type=click.Choice(list(SHAPES)), default="llama-7b", show_default=True)
@click.option("--tool", type=click.Choice(list(TOOLS)), default="dpacc", show_default=True)
@click.option("--examples", default=8, show_default=True, help="Examples in the logical batch.")
@click.option("--tokens", default=64, show_default=True, help="Tokens of each example.")
@click.option("--steps", default=2, show_default=True, help="Logical steps.")
@click.option("--rank", default=16, show_default=True, help="Rank of the adapters.")
@click.option("--strategy", type=click.Choice(["ghost", "materialize"]), default="ghost")
@click.option("--checkpointing/--no-checkpointing", default=True, show_default=True)
@click.option("--micro-batch-tokens", default=512, show_default=True)
@click.option("--layers", type=int, help="Fewer layers, to try the script.")
def main(
    shape: str,
    tool: str,
    examples: int,
    tokens: int,
    steps: int,
    rank: int,
    strategy: PerExampleGradients,
    checkpointing: bool,
    micro_batch_tokens: int,
    layers: int | None,
) -> None:
    """Build the base, train some logical steps, and print what they took."""
    started = time.monotonic()
    base = random_base(shape=shape, layers=layers)
    parameters = sum(_count(p) for p in base.parameters())
    print(f"{shape}: {parameters / 1e9:.2f} billion parameters, built in {_since(started)}")
    print(f"peak so far {_peak():.2f} GiB")
    adapted = add_lora(model=base, rank=rank, alpha=2 * rank, gradient_checkpointing=checkpointing)
    model = adapted.to(DEVICE).train()
    adapters = trainable(model)
    before = [_digest(p) for p in adapters]
    work = Work(
        examples=examples,
        tokens=tokens,
        steps=steps,
        strategy=strategy,
        micro_batch_tokens=micro_batch_tokens,
    )
    seconds, asked = [], time.monotonic()
    for step, _ in enumerate(TOOLS[tool](model, work)):
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.monotonic() - asked)
        print(f"step {step}: {seconds[-1]:.2f} s, peak so far {_peak():.2f} GiB", flush=True)
        asked = time.monotonic()
    later = statistics.median(seconds[1:])
    moved = sum(_digest(p) != old for p, old in zip(adapters, before, strict=True))
    print(f"{sum(p.numel() for p in adapters):,} trainable parameters")
    print(f"{moved} of {len(adapters)} adapter matrices moved; {strategy}, rank {rank}, ", end="")
    print(f"{examples} examples of {tokens} tokens, checkpointing {checkpointing}")
    print(f"{tool}: {later:.2f} s a step after the first, {examples * tokens / later:.0f} tokens/s")


def return_freed_memory() -> None:
    """Start again with a fixed threshold above which glibc maps, and unmaps, each array."""
    name = "MALLOC_MMAP_THRESHOLD_"
    if name not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {name: "1000000"})


def _count(parameter: nn.Parameter) -> int:
    packed = isinstance(parameter, bnb.nn.Params4bit)
    return parameter.numel() * (2 if packed else 1)


def _digest(parameter: nn.Parameter) -> bytes:
    return hashlib.sha256(parameter.detach().cpu().numpy().data).digest()


def _since(start: float) -> str:
    return f"{time.monotonic() - start:.0f} s"


def _peak() -> float:
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    return_freed_memory()
    main()
