"""The parts of a run that follow from its configuration and its plan together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from dpacc_accounting.factorization.banded import optimal_coefficients
from peft import LoraConfig, get_peft_model

from dpacc.errors import ConfigurationError
from dpacc.recipe.assembly import plan_for, rates_for, scheduler_for, workload_of
from dpacc.recipe.config import TrainingConfig
from dpacc.step.update_rule import step_noise

CONFIG = TrainingConfig(
    model="m",
    train_data="t",
    epsilon=8.0,
    delta=1e-4,
    expected_batch_size=100,
    steps=40,
    warmup_steps=4,
    learning_rate=0.01,
    correlation="banded",
    bands=4,
)

WEIGHTS = torch.nn.ParameterList([torch.zeros(10, 60), torch.zeros(400)])


def test_noise_is_correlated_for_the_runs_own_course() -> None:
    """Warm-up, momentum and the mean of the last half decide the coefficients."""
    workload = workload_of(config=CONFIG, dataset_size=1000)
    assert workload is not None
    assert workload.learning_rates[:5] == (0.2, 0.4, 0.6, 0.8, 1.0)
    assert (workload.steps, workload.momentum, workload.averaged) == (40, 0.9, 0.5)
    plan = plan_for(config=CONFIG, dataset_size=1000)
    assert plan.noise_coefficients == optimal_coefficients(workload=workload, bands=4)
    last = replace(CONFIG, average_iterates=0.0)
    other = plan_for(config=last, dataset_size=1000)
    assert other.noise_coefficients != plan.noise_coefficients
    assert (
        workload_of(config=replace(CONFIG, correlation="none", bands=None), dataset_size=9) is None
    )


def test_adamw_steps_as_far_as_under_independent_noise() -> None:
    """Its rate grows as one step's noise does, so that rate over noise stays."""
    plan = plan_for(config=CONFIG, dataset_size=1000)
    independent = replace(CONFIG, correlation="none", bands=None)
    alone = plan_for(config=independent, dataset_size=1000)
    rate, raised = rates_for(WEIGHTS, config=CONFIG, plan=plan)
    assert raised / step_noise(plan=plan) == pytest.approx(0.01 / step_noise(plan=alone))
    assert rate == 0.01 < 0.03 < raised
    assert rates_for(WEIGHTS, config=independent, plan=alone) == (0.01, 0.01)
    sgd = replace(CONFIG, optimizer="sgd")
    assert rates_for(WEIGHTS, config=sgd, plan=plan) == (0.01, 0.01)


def test_a_rate_that_is_not_said_is_that_of_so_many_parameters_and_steps() -> None:
    """48/√(d·T), then raised like one that is said; at most 0.025."""
    plan = plan_for(config=CONFIG, dataset_size=1000)
    unsaid = replace(CONFIG, learning_rate=None)
    many = torch.nn.ParameterList([torch.empty(4_000, 200), torch.empty(100_000)])
    said = rates_for(many, config=replace(CONFIG, learning_rate=48 / 6_000), plan=plan)
    assert sum(weight.numel() for weight in many.parameters()) * plan.steps == 6_000**2
    assert rates_for(many, config=unsaid, plan=plan) == pytest.approx(said)
    few = rates_for(WEIGHTS, config=replace(CONFIG, learning_rate=0.025), plan=plan)
    assert rates_for(WEIGHTS, config=unsaid, plan=plan) == few


def test_a_rate_that_is_not_said_is_the_less_for_a_base_of_small_weights() -> None:
    """√(g/4) of it where LoRA's layers stand on weights of a gain g; one that is said stays."""
    plan = plan_for(config=CONFIG, dataset_size=1000)
    unsaid = replace(CONFIG, learning_rate=None)

    def adapted(gain: float) -> torch.nn.Module:
        layer = torch.nn.Linear(16, 16, bias=False)
        torch.nn.init.constant_(layer.weight, gain / 4)
        model: torch.nn.Module = get_peft_model(
            torch.nn.Sequential(layer), LoraConfig(r=2, target_modules=["0"])
        )
        return model

    whole, raised = rates_for(adapted(4.0), config=unsaid, plan=plan)
    half, raised_half = rates_for(adapted(1.0), config=unsaid, plan=plan)
    assert (half, raised_half) == pytest.approx((whole / 2, raised / 2))
    assert rates_for(adapted(1.0), config=CONFIG, plan=plan)[0] == 0.01


def test_bands_without_correlation_are_refused() -> None:
    """And correlation on a grid: each with the remedy."""
    with pytest.raises(ConfigurationError, match="set --correlation banded"):
        replace(CONFIG, correlation="none")
    with pytest.raises(ConfigurationError, match="set --noise gaussian"):
        replace(CONFIG, noise="discrete_gaussian")


def test_a_run_may_allocate_its_examples() -> None:
    """Whole epochs, at less noise than Poisson's; beside correlated noise it is refused."""
    drawn = replace(CONFIG, correlation="none", bands=None, steps=None, epochs=2, warmup_steps=0)
    plan = plan_for(config=replace(drawn, sampling="allocated"), dataset_size=1030)
    assert (plan.sampling, plan.steps, plan.participation.cycle) == ("allocated", 22, 11)
    assert plan.guarantee().epsilon <= 8.0
    assert plan.noise_multiplier < 0.91 * plan_for(config=drawn, dataset_size=1030).noise_multiplier
    with pytest.raises(ConfigurationError, match=r"sampling=allocated with correlation=banded"):
        replace(CONFIG, sampling="allocated")


SUBSPACE = replace(
    CONFIG,
    correlation="none",
    bands=None,
    lora_method="subspace",
    subspace_rank=4,
    subspace_steps=0.25,
    subspace_rate=3.0,
)


def test_a_subspace_takes_two_phases_of_one_budget() -> None:
    """Their noise is that of one run, and the second one's rate is so many times larger."""
    plan = plan_for(config=SUBSPACE, dataset_size=1000)
    assert [each.steps for each in plan.phases] == [10, 30]
    assert plan.guarantee().epsilon <= 8.0
    alone = replace(SUBSPACE, lora_method="lora", subspace_rank=None)
    once = plan_for(config=alone, dataset_size=1000).noise_multiplier
    assert [each.noise_multiplier for each in plan.phases] == pytest.approx([once, once], rel=1e-4)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = scheduler_for(config=SUBSPACE, optimizer=optimizer, steps=40, holds=True)
    rates = []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[4:] == pytest.approx([0.1] * 6 + [0.3] * 30)


def test_a_subspace_beside_what_it_does_not_go_with_is_refused() -> None:
    """Each with the remedy."""
    for wrong, told in (
        ({"subspace_rank": None}, "needs --subspace_rank"),
        ({"lora_method": "lora"}, "no other method takes one"),
        ({"sampling": "allocated"}, "set --sampling poisson"),
        ({"correlation": "banded"}, "--correlation none"),
        ({"clipping": "per-layer"}, "set --clipping flat"),
    ):
        with pytest.raises(ConfigurationError, match=told):
            replace(SUBSPACE, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="leave a phase without any"):
        plan_for(config=replace(SUBSPACE, subspace_steps=0.999), dataset_size=1000)
