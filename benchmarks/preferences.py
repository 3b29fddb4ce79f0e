"""Held-out preference accuracy and margin per epsilon, by private DPO on rated conversations.

    python recipes/fetch_demo.py && python recipes/fetch_benchmarks.py
    python benchmarks/preferences.py

Pairs of `data/chat_preferences`: which of two conversations that one question opened was rated
higher. The top layer of SmolLM2-135M-Instruct learns from the private pairs at each epsilon; what
the layers beneath make of every pair is computed once, for all runs. The conversations are public:
nothing is charged for choosing settings on the validation part. Each result is kept as soon as it
is there.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import torch
from accelerate import Accelerator

from dpacc import PrivacyEngine, PrivacyPlan
from dpacc.data.sequences import lengths_of
from dpacc.layers.frozen_activations import FrozenActivations
from dpacc.losses.preferences import pair_loss, preference_losses
from dpacc.recipe.assembly import adapters_for, base_for, plan_for, rates_for, scheduler_for
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.examples import load_held_out_examples, load_training_examples, pad_examples
from dpacc.recipe.optimizers import optimizer_for
from dpacc.recipe.preferences import held_out_preferences, with_reference
from dpacc.recipe.pretrained import load_tokenizer
from dpacc.step.averaging import USUAL_SHARE, average_of

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results/preferences.jsonl"
BETA = 0.1


def configured(part: str, *, epsilon: float, **changes: Any) -> TrainingConfig:
    """The run of one cell, measured on that part."""
    data = ROOT / "data/chat_preferences"
    settings: dict[str, Any] = {
        "model": str(ROOT / "data/smollm2-135m-instruct"),
        "task": "preference",
        "beta": BETA,
        "train_data": str(data / "train.jsonl"),
        "held_out_data": str(data / f"{part}.jsonl"),
        "clipping": "automatic",
        "lora_top_layers": 1,
        "lora_rank": 8,
        "epsilon": epsilon if math.isfinite(epsilon) else 1e6,
    }
    return TrainingConfig(**settings | changes)


def plan_of(config: TrainingConfig, *, epsilon: float, pairs: int) -> PrivacyPlan:
    """With just enough noise, or with none and everything else alike."""
    if math.isfinite(epsilon):
        return plan_for(config=config, dataset_size=pairs)
    assert config.epochs is not None
    return PrivacyPlan(
        dataset_size=pairs,
        expected_batch_size=config.expected_batch_size,
        steps=math.ceil(config.epochs * pairs / config.expected_batch_size),
        noise_multiplier=0.0,
        max_grad_norm=config.max_grad_norm,
        target_delta=config.delta_for(dataset_size=pairs),
        clipping=config.clipping,
        allow_no_privacy=True,
    )


class Bench:
    """The base, and what its frozen layers make of every pair, made once.

    Args:
        config: of any cell.
        pairs: how many are learned from, the first of the file.
    """

    def __init__(self, config: TrainingConfig, *, pairs: int) -> None:
        tokenizer = load_tokenizer(model=config.model)
        learned = load_training_examples(config=config, tokenizer=tokenizer)[:pairs]
        measured = load_held_out_examples(config=config, tokenizer=tokenizer)
        self.accelerator = Accelerator(cpu=True)
        self.base: Any = base_for(config=config, device=self.accelerator.device).model
        self._model: Any = adapters_for(config=config, base=self.base)
        pad = tokenizer.pad_token_id
        with tempfile.TemporaryDirectory() as folder:
            self._frozen = FrozenActivations(
                model=self._model,
                examples=learned + measured,
                collate=lambda examples: pad_examples(examples, pad_token_id=pad),
                accelerator=self.accelerator,
                folder=Path(folder),
            )
        self.collate = self._frozen.collate
        referenced = with_reference(
            model=self._model, examples=self._frozen.examples, collate=self.collate
        )
        self.learned, self.measured = referenced[: len(learned)], referenced[len(learned) :]

    def adapted(self, config: TrainingConfig) -> Any:
        """The base with a fresh adapter; the last one is taken off."""
        self.base = self._model.unload().requires_grad_(False)
        self._model = adapters_for(config=config, base=self.base)
        self._frozen.move_to(self._model)
        return self._model

    def run(self, config: TrainingConfig, plan: PrivacyPlan) -> dict[str, Any]:
        """Train a fresh adapter under the plan, and measure it."""
        model = self.adapted(config)
        learned = [p for p in model.parameters() if p.requires_grad]
        rate, _ = rates_for(model, config=config, plan=plan)
        optimizer = optimizer_for(learned, config=config, rate=rate)
        average = average_of(
            optimizer, steps=plan.steps, share=USUAL_SHARE, accelerator=self.accelerator
        )
        schedule = scheduler_for(config=config, optimizer=optimizer, steps=plan.steps, holds=True)
        loss = pair_loss("dpo", beta=BETA)
        with tempfile.TemporaryDirectory() as folder:
            engine = PrivacyEngine(
                self.accelerator,
                plan,
                ledger=Path(folder) / "ledger.jsonl",
                micro_batch_tokens=config.micro_batch_tokens,
            )
            model, optimizer = engine.prepare(model, optimizer, schedule)
            model.train()
            for step in engine.steps(self.learned, self.collate):
                for batch in step:
                    step.backward(preference_losses(model, batch, loss=loss))
                step.update()
                schedule.step()
            engine.close()
        assert average is not None
        average.put_in_place()
        return self.measure(model)

    def measure(self, model: Any) -> dict[str, Any]:
        """Of the held-out pairs."""
        found = held_out_preferences(
            model=model, examples=self.measured, collate=self.collate, beta=BETA
        )
        return {
            "accuracy": found.accuracy,
            "error": found.error,
            "margin": found.margin,
            "held_out_pairs": found.pairs,
        }

    def longer(self) -> float:
        """The share of held-out pairs whose chosen answer has more tokens, as they were cut."""
        lengths = [lengths_of(each) for each in self.measured]
        return sum((won > lost) + 0.5 * (won == lost) for won, lost in lengths) / len(lengths)


@click.command(help=__doc__)
@click.option("--pairs", default=768, show_default=True)
@click.option("--epsilons", default="8,inf,1", show_default=True)
@click.option("--epochs", default=2.0, show_default=True)
@click.option("--batch", default=96, show_default=True)
@click.option("--max-length", default=24, show_default=True)
@click.option("--learning-rate", default=5e-3, show_default=True)
@click.option("--part", default="held_out", show_default=True)
@click.option("--results", default=str(RESULTS), show_default=True)
def main(
    pairs: int,
    epsilons: str,
    epochs: float,
    batch: int,
    max_length: int,
    learning_rate: float,
    part: str,
    results: str,
) -> None:
    """Run every cell; print and keep what comes out."""
    settings: dict[str, Any] = {
        "epochs": epochs,
        "expected_batch_size": batch,
        "max_length": max_length,
        "learning_rate": learning_rate,
        "held_out_examples": None,
    }
    started = time.process_time()
    bench = Bench(configured(part, epsilon=8.0, **settings), pairs=pairs)
    about = {"part": part, "pairs": len(bench.learned), **settings, "longer": bench.longer()}
    click.echo(f"activations after {time.process_time() - started:.0f} s of processor time")
    for each in epsilons.split(","):
        epsilon = float(each)
        torch.manual_seed(0)
        config = configured(part, epsilon=epsilon, **settings)
        plan = plan_of(config, epsilon=epsilon, pairs=len(bench.learned))
        found = bench.run(config, plan)
        stated = plan.guarantee().epsilon
        row = about | {
            "epsilon": each,
            "stated_epsilon": str(stated),
            "delta": plan.target_delta,
            "noise_multiplier": plan.noise_multiplier,
            "steps": plan.steps,
            **found,
            "processor_seconds": round(time.process_time() - started),
        }
        click.echo(json.dumps(row))
        with Path(results).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
