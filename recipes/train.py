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
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpacc.artifacts.progress_chart import Measurement
from dpacc.cli import terminal
from dpacc.cli.guarantee_table import guarantee_rows
from dpacc.planning.noise_over_signal import drowned
from dpacc.recipe.config import TrainingConfig, load_config

# What is heavy is imported where it is used, so that a mistake in the settings is told at once.
if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from dpacc import PrivacyEngine, PrivacyPlan
    from dpacc.recipe.training_data import TrainingData
    from dpacc.step.averaging import IterateAverage


@dataclass(frozen=True, kw_only=True)
class Learner:
    """What learns: a frozen base with trainable adapters, and how it is updated."""

    base: Any
    model: Any
    losses_of: Callable[[Any, Any], torch.Tensor]
    optimizer: Any
    learning_rate: float
    schedule: torch.optim.lr_scheduler.LambdaLR
    average: IterateAverage | None


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run whose ledger is open."""

    config: TrainingConfig
    accelerator: Accelerator
    data: TrainingData
    plan: PrivacyPlan
    learner: Learner
    engine: PrivacyEngine
    folder: Path
    start: int


def main(arguments: Sequence[str]) -> None:
    """Read the settings, train, and show what came of it."""
    config = load_config(arguments=arguments)
    from dpacc.artifacts.run_folder import unspent_folders_removed

    with unspent_folders_removed():
        train(config)


def train(config: TrainingConfig) -> None:
    """One private run, from files to an adapter with its privacy statement."""
    from dpacc.artifacts.earlier_runs import finished_run
    from dpacc.ranks.collectives import join_ranks
    from dpacc.recipe.assembly import plan_for
    from dpacc.recipe.training_data import read_training_data

    started = time.monotonic()
    accelerator = join_ranks()
    if (finished := finished_run(config=config)) is not None:
        terminal.say(f"{finished} is finished; another --name spends another budget")
        return
    config = settled(config, accelerator)
    data = read_training_data(config=config)
    # Everything the guarantee depends on, with just enough noise to keep it.
    plan = plan_for(config=config, dataset_size=data.dataset_size)
    learner = build_model(config, accelerator, data, plan)
    run = open_run(config, accelerator, data, plan, learner)
    course = learn(run)
    save(run, course)
    if accelerator.is_main_process:
        show(run, course, minutes=math.ceil((time.monotonic() - started) / 60))
        publish(run)
    accelerator.end_training()


def settled(config: TrainingConfig, accelerator: Accelerator) -> TrainingConfig:
    """What must be known before hours are spent: trackers, share, repository, which run goes on."""
    from dpacc.artifacts.earlier_runs import run_to_go_on
    from dpacc.artifacts.hub import reserve_repository
    from dpacc.ranks.collectives import on_main_process
    from dpacc.recipe.trackers import require_trackers
    from dpacc.step.averaging import share_for

    require_trackers(names=config.trackers or ())
    share = share_for(config.average_iterates, accelerator=accelerator)
    if config.push_to_hub is not None:
        on_main_process(accelerator, partial(reserve_repository, config.push_to_hub))
    return replace(config, average_iterates=share, resume=run_to_go_on(config=config))


def build_model(
    config: TrainingConfig, accelerator: Accelerator, data: TrainingData, plan: PrivacyPlan
) -> Learner:
    """A frozen base, trainable adapters, one loss per example, and an optimizer."""
    from dpacc.layers.whitening import whiten
    from dpacc.recipe.assembly import adapters_for, base_for, rates_for, scheduler_for
    from dpacc.recipe.objective import losses_for
    from dpacc.recipe.optimizers import optimizer_for
    from dpacc.step.averaging import average_of

    base, _ = base_for(config=config, device=accelerator.device)
    losses_of = losses_for(config=config, model=base, tokenizer=data.tokenizer)
    model = adapters_for(config=config, base=base)
    if config.lora_method == "whitened":
        whiten(
            model=model,
            public_examples=data.held_out,
            collate=data.collate,
            source="the held-out data",
        )
    learned = [p for p in model.parameters() if p.requires_grad]
    rate, raised = rates_for(model, config=config, plan=plan)
    optimizer = optimizer_for(learned, config=config, rate=raised)
    steps, share = plan.steps, config.average_iterates or 0.0
    return Learner(
        base=base,
        model=model,
        losses_of=losses_of,
        optimizer=optimizer,
        learning_rate=rate,
        schedule=scheduler_for(config=config, optimizer=optimizer, steps=steps, holds=share > 0),
        average=average_of(optimizer, steps=steps, share=share, accelerator=accelerator),
    )


def open_run(
    config: TrainingConfig,
    accelerator: Accelerator,
    data: TrainingData,
    plan: PrivacyPlan,
    learner: Learner,
) -> Run:
    """A folder, the engine with its ledger in it, and what the ledger must say."""
    from dpacc import PrivacyEngine
    from dpacc.artifacts.model_card import shown_settings
    from dpacc.recipe.trackers import start_trackers

    config = replace(config, learning_rate=learner.learning_rate)
    folder = run_folder(config, accelerator, plan)
    keeps_checkpoints = config.checkpoint_every is not None or config.resume is not None
    engine = PrivacyEngine(
        accelerator,
        plan,
        ledger=folder / "ledger.jsonl",
        checkpoints=folder / "checkpoints" if keeps_checkpoints else None,
        micro_batch_tokens=config.micro_batch_tokens,
        per_example_gradients=config.per_example_gradients,
        kernels=config.kernels,
        wire=config.wire,
        compile=config.compile,
        dynamic_rank=config.dynamic_rank,
        subspace_rank=config.subspace_rank,
        budget=config.budget,
    )
    model, optimizer = engine.prepare(learner.model, learner.optimizer, learner.schedule)
    start = engine.resume() if config.resume else 0
    if learner.average is not None and start == plan.steps:
        learner.average.put_in_place()
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
    for subject, text in data.notes:
        engine.note(subject=subject, text=text)
    return Run(
        config=config,
        accelerator=accelerator,
        data=data,
        plan=plan,
        learner=replace(learner, model=model, optimizer=optimizer),
        engine=engine,
        folder=folder,
        start=start,
    )


def run_folder(config: TrainingConfig, accelerator: Accelerator, plan: PrivacyPlan) -> Path:
    """The folder to go on in, or a new one, with what it costs together with earlier runs."""
    from dpacc.artifacts.earlier_runs import begin_run
    from dpacc.ranks.collectives import on_main_process, share_from_main

    if config.resume:
        return Path(config.resume)
    begin = partial(begin_run, output_dir=config.output_dir, name=config.name, plan=plan)
    begun: list[Path] = []
    on_main_process(accelerator, lambda: begun.append(begin(say=terminal.say)))
    folder: Path = share_from_main(begun)[0]
    return folder


def learn(run: Run) -> Sequence[Measurement]:
    """The private loop: each step cut, clipped, summed, charged and noised once; its course."""
    from dpacc.artifacts.kept.metrics import Course
    from dpacc.ranks.preemption import RETURN_LATER, heeding_preemption
    from dpacc.recipe.objective import probe_examples_for
    from dpacc.recipe.preferences import references_for
    from dpacc.recipe.trackers import NonPrivateLoss

    config, engine, learner = run.config, run.engine, run.learner
    private_loss = NonPrivateLoss(run.accelerator)
    compared = partial(
        references_for, config=config, model=learner.model, accelerator=run.accelerator
    )
    examples, collate = examples_of(run)
    examples = compared(examples=examples, collate=collate)
    held_out = compared(examples=run.data.held_out, collate=run.data.collate)
    run = replace(run, data=replace(run.data, held_out=held_out))
    progress = begin_progress(run)
    measure = measuring(run, progress)
    course = Course(folder=run.folder, start=run.start, writes=run.accelerator.is_main_process)
    course.add(measure(run.start, engine.guarantee().epsilon if run.start else 0.0))
    learner.model.train()
    invented = probe_examples_for(config=config, model=learner.base, like=examples[0])
    # Without checkpoints nothing would be kept, and a signal ends the process as usual.
    heeds = heeding_preemption(run.accelerator) if config.checkpoint_every else nullcontext(None)
    with progress, heeds as told:
        for step in engine.steps(examples, collate, units=run.data.units, probe_examples=invented):
            for batch in step:
                losses = learner.losses_of(learner.model, batch)
                step.backward(losses)
                private_loss.add(losses)
            step.update()
            rate = learner.schedule.get_last_lr()[0]
            learner.schedule.step()
            if learner.average is not None and step.index + 1 == run.plan.steps:
                learner.average.put_in_place()
            stated = engine.guarantee()
            progress.advance(guarantee=stated)
            measured = measure(step.index + 1, stated.epsilon)
            course.add(measured)
            figures = stated.figures() | {"learning_rate": rate}
            if measured.quality is not None:
                figures[f"held_out_{config.metric}"] = measured.quality
            if config.log_non_private_metrics:
                figures["non_private_loss"] = private_loss.mean()
            run.accelerator.log(figures, step=step.index + 1)
            leaves = told is not None and told() and step.index + 1 < run.plan.steps
            due = config.checkpoint_every and (step.index + 1) % config.checkpoint_every == 0
            if leaves or due:
                engine.checkpoint()
            if leaves:
                engine.close()
                progress.note(f"told to stop after step {step.index + 1}: --resume auto goes on")
                raise SystemExit(RETURN_LATER)
    engine.close()
    return course.measurements


def examples_of(run: Run) -> tuple[Any, Callable[[list[Any]], Any]]:
    """The private examples, or what frozen layers make of them, and their collate function."""
    from dpacc.layers.frozen_activations import FrozenActivations

    examples, collate = run.data.private, run.data.collate
    if run.config.cache_frozen_activations:
        frozen = FrozenActivations(
            model=run.learner.model,
            examples=examples,
            collate=collate,
            accelerator=run.accelerator,
            folder=run.folder,
        )
        examples, collate = frozen.examples, frozen.collate
    return examples, collate


def begin_progress(run: Run) -> terminal.TrainingProgress:
    """A progress bar, and a line on what begins."""
    progress = terminal.TrainingProgress(
        steps=run.plan.steps,
        epsilon_budget=run.config.epsilon,
        expected_batch_size=run.plan.expected_batch_size,
        visible=run.accelerator.is_main_process,
        done=run.start,
    )
    trainable = sum(p.numel() for p in run.learner.model.parameters() if p.requires_grad)
    progress.note(
        f"{run.plan.dataset_size} private {run.plan.unit}s, {trainable:,} trainable "
        f"parameters ({run.engine.per_example_gradients} per-example gradients), noise multiplier "
        f"{run.plan.noise_in_words}{drowned(plan=run.plan, trainable=trainable)}, "
        f"learning rate {run.learner.schedule.base_lrs[0]:.3g}, run folder {run.folder}"
    )
    for fact in run.engine.guarantee().qualified_by:
        progress.note(f"ε is qualified: {fact}")
    return progress


def measuring(run: Run, progress: terminal.TrainingProgress) -> Callable[[int, float], Measurement]:
    """Says where a run stands after a step; its held-out quality only when that is due."""
    from dpacc.recipe.evaluation import held_out_accuracy, held_out_perplexity
    from dpacc.recipe.objective import beta_for
    from dpacc.recipe.preferences import held_out_preferences

    config, steps = run.config, run.plan.steps
    held_out_quality: Callable[..., Any] = held_out_accuracy
    if config.task == "preference":
        held_out_quality = partial(held_out_preferences, beta=beta_for(config=config))
    if config.task == "causal-lm":
        held_out_quality = partial(held_out_perplexity, losses_of=run.learner.losses_of)

    def measure(step: int, spent: float) -> Measurement:
        every = config.evaluate_every or steps
        if not run.data.held_out or (step % every and run.start < step < steps):
            return Measurement(step=step, epsilon=spent)
        found = held_out_quality(
            model=run.learner.model,
            examples=run.data.held_out,
            collate=run.data.collate,
            max_tokens=config.micro_batch_tokens,
            accelerator=run.accelerator,
        )
        quality = found if isinstance(found, float) else found.accuracy
        measured = Measurement(step=step, epsilon=spent, quality=quality, metric=config.metric)
        more = (
            "" if isinstance(found, float) else f" ± {found.error:.1%}, margin {found.margin:.4f}"
        )
        progress.note(f"step {step}: held-out {measured.metric} {measured.shown}{more}")
        return measured

    return measure


def save(run: Run, course: Sequence[Measurement]) -> None:
    """Adapter, proof, card and picture, written by the main process."""
    from dpacc.artifacts.run_folder import save_run

    with run.engine.whole_adapters():
        if run.accelerator.is_main_process:
            save_run(
                folder=run.folder,
                model=run.learner.model,
                config=run.config,
                ledger=run.folder / "ledger.jsonl",
                measurements=course,
                tokenizer=run.data.tokenizer,
            )


def show(run: Run, course: Sequence[Measurement], *, minutes: int) -> None:
    """What training bought, and what it cost."""
    facts = result_rows(course) + guarantee_rows(run.engine.guarantee())
    facts += [
        ("noise multiplier σ", run.plan.noise_in_words),
        ("steps", f"{run.engine.steps_charged} of expected batch {run.plan.batch_in_words}"),
        ("wall time", f"{minutes} min"),
        ("saved in", str(run.folder)),
    ]
    terminal.show_facts(title="Private fine-tuning", facts=facts)


def publish(run: Run) -> None:
    """Upload the folder, if that was asked for."""
    from dpacc.artifacts.hub import upload_run

    if run.config.push_to_hub is not None:
        upload_run(folder=run.folder, repository=run.config.push_to_hub)


def result_rows(course: Sequence[Measurement]) -> list[tuple[str, str]]:
    """What training bought: held-out quality before and after, where it was measured."""
    before, after = course[0], course[-1]
    if before.quality is None or after.quality is None:
        return []
    return [(f"held-out {after.metric}", f"{before.shown} before, {after.shown} after")]


if __name__ == "__main__":
    with terminal.one_line_errors():
        main(sys.argv[1:])
