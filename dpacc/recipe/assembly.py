"""The parts of a run that its configuration describes: plan, base, adapters, schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from dpacc_accounting import Phase, Workload
from dpacc_accounting.calibration.training_runs import whole_steps
from torch import nn

from dpacc.errors import ConfigurationError
from dpacc.plan import PrivacyPlan, phased_plan
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.models import Base, add_lora, load_adapter, load_base
from dpacc.recipe.optimizers import MOMENTUM, gain_beneath, rate_under_noise, schedule_for
from dpacc.step.averaging import USUAL_SHARE, require_share
from dpacc.step.update_rule import step_noise

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def plan_for(*, config: TrainingConfig, dataset_size: int) -> PrivacyPlan:
    """The plan of a run, with just enough noise for the configuration's ε.

    Args:
        config: the run.
        dataset_size: N, in privacy units.

    Raises:
        ConfigurationError: no noise keeps the budget, or a setting does not fit N.

    >>> config = TrainingConfig(
    ...     model="m", train_data="t", epsilon=8.0, expected_batch_size=10, steps=20, delta=1e-4)
    >>> plan = plan_for(config=config, dataset_size=1000)
    >>> plan.steps, plan.unit, plan.guarantee().epsilon <= 8.0
    (20, 'example', True)
    """
    if config.subspace_rank is not None:
        return _plan_of_two_phases(config, dataset_size)
    return PrivacyPlan.calibrate(
        dataset_size=dataset_size,
        expected_batch_size=config.expected_batch_size,
        epochs=config.epochs,
        steps=config.steps,
        target_epsilon=config.epsilon,
        target_delta=config.delta_for(dataset_size=dataset_size),
        max_grad_norm=config.max_grad_norm,
        clipping=config.clipping,
        noise=config.noise,
        unit=config.unit,
        sampling=config.sampling,
        unit_cap=config.unit_cap,
        correlation=config.correlation,
        bands=config.bands,
        workload=workload_of(config=config, dataset_size=dataset_size),
    )


def _plan_of_two_phases(config: TrainingConfig, dataset_size: int) -> PrivacyPlan:
    """The same noise in both, so that each one's share of the budget is that of the steps."""
    steps = whole_steps(dataset_size, config.expected_batch_size, config.epochs, config.steps)
    first = first_steps(config=config, steps=steps)
    plan = phased_plan(
        dataset_size=dataset_size,
        phases=[
            Phase(
                steps=count,
                expected_batch_size=config.expected_batch_size,
                noise_multiplier=1.0,
            )
            for count in (first, steps - first)
        ],
        target_epsilon=config.epsilon,
        target_delta=config.delta_for(dataset_size=dataset_size),
        max_grad_norm=config.max_grad_norm,
        clipping=config.clipping,
        noise=config.noise,
        unit=config.unit,
    )
    return plan if config.unit_cap is None else replace(plan, unit_cap=config.unit_cap)


def first_steps(*, config: TrainingConfig, steps: int) -> int:
    """How many of a run's steps find the subspace in which the others are taken.

    Raises:
        ConfigurationError: none, or all.

    >>> config = TrainingConfig(model="m", train_data="t", epsilon=8.0, expected_batch_size=10,
    ...                         steps=20, lora_method="subspace", subspace_rank=4)
    >>> first_steps(config=config, steps=20)
    10
    """
    first = round(config.subspace_steps * steps)
    if not 0 < first < steps:
        raise ConfigurationError(
            f"subspace_steps={config.subspace_steps} of {steps} steps leave a phase without any; "
            "change it, or take more steps"
        )
    return first


def workload_of(*, config: TrainingConfig, dataset_size: int) -> Workload | None:
    """What the run makes of its steps' noise, where that is correlated.

    Args:
        config: names the course of the learning rate, the optimizer and the mean of iterates.
        dataset_size: N, in privacy units.

    Raises:
        ConfigurationError: the mean is of no share of the steps.
    """
    if config.correlation == "none":
        return None
    steps = whole_steps(dataset_size, config.expected_batch_size, config.epochs, config.steps)
    share = USUAL_SHARE if config.average_iterates is None else config.average_iterates
    require_share(share)
    course = schedule_for(warmup=config.warmup_steps, steps=steps, holds=bool(share))
    # Adam's first moment has SGD's usual momentum.
    return Workload(
        learning_rates=tuple(course(step) for step in range(steps)),
        momentum=MOMENTUM,
        averaged=share,
    )


def rates_for(
    model: nn.Module, *, config: TrainingConfig, plan: PrivacyPlan
) -> tuple[float, float]:
    """The run's peak learning rate, and the one that leaves as long steps under its noise.

    AdamW divides by the size of one step's gradient, which is mostly noise, and correlated noise is
    larger in one step, if smaller in many: its rate is raised by as much. SGD's stays.

    Args:
        model: with its adapters; of what it trains, and of the frozen weights beneath, the rate is
            made where none is said.
        config: names the optimizer, and may name its rate under independent noise.
        plan: the run's.

    Raises:
        ConfigurationError: no noise keeps the budget.
    """
    rate = config.learning_rate
    if rate is None:
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        method = config.lora_method
        # A quantized base is unpacked to be read.
        gain = {} if method == "whitened" else {"gain": gain_beneath(model)}
        rate = rate_under_noise(trained=trained, steps=plan.steps, method=method, **gain)
    if plan.bands == 1 or config.optimizer != "adamw":
        return rate, rate
    independent = replace(config, correlation="none", bands=None)
    alone = plan_for(config=independent, dataset_size=plan.dataset_size)
    return rate, rate * step_noise(plan=plan) / step_noise(plan=alone)


def base_for(*, config: TrainingConfig, device: torch.device) -> Base:
    """The frozen base and its tokenizer.

    Args:
        config: names it, and says how it is stored and what its head is for.
        device: where it will be.

    Raises:
        ConfigurationError: it cannot be read, or lacks some of the weights.
    """
    return load_base(
        model=config.model,
        quantization=config.quantization,
        dtype=config.dtype,
        device=device,
        task=config.task,
        labels=config.labels,
        seed=config.seed,
    )


def adapted_base_for(*, config: TrainingConfig, folder: Path) -> PeftModel:
    """The base with the adapter of a run, where it computes fastest.

    Args:
        config: names the base, and says how it is stored.
        folder: the run's.

    Raises:
        ConfigurationError: base or adapter cannot be read, or do not belong together.
    """
    from accelerate import Accelerator

    device = Accelerator().device
    base, _ = base_for(config=config, device=device)
    model = load_adapter(model=base, folder=folder)
    # Quantized weights are where they are to be already.
    return model if config.quantization != "none" else model.to(device)


def adapters_for(*, config: TrainingConfig, base: PreTrainedModel) -> PeftModel:
    """The base with fresh LoRA adapters.

    Args:
        config: their rank, method and places.
        base: stays frozen.

    Raises:
        ConfigurationError: the base cannot have such adapters.
    """
    return add_lora(
        model=base,
        method=config.lora_method,
        rank=config.lora_rank,
        alpha=config.lora_alpha,
        dropout=config.lora_dropout,
        target_modules=config.lora_target_modules,
        seed=config.seed,
        gradient_checkpointing=config.gradient_checkpointing,
        offload_activations=config.offload_activations,
        top_layers=config.lora_top_layers,
    )


def scheduler_for(
    *, config: TrainingConfig, optimizer: torch.optim.Optimizer, steps: int, holds: bool
) -> torch.optim.lr_scheduler.LambdaLR:
    """The learning rate's course over `steps` updates.

    Args:
        config: how long it warms up.
        optimizer: whose rate it sets.
        steps: T.
        holds: whether it stays up until the end, as averages of iterates want it.
    """
    course = schedule_for(warmup=config.warmup_steps, steps=steps, holds=holds)
    if config.subspace_rank is not None:
        course = _raised(course, first_steps(config=config, steps=steps), config.subspace_rate)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, course)


def _raised(course: Callable[[int], float], begins: int, times: float) -> Callable[[int], float]:
    """A course that is so many times higher from a step on."""
    return lambda step: course(step) * (times if step >= begins else 1.0)
