"""Private steps under any launch: time, examples a second, and each rank's peak memory.

    accelerate launch --config_file launch_configs/ddp.yaml \\
        benchmarks/launched_steps.py
    accelerate launch --config_file launch_configs/deepspeed_zero3.yaml --num_processes 2 \\
        benchmarks/launched_steps.py --shape gptj-6b --checkpointing
    accelerate launch --config_file launch_configs/cpu_2proc.yaml \\
        benchmarks/launched_steps.py --shape small --base fp32

The base has the published shape and random weights, made on each rank's device; LoRA is on all
linear layers. One logical batch of `--examples` examples is shared by all ranks, so the same line
with another `--num_processes` gives the speed-up. The first step, with its checks, is not timed.
After it the ranks compare their adapters, bit for bit. `--tool PEFT` trains the same without
privacy, under a launch that cuts nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from random_bases import random_base
from shapes import SHAPES
from transformers import set_seed

from dpacc import PrivacyEngine, PrivacyPlan, causal_lm_losses
from dpacc.ranks.collectives import join_ranks
from dpacc.recipe.examples import pad_examples
from dpacc.recipe.models import add_lora

Rows = list[list[int]]


def private(
    accelerator: Accelerator, model: Any, rows: Rows, *, steps: int, **settings: Any
) -> Iterator[str]:
    """dpacc: what gives each rank its examples and keeps the ranks alike; yields the digests."""
    plan = PrivacyPlan(
        dataset_size=len(rows),
        expected_batch_size=len(rows),
        steps=steps,
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        target_delta=1e-5,
    )
    adapters = [p for p in model.parameters() if p.requires_grad]
    with tempfile.TemporaryDirectory() as folder:
        engine = PrivacyEngine(accelerator, plan, ledger=Path(folder) / "ledger.jsonl", **settings)
        model, _ = engine.prepare(model, torch.optim.AdamW(adapters, lr=1e-4))
        data = [{"input_ids": ids, "labels": ids} for ids in rows]
        for step in engine.steps(data, lambda batch: pad_examples(batch, pad_token_id=0)):
            for batch in step:
                step.backward(causal_lm_losses(model, batch))
            step.update()
            yield ""
        engine.close()
        with engine.whole_adapters():
            yield _digest(model)


def non_private(
    accelerator: Accelerator, model: Any, rows: Rows, *, steps: int, micro_batch_tokens: int
) -> Iterator[str]:
    """PEFT and AdamW: each rank takes every so manieth example."""
    adapters = [p for p in model.parameters() if p.requires_grad]
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(adapters, lr=1e-4))
    mine = torch.tensor(rows[accelerator.process_index :: accelerator.num_processes])
    batches = mine.to(accelerator.device).split(max(1, micro_batch_tokens // mine.shape[1]))
    for _ in range(steps):
        for ids in batches[:-1]:
            with accelerator.no_sync(model):
                accelerator.backward(model(input_ids=ids, labels=ids).loss / len(batches))
        accelerator.backward(model(input_ids=batches[-1], labels=batches[-1]).loss / len(batches))
        optimizer.step()
        optimizer.zero_grad()
        yield ""
    yield _digest(model)


@click.command()
@click.option("--shape", type=click.Choice(list(SHAPES)), default="llama-7b", show_default=True)
@click.option("--base", type=click.Choice(["fp32", "bf16", "NF4"]), default="bf16")
@click.option("--tool", type=click.Choice(["dpacc", "PEFT"]), default="dpacc", show_default=True)
@click.option("--examples", default=64, show_default=True, help="Examples in the logical batch.")
@click.option("--tokens", default=128, show_default=True, help="Tokens of each example.")
@click.option("--steps", default=6, show_default=True, help="Logical steps.")
@click.option("--rank", default=16, show_default=True, help="Rank of the adapters.")
@click.option("--strategy", type=click.Choice(["auto", "materialize", "ghost"]), default="auto")
@click.option("--compile", "compiled", default="none", show_default=True)
@click.option("--kernels", default="torch", show_default=True)
@click.option("--checkpointing/--no-checkpointing", default=False, show_default=True)
@click.option("--micro-batch-tokens", default=4096, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Say it in one line of JSON.")
def main(
    shape: str,
    base: str,
    tool: str,
    examples: int,
    tokens: int,
    steps: int,
    rank: int,
    strategy: str,
    compiled: str,
    kernels: str,
    checkpointing: bool,
    micro_batch_tokens: int,
    as_json: bool,
) -> None:
    """Train some logical steps, and print what they took."""
    accelerator = join_ranks()
    set_seed(0)
    frozen = random_base(shape=shape, quantized=base == "NF4")
    frozen = frozen.float() if base == "fp32" else frozen
    model = add_lora(
        model=frozen, rank=rank, alpha=2 * rank, gradient_checkpointing=checkpointing
    ).train()
    rows: Rows = torch.randint(SHAPES[shape].vocab_size, (examples, tokens)).tolist()
    if tool == "PEFT":
        work = non_private(
            accelerator, model, rows, steps=steps, micro_batch_tokens=micro_batch_tokens
        )
    else:
        work = private(
            accelerator,
            model,
            rows,
            steps=steps,
            micro_batch_tokens=micro_batch_tokens,
            per_example_gradients=strategy,
            compile=compiled,
            kernels=kernels,
        )
    seconds, asked = [], time.monotonic()
    for _ in range(steps):
        next(work)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.monotonic() - asked)
        asked = time.monotonic()
        if len(seconds) == 1 and torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()  # the whole base was here before it was cut
    if len(set(gather_object([next(work)]))) != 1:
        raise SystemExit("error: the ranks hold different adapters")
    found = {
        "seconds": statistics.median(seconds[1:]),
        "fastest": min(seconds[1:]),
        "slowest": max(seconds[1:]),
        "peak_gib": max(gather_object([_peak()])),
        "examples_per_second": examples / statistics.median(seconds[1:]),
        "ranks": accelerator.num_processes,
        "distributed": accelerator.distributed_type.value,
    }
    if as_json:
        accelerator.print(json.dumps(found), flush=True)
    else:
        accelerator.print(
            f"{shape}, {tool}, {found['distributed']}, {found['ranks']} rank(s): "
            f"{found['seconds']:.3f} s a step, {found['examples_per_second']:.2f} examples/s, "
            f"peak {found['peak_gib']:.2f} GiB on one rank, the same adapters on all"
        )
    accelerator.end_training()


def _digest(model: torch.nn.Module) -> str:
    found = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if "lora_" in name:
            found.update(parameter.detach().float().cpu().numpy().tobytes())
    return found.hexdigest()


def _peak() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    # A lone process would be given every core.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
