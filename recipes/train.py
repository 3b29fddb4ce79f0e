"""Fine-tune a language model on private text, with differential privacy.

    accelerate launch --config_file launch_configs/cpu.yaml recipes/train.py \\
        --config recipes/configs/smollm2_reviews.yaml

Any setting of the YAML can be overridden: `--epsilon 4 --quantization nf4`; `--help` lists them.
Copy this file and edit it: the privacy-bearing steps are imported, the loop is here.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from dpacc.chart import Measurement
from dpacc.cli import terminal
from dpacc.cli.promise import promise_rows
from dpacc.config import TrainingConfig, load_config


def main(arguments: Sequence[str]) -> None:
    """Read the settings, train, and show what came of it."""
    config = load_config(arguments=arguments)
    from dpacc.artifacts import unspent_folders_removed

    with unspent_folders_removed():
        train(config)


def train(config: TrainingConfig) -> None:
    """One private run, from files to an adapter with its privacy statement."""
    # Imported here, so that a mistake in the settings is told at once.
    import torch

    from dpacc import PrivacyEngine, PrivacyPlan
    from dpacc.artifacts import save_run
    from dpacc.averaging import average_of, share_for
    from dpacc.data import (
        load_held_out_examples,
        load_held_out_units,
        load_training_examples,
        load_units,
        pad_examples,
    )
    from dpacc.earlier_runs import begin_run
    from dpacc.evaluation import held_out_accuracy, held_out_perplexity
    from dpacc.frozen_activations import Collate, FrozenActivations
    from dpacc.held_out_data import admit_held_out
    from dpacc.hub import reserve_repository, upload_run
    from dpacc.model_card import shown_settings
    from dpacc.models import add_lora, load_base
    from dpacc.objective import losses_for, probe_examples_for
    from dpacc.optimizers import optimizer_for
    from dpacc.pretrained import load_tokenizer
    from dpacc.ranks import join_ranks, on_main_process, share_from_main
    from dpacc.schedule import schedule_for
    from dpacc.trackers import NonPrivateLoss, require_trackers, start_trackers
    from dpacc.unit_identity import count_units
    from dpacc.whitening import whiten

    started = time.monotonic()
    require_trackers(names=config.trackers or ())
    accelerator = join_ranks()
    share = share_for(config.average_iterates, accelerator=accelerator)
    config = replace(config, average_iterates=share)
    repository = config.push_to_hub
    if repository is not None:
        on_main_process(accelerator, partial(reserve_repository, repository))

    # The data, before any weights: private examples to learn from, public ones to measure on.
    tokenizer = load_tokenizer(model=config.model)
    private = load_training_examples(config=config, tokenizer=tokenizer)
    units = load_units(config=config)
    held_out = load_held_out_examples(config=config, tokenizer=tokenizer)
    facts_of_data = admit_held_out(
        config=config,
        private=private,
        held_out=held_out,
        owners=units,
        held_out_owners=load_held_out_units(config=config),
    )
    collate = partial(pad_examples, pad_token_id=tokenizer.pad_token_id)
    base, _ = load_base(
        model=config.model,
        quantization=config.quantization,
        dtype=config.dtype,
        device=accelerator.device,
        task=config.task,
        labels=config.labels,
        seed=config.seed,
    )
    losses_of = losses_for(config=config, model=base, tokenizer=tokenizer)

    # The plan: everything the guarantee depends on, with just enough noise to keep it.
    number_of_units = count_units(examples=len(private), units=units)
    plan = PrivacyPlan.calibrate(
        dataset_size=number_of_units,
        expected_batch_size=config.expected_batch_size,
        epochs=config.epochs,
        steps=config.steps,
        target_epsilon=config.epsilon,
        target_delta=config.delta_for(dataset_size=number_of_units),
        max_grad_norm=config.max_grad_norm,
        clipping=config.clipping,
        noise=config.noise,
        unit=config.unit_field or "example",
    )

    # The model: a frozen base, trainable adapters.
    model = add_lora(
        model=base,
        method=config.lora_method,
        rank=config.lora_rank,
        alpha=config.lora_alpha,
        dropout=config.lora_dropout,
        target_modules=config.lora_target_modules,
        seed=config.seed,
        gradient_checkpointing=config.gradient_checkpointing,
        top_layers=config.lora_top_layers,
    )
    if config.lora_method == "whitened":
        whiten(
            model=model,
            public_examples=held_out,
            collate=collate,
            source="the held-out data",
        )
    adapters = [p for p in model.parameters() if p.requires_grad]
    trainable = sum(p.numel() for p in adapters)
    optimizer = optimizer_for(adapters, config=config)
    average = average_of(optimizer, steps=plan.steps, share=share, accelerator=accelerator)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        schedule_for(warmup=config.warmup_steps, steps=plan.steps, holds=share > 0),
    )

    folder = Path(config.resume) if config.resume else None
    if folder is None:
        begin = partial(begin_run, output_dir=config.output_dir, name=config.name, plan=plan)
        begun: list[Path] = []
        on_main_process(accelerator, lambda: begun.append(begin(say=terminal.say)))
        folder = share_from_main(begun)[0]
    keeps_checkpoints = config.checkpoint_every is not None or config.resume is not None
    engine = PrivacyEngine(
        accelerator,
        plan,
        ledger=folder / "ledger.jsonl",
        checkpoints=folder / "checkpoints" if keeps_checkpoints else None,
        micro_batch_tokens=config.micro_batch_tokens,
        per_example_gradients=config.per_example_gradients,
        wire=config.wire,
    )
    model, optimizer = engine.prepare(model, optimizer, schedule)
    start = engine.resume() if config.resume else 0
    if average is not None and start == plan.steps:
        average.put_in_place()
    start_trackers(
        accelerator=accelerator,
        names=config.trackers or (),
        folder=folder,
        project="dpacc",
        settings=shown_settings(config) | {"noise_multiplier": plan.noise_multiplier},
    )
    if config.log_non_private_metrics:
        engine.note(
            subject="non-private-metrics",
            text="training losses, computed from private data without noise, were logged",
        )
    for subject, text in facts_of_data:
        engine.note(subject=subject, text=text)
    private_loss = NonPrivateLoss(accelerator)

    collate_private: Collate = collate
    examples = private
    if config.cache_frozen_activations:
        frozen = FrozenActivations(
            model=model,
            examples=private,
            collate=collate,
            accelerator=accelerator,
            folder=folder,
        )
        examples, collate_private = frozen.examples, frozen.collate

    held_out_quality = held_out_accuracy
    if config.task == "causal-lm":
        held_out_quality = partial(held_out_perplexity, losses_of=losses_of)

    def measure(step: int, spent: float) -> Measurement:
        """Where the run stands; its quality only when that is due."""
        every = config.evaluate_every or plan.steps
        if not held_out or (step % every and start < step < plan.steps):
            return Measurement(step=step, epsilon=spent)
        quality = held_out_quality(
            model=model,
            examples=held_out,
            collate=collate,
            max_tokens=config.micro_batch_tokens,
            accelerator=accelerator,
        )
        measured = Measurement(step=step, epsilon=spent, quality=quality, metric=config.metric)
        progress.note(f"step {step}: held-out {measured.metric} {measured.shown}")
        return measured

    progress = terminal.TrainingProgress(
        steps=plan.steps,
        epsilon_budget=config.epsilon,
        expected_batch_size=plan.expected_batch_size,
        visible=accelerator.is_main_process,
        done=start,
    )
    progress.note(
        f"{number_of_units} private {plan.unit}s, {trainable:,} trainable "
        f"parameters ({engine.per_example_gradients} per-example gradients), noise multiplier "
        f"{plan.noise_multiplier:g}, run folder {folder}"
    )
    course = [measure(start, engine.guarantee().epsilon if start else 0.0)]
    model.train()
    invented = probe_examples_for(config=config, model=base, like=examples[0])
    with progress:
        for step in engine.steps(examples, collate_private, units=units, probe_examples=invented):
            for batch in step:
                losses = losses_of(model, batch)
                step.backward(losses)
                private_loss.add(losses)
            step.update()
            rate = schedule.get_last_lr()[0]
            schedule.step()
            if average is not None and step.index + 1 == plan.steps:
                average.put_in_place()
            stated = engine.guarantee()
            spent = stated.epsilon
            progress.advance(promise=stated)
            course.append(measure(step.index + 1, spent))
            figures = stated.figures() | {"learning_rate": rate}
            if course[-1].quality is not None:
                figures[f"held_out_{config.metric}"] = course[-1].quality
            if config.log_non_private_metrics:
                figures["non_private_loss"] = private_loss.mean()
            accelerator.log(figures, step=step.index + 1)
            if config.checkpoint_every and (step.index + 1) % config.checkpoint_every == 0:
                engine.checkpoint()
    engine.close()

    with engine.whole_adapters():
        if accelerator.is_main_process:
            save_run(
                folder=folder,
                model=model,
                config=config,
                ledger=folder / "ledger.jsonl",
                measurements=course,
            )
    if accelerator.is_main_process:
        facts = result_rows(course) + promise_rows(engine.guarantee())
        facts += [
            ("noise multiplier σ", f"{plan.noise_multiplier:g}"),
            ("steps", f"{engine.steps_charged} of expected batch {plan.expected_batch_size}"),
            ("wall time", f"{math.ceil((time.monotonic() - started) / 60)} min"),
            ("saved in", str(folder)),
        ]
        terminal.show_facts(title="Private fine-tuning", facts=facts)
        if repository is not None:
            upload_run(folder=folder, repository=repository)
    accelerator.end_training()


def result_rows(course: Sequence[Measurement]) -> list[tuple[str, str]]:
    """What training bought: held-out quality before and after, where it was measured."""
    before, after = course[0], course[-1]
    if before.quality is None or after.quality is None:
        return []
    return [(f"held-out {after.metric}", f"{before.shown} before, {after.shown} after")]


if __name__ == "__main__":
    with terminal.one_line_errors():
        main(sys.argv[1:])
