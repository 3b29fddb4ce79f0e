"""Private logical steps on a base of seven billion parameters: time and memory.

    python benchmarks/seven_billion.py --shape llama-7b
    python benchmarks/seven_billion.py --tokens 512 --examples 16 --micro-batch-tokens 4096 \\
        --steps 6 --tool dpacc --no-checkpointing     # on a GPU

On the GPU if there is one, else on the processor. `--tool PEFT` trains the same without privacy,
`--tool "Opacus hooks"` with those. The base has the published shape of Llama-2-7B or GPT-J-6B,
random weights, and is stored in NF4 with doubly quantized scales, one layer after another, so that
it is never whole in 16 bits. dpacc's step is the real one: coupling probe, sampling, clipping,
ledger, noise, AdamW.

On a processor, large arrays are returned to the system as soon as they are freed: the script
starts itself again with glibc told so, whose own threshold grows until a layer's worth stays behind
for every layer. After the first step tiles of unpacked weights stay at hand. oneDNN is told to keep
the code of about as many products as a layer has.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import resource
import statistics
import sys
import time

import bitsandbytes as bnb
import click
import torch
from contenders import trainable
from random_bases import DEVICE, random_base
from random_text_steps import TOOLS, Work
from shapes import SHAPES
from torch import nn

from dpacc.layers.packed_weights import TILE_BYTES
from dpacc.recipe.models import add_lora


@click.command()
@click.option("--shape", type=click.Choice(list(SHAPES)), default="llama-7b", show_default=True)
@click.option("--tool", type=click.Choice(list(TOOLS)), default="dpacc ghost", show_default=True)
@click.option("--examples", default=8, show_default=True, help="Examples in the logical batch.")
@click.option("--tokens", default=64, show_default=True, help="Tokens of each example.")
@click.option("--steps", default=2, show_default=True, help="Logical steps.")
@click.option("--rank", default=16, show_default=True, help="Rank of the adapters.")
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
    checkpointing: bool,
    micro_batch_tokens: int,
    layers: int | None,
) -> None:
    """Build the base, train some logical steps, and print what they took."""
    started = time.monotonic()
    base = random_base(shape=shape, layers=layers)
    parameters = sum(_count(p) for p in base.parameters())
    print(f"{shape}: {parameters / 1e9:.2f} billion parameters, built in {_since(started)}")
    print(f"peak so far {_peak():.2f} GiB", flush=True)
    adapted = add_lora(model=base, rank=rank, alpha=2 * rank, gradient_checkpointing=checkpointing)
    model = adapted.to(DEVICE).train()
    adapters = trainable(model)
    before = [_digest(p) for p in adapters]
    work = Work(
        examples=examples, tokens=tokens, steps=steps, micro_batch_tokens=micro_batch_tokens
    )
    seconds, asked = [], time.monotonic()
    for step, _ in enumerate(TOOLS[tool](model, work)):
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.monotonic() - asked)
        print(f"step {step}: {seconds[-1]:.2f} s, peak so far {_peak():.2f} GiB", flush=True)
        keep_tiles_at_hand()
        asked = time.monotonic()
    later = statistics.median(seconds[1:])
    moved = sum(_digest(p) != old for p, old in zip(adapters, before, strict=True))
    print(f"{sum(p.numel() for p in adapters):,} trainable parameters")
    print(f"{moved} of {len(adapters)} adapter matrices moved; rank {rank}, ", end="")
    print(f"{examples} examples of {tokens} tokens, checkpointing {checkpointing}")
    print(f"{tool}: {later:.2f} s a step after the first, {examples * tokens / later:.0f} tokens/s")


BOUNDS = {"MALLOC_MMAP_THRESHOLD_": "1000000", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "24"}
"""What glibc maps by itself; of how many products oneDNN keeps the code."""


def return_freed_memory() -> None:
    """Start again within `BOUNDS`, which are read when a process starts."""
    if not BOUNDS.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | BOUNDS)


def keep_tiles_at_hand() -> None:
    """From now on map what is larger than a tile, which would else be mapped anew each time.

    Not before the probe, whose micro-batches of other sizes would leave holes.
    """
    if sys.platform == "linux":
        trim_threshold, mmap_threshold = -1, -3  # as in malloc.h
        libc = ctypes.CDLL(None)
        libc.malloc_trim(0)
        libc.mallopt(mmap_threshold, TILE_BYTES + 2**16)
        libc.mallopt(trim_threshold, 4 * TILE_BYTES)


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
