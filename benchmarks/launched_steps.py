"""Private steps under any launch: time, examples a second, and each rank's peak memory.

    accelerate launch --config_file launch_configs/ddp.yaml \\
        benchmarks/launched_steps.py --dtype bfloat16
    accelerate launch --config_file launch_configs/deepspeed_zero3.yaml --num_processes 2 \\
        benchmarks/launched_steps.py --shape gptj-6b --dtype bfloat16 --checkpointing
    accelerate launch --config_file launch_configs/cpu_2proc.yaml \\
        benchmarks/launched_steps.py --shape small

The base has the published shape and random weights; LoRA is on all linear layers. One logical batch
of `--examples` examples is shared by all ranks, so the same line with another `--num_processes`
gives the speed-up. The first step, with its checks, is not timed. After it the ranks compare their
adapters, bit for bit.
"""

from __future__ import annotations

import hashlib
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

import click
import torch
from accelerate.utils import gather_object
from shapes import SHAPES
from transformers import AutoModelForCausalLM, LlamaConfig, set_seed

from dpacc import PrivacyEngine, PrivacyPlan, causal_lm_losses
from dpacc.ranks.collectives import join_ranks
from dpacc.recipe.config import PerExampleGradients
from dpacc.recipe.examples import pad_examples
from dpacc.recipe.models import add_lora

SMALL = LlamaConfig(
    vocab_size=512,
    hidden_size=128,
    intermediate_size=384,
    num_hidden_layers=2,
    num_attention_heads=4,
)


@click.command()
@click.option(
    "--shape", type=click.Choice([*SHAPES, "small"]), default="llama-7b", show_default=True
)
@click.option("--dtype", default="float32", show_default=True, help="Of the frozen base.")
@click.option("--examples", default=64, show_default=True, help="Examples in the logical batch.")
@click.option("--tokens", default=128, show_default=True, help="Tokens of each example.")
@click.option("--steps", default=6, show_default=True, help="Logical steps.")
@click.option("--rank", default=16, show_default=True, help="Rank of the adapters.")
@click.option("--strategy", type=click.Choice(["auto", "materialize", "ghost"]), default="auto")
@click.option("--checkpointing/--no-checkpointing", default=False, show_default=True)
@click.option("--micro-batch-tokens", default=4096, show_default=True)
def main(
    shape: str,
    dtype: str,
    examples: int,
    tokens: int,
    steps: int,
    rank: int,
    strategy: PerExampleGradients,
    checkpointing: bool,
    micro_batch_tokens: int,
) -> None:
    """Train some logical steps, and print what they took."""
    accelerator = join_ranks()
    set_seed(0)
    config = SMALL if shape == "small" else SHAPES[shape]
    base = AutoModelForCausalLM.from_config(
        config, dtype=getattr(torch, dtype), trust_remote_code=False
    )
    model = add_lora(
        model=base.requires_grad_(False),
        rank=rank,
        alpha=2 * rank,
        gradient_checkpointing=checkpointing,
    ).train()
    adapters = [p for p in model.parameters() if p.requires_grad]
    rows = torch.randint(config.vocab_size, (examples, tokens)).tolist()
    data = [{"input_ids": ids, "labels": ids} for ids in rows]
    plan = PrivacyPlan(
        dataset_size=examples,
        expected_batch_size=examples,
        steps=steps,
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        target_delta=1e-5,
    )
    folder = tempfile.TemporaryDirectory()
    engine = PrivacyEngine(
        accelerator,
        plan,
        ledger=Path(folder.name) / "ledger.jsonl",
        per_example_gradients=strategy,
        micro_batch_tokens=micro_batch_tokens,
    )
    model, _ = engine.prepare(model, torch.optim.AdamW(adapters, lr=1e-4))
    seconds, asked = [], time.monotonic()
    for step in engine.steps(data, lambda batch: pad_examples(batch, pad_token_id=0)):
        for batch in step:
            step.backward(causal_lm_losses(model, batch))
        step.update()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.monotonic() - asked)
        accelerator.print(f"step {step.index}: {seconds[-1]:.3f} s", flush=True)
        asked = time.monotonic()
    engine.close()
    with engine.whole_adapters():
        digest = _digest(model)
    if len(set(gather_object([digest]))) != 1:
        raise SystemExit("error: the ranks hold different adapters")
    peaks = gather_object([_peak()])
    later = statistics.median(seconds[1:])
    accelerator.print(
        f"{shape}, {accelerator.distributed_type.value}, {accelerator.num_processes} rank(s), "
        f"{engine.per_example_gradients}: {later:.3f} s a step, {examples / later:.2f} examples/s, "
        f"peak {max(peaks):.2f} GiB on one rank, the same adapters on all"
    )
    accelerator.end_training()
    folder.cleanup()


def _digest(model: torch.nn.Module) -> bytes:
    found = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if "lora_" in name:
            found.update(parameter.detach().float().cpu().numpy().tobytes())
    return found.digest()


def _peak() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    # A lone process would be given every core.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
