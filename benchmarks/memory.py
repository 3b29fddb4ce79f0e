"""What `dpacc plan` says a step holds, beside what a process really held: peak resident memory.

    python benchmarks/memory.py

Each case runs two private steps, the first with its coupling probe, in a process of its own, and
reads the most memory that the process held once the model was there, libraries included. Needs the
model from `recipes/fetch_demo.py`. The last cases have a random NF4 base of four Llama-7B layers.
Large arrays are returned to the system as soon as they are freed (see seven_billion.py).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

MODEL = "data/smollm2-135m-instruct"
LAYERS_OF_7B = 4
CASES: list[dict[str, Any]] = [
    {"model": MODEL, "strategy": "materialize", "checkpointing": False, "shape": (8, 128)},
    {"model": MODEL, "strategy": "ghost", "checkpointing": False, "shape": (8, 128)},
    {"model": MODEL, "strategy": "materialize", "checkpointing": True, "shape": (8, 128)},
    {"model": MODEL, "strategy": "ghost", "checkpointing": True, "shape": (4, 256)},
    {"model": MODEL, "strategy": "materialize", "checkpointing": False, "shape": (2, 512)},
    {"model": "nf4", "strategy": "ghost", "checkpointing": True, "shape": (8, 64)},
    {"model": "nf4", "strategy": "materialize", "checkpointing": False, "shape": (4, 64)},
]


def measure(case: dict[str, Any]) -> int:
    """Bytes that two real steps held at most."""
    import torch
    from accelerate import Accelerator
    from seven_billion import random_base

    from dpacc import PrivacyEngine, PrivacyPlan, causal_lm_losses
    from dpacc.data import pad_examples
    from dpacc.models import add_lora, load_base

    accelerator = Accelerator(cpu=True)
    if case["model"] == "nf4":
        base = random_base(shape="llama-7b", layers=LAYERS_OF_7B)
    else:
        base = load_base(model=case["model"], dtype="float32").model
    model = add_lora(model=base, rank=16, alpha=32, gradient_checkpointing=case["checkpointing"])
    model.train()
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is the building's
    examples, tokens = case["shape"]
    plan = PrivacyPlan(
        dataset_size=examples,
        expected_batch_size=examples,
        steps=2,
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        target_delta=1e-5,
    )
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    rows = torch.randint(model.config.vocab_size, (examples, tokens)).tolist()
    data = [
        {"input_ids": row[: tokens - i % 2], "labels": row[: tokens - i % 2]}
        for i, row in enumerate(rows)
    ]
    with tempfile.TemporaryDirectory() as folder:
        engine = PrivacyEngine(
            accelerator,
            plan,
            ledger=Path(folder) / "ledger.jsonl",
            per_example_gradients=case["strategy"],
            micro_batch_tokens=examples * tokens,
        )
        model, optimizer = engine.prepare(model, optimizer)
        for step in engine.steps(data, lambda batch: pad_examples(batch, pad_token_id=0)):
            for batch in step:
                step.backward(causal_lm_losses(model, batch))
            step.update()
        engine.close()
    return _held("VmHWM")


def estimate(case: dict[str, Any]) -> int:
    """The same from shapes."""
    from seven_billion import SHAPES

    from dpacc.config import TrainingConfig
    from dpacc.plan import PrivacyPlan
    from dpacc.planning.architectures import read_architecture
    from dpacc.planning.memory import (
        PROBE_EXAMPLES,
        PROBE_TOKENS,
        device_memory,
    )
    from dpacc.planning.skeleton import build_skeleton
    from dpacc.planning.weightless_step import cost_of_micro_batch

    quantized = case["model"] == "nf4"
    config = TrainingConfig(
        model=case["model"],
        train_data="none.jsonl",
        epsilon=8.0,
        expected_batch_size=1,
        steps=2,
        lora_rank=16,
        quantization="nf4" if quantized else "none",
        dtype="bfloat16" if quantized else "float32",
        gradient_checkpointing=case["checkpointing"],
    )
    if quantized:
        architecture = SHAPES["llama-7b"]
        architecture.num_hidden_layers = LAYERS_OF_7B
    else:
        architecture = read_architecture(model=case["model"])
    skeleton = build_skeleton(config=config, architecture=architecture)
    plan = PrivacyPlan(
        dataset_size=8,
        expected_batch_size=8,
        steps=2,
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        target_delta=1e-5,
    )
    shapes = {case["strategy"]: case["shape"], "probe": (PROBE_EXAMPLES, PROBE_TOKENS)}
    costs = [
        cost_of_micro_batch(
            skeleton=skeleton,
            plan=plan,
            strategy="materialize" if name == "probe" else name,
            examples=examples,
            tokens=tokens,
        )
        for name, (examples, tokens) in shapes.items()
    ]
    memory = device_memory(
        skeleton=skeleton,
        step=costs[0],
        probe=costs[1],
        placement="whole",
        ranks=1,
        on_processor=True,
    )
    return memory.peak


def _held(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


@click.command()
@click.option("--case", type=int, help="Run this one here and print its two numbers.")
def main(case: int | None) -> None:
    """Print measured and estimated peaks of every case."""
    if case is not None:
        print(json.dumps([measure(CASES[case]), estimate(CASES[case])]))
        return
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"}
    print("| case | measured GiB | estimated GiB | estimated / measured |\n|---|---|---|---|")
    for index, each in enumerate(CASES):
        words = [sys.executable, __file__, "--case", str(index)]
        run = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
        measured, estimated = json.loads(run.stdout.splitlines()[-1])
        name = "SmolLM2, fp32" if each["model"] == MODEL else "4 Llama-7B layers, NF4"
        name += f", {each['shape'][0]}×{each['shape'][1]}, {each['strategy']}"
        name += ", checkpointing" if each["checkpointing"] else ""
        ratio = estimated / measured
        print(
            f"| {name} | {measured / 2**30:.2f} | {estimated / 2**30:.2f} | {ratio:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
