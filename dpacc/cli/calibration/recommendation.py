"""`dpacc plan --recommend`: which batch size to spend a budget of gradient evaluations on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from dpacc_accounting import (
    BatchChoice,
    BatchRecommendation,
    calibrate_allocated_noise,
    event_to_json,
    recommend_batch_size,
)
from dpacc_accounting.calibration.banded_noise import USUAL_MOMENTUM
from dpacc_accounting.calibration.compute_budget import (
    LEAST_GAIN,
    LONGEST,
    SHORTEST,
    USUAL_AVERAGE,
    WORTH_CORRELATING,
)
from dpacc_accounting.calibration.training_runs import whole_steps
from dpacc_accounting.guarantee import rounded_up
from dpacc_accounting.pricing.small_delta import small_delta

from dpacc.artifacts.figure_files import format_of
from dpacc.cli import options, terminal
from dpacc.cli.guarantee_table import guarantee_rows
from dpacc.recipe.config import TrainingConfig

_MACHINE = ("gpus", "memory_per_gpu", "tokens_per_example", "tflops", "network")
_UNKNOWN = (
    "the learning rate (which every row wants anew: correlated noise makes single steps noisier), "
    "the clipping norm, the model's size, the task, and whether noise is what limits it"
)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What is to be spent.

    Args:
        dataset_size: N.
        evaluations: of gradients, B·T.
        epsilon: of the whole run.
        delta: that goes with it.
        unit: whose data one unit is.
        averaged: the share of iterates whose mean is the result.
    """

    dataset_size: int
    evaluations: int
    epsilon: float
    delta: float
    unit: str = "example"
    averaged: float = USUAL_AVERAGE


def budget_of(
    *,
    config: TrainingConfig | None,
    dataset_size: int | None,
    evaluations: int | None,
    epsilon: str | None,
    delta: str | None,
) -> Budget:
    """The budget that options give, and where they do not a configuration.

    Args:
        config: of a run, its ε and δ as the options say.
        dataset_size: N, as given or counted.
        evaluations: of gradients; left out, as many as the configuration's own run takes.
        epsilon: where there is no configuration.
        delta: likewise; left out, N^-1.1.

    Raises:
        click.UsageError: something is missing, or no number.
    """
    needed: dict[str, object] = {"--dataset-size": dataset_size}
    if config is None:
        needed |= {"--epsilon": epsilon, "--gradient-evaluations": evaluations}
    for name, value in needed.items():
        if value is None:
            raise click.UsageError(f"--recommend needs {name}, or a CONFIG that says it.")
    assert dataset_size is not None
    if config is None:
        assert epsilon is not None
        assert evaluations is not None
        return Budget(
            dataset_size=dataset_size,
            evaluations=evaluations,
            epsilon=_number("--epsilon", epsilon),
            delta=small_delta(dataset_size=dataset_size)
            if delta is None
            else _number("--delta", delta),
        )
    batch = config.expected_batch_size
    steps = whole_steps(dataset_size, batch, config.epochs, config.steps)
    share = config.average_iterates
    return Budget(
        dataset_size=dataset_size,
        evaluations=evaluations or batch * steps,
        epsilon=config.epsilon,
        delta=config.delta_for(dataset_size=dataset_size),
        unit=config.unit,
        averaged=USUAL_AVERAGE if share is None else share,
    )


def require_no_machine(context: click.Context) -> None:
    """Refuse what describes a machine, for a recommendation asks for none.

    Raises:
        click.UsageError: such an option was given.
    """
    for name in _MACHINE:
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(
                f"--{name.replace('_', '-')} describes a machine, and --recommend asks for none: "
                "drop it, or plan the recommended run afterwards."
            )


def show_recommendation(*, budget: Budget, plot: Path | None, as_json: bool) -> None:
    """Compare, draw and show."""

    def tracked(sizes: Sequence[tuple[int, int]]) -> Iterable[tuple[int, int]]:
        return terminal.tracked(sizes, message="comparing batch sizes")

    found = recommend_batch_size(
        dataset_size=budget.dataset_size,
        gradient_evaluations=budget.evaluations,
        epsilon=budget.epsilon,
        delta=budget.delta,
        unit=budget.unit,
        momentum=USUAL_MOMENTUM,
        averaged=budget.averaged,
        track=tracked,
    )
    if plot is not None:
        from dpacc.artifacts.compute_chart import draw_recommendation

        picture = draw_recommendation(
            found=found, evaluations=budget.evaluations, form=format_of(path=plot)
        )
        options.write_picture(path=plot, picture=picture)
    with terminal.at_work("calibrating"):
        allocated = _allocated_noise(found, budget)
    if as_json:
        terminal.show_json(_document(found, budget, allocated))
        return
    _show_choices(found)
    terminal.show_facts(title="Recommendation", facts=_facts(found, budget, allocated))


def _allocated_noise(found: BatchRecommendation, budget: Budget) -> float:
    """σ of random allocation, for the steps that are advised without correlation."""
    return calibrate_allocated_noise(
        dataset_size=budget.dataset_size,
        batch_size=found.uncorrelated.batch_size,
        steps=found.uncorrelated.steps,
        epsilon=budget.epsilon,
        delta=budget.delta,
        unit=budget.unit,
    ).noise_multiplier


def configuration_of(*, found: BatchRecommendation, budget: Budget) -> dict[str, Any]:
    """The lines of a configuration that make a run the recommended one."""
    correlated = found.calibration.bands > 1
    return {
        "epsilon": budget.epsilon,
        "delta": budget.delta,
        "expected_batch_size": found.chosen.batch_size,
        "steps": found.calibration.calibration.steps,
        "sampling": "poisson",
        "correlation": "banded" if correlated else "none",
        **({"bands": found.calibration.bands} if correlated else {}),
    }


def _document(found: BatchRecommendation, budget: Budget, allocated: float) -> dict[str, Any]:
    made = found.calibration.calibration
    return {
        **asdict(budget),
        "workload": {
            "learning_rate": "constant",
            "momentum": USUAL_MOMENTUM,
            "averaged": budget.averaged,
        },
        "single_release_noise": found.single_release,
        "choices": [_row(each, found) for each in found.choices],
        "knee_rule": _rule(),
        "recommended": {
            "batch_size": found.chosen.batch_size,
            "steps": made.steps,
            "bands": found.calibration.bands,
            "noise_multiplier": made.noise_multiplier,
            "sampling": made.sampling,
            "sample_rate": made.sample_rate,
            "accumulated_noise_left": found.calibration.error,
            "at_knee": found.knee is not None,
            "guarantee": made.guarantee.to_json(),
            "event": event_to_json(event=made.event),
        },
        "configuration": configuration_of(found=found, budget=budget),
        "without_correlation": {
            "batch_size": found.uncorrelated.batch_size,
            "steps": found.uncorrelated.steps,
            "noise_multiplier": found.uncorrelated.noise_multiplier,
            "allocated_noise_multiplier": allocated,
        },
        "unknown": _UNKNOWN,
    }


def _row(each: BatchChoice, found: BatchRecommendation) -> dict[str, Any]:
    return {
        "batch_size": each.batch_size,
        "steps": each.steps,
        "noise_multiplier": each.noise_multiplier,
        "noise_batch_ratio": each.noise_multiplier / each.batch_size,
        "effective_noise": each.independent,
        "bands": each.bands,
        "banded_noise_multiplier": each.banded_noise,
        "banded_effective_noise": each.banded,
        "gain_of_twice_the_compute": each.doubling,
        "knee": each is found.knee,
    }


def _show_choices(found: BatchRecommendation) -> None:
    terminal.show_table(
        title="Effective noise of a run, over that of one release of all gradients",
        columns=["batch", "steps", "σ/B", "independent", "banded", "bands", "twice", ""],
        rows=[
            [
                f"{each.batch_size}",
                f"{each.steps}",
                f"{each.noise_multiplier / each.batch_size:.3g}",
                f"{each.independent / found.single_release:.3g}",
                f"{each.banded / found.single_release:.3g}",
                f"{each.bands}",
                f"{-100 * each.doubling + 0.0:.0f}%",
                _mark(each, found),
            ]
            for each in found.choices
        ],
    )


def _mark(each: BatchChoice, found: BatchRecommendation) -> str:
    if each is found.knee:
        return "knee"
    return "nearest" if each is found.chosen else ""


def _facts(found: BatchRecommendation, budget: Budget, allocated: float) -> list[tuple[str, str]]:
    made, chosen, plain = found.calibration.calibration, found.chosen, found.uncorrelated
    lines = configuration_of(found=found, budget=budget)
    share = (
        f"the mean of the last {budget.averaged:.0%} of the steps"
        if budget.averaged
        else ("the last step's parameters")
    )
    return [
        ("configuration", ", ".join(f"{name}: {value}" for name, value in lines.items())),
        (
            "without correlation",
            f"expected_batch_size: {plain.batch_size}, steps: {plain.steps}, at σ = "
            f"{plain.noise_multiplier:g}, by the same rule; σ = {allocated:g} with sampling: "
            "allocated",
        ),
        (
            "compute",
            f"{chosen.batch_size} · {made.steps} of {budget.evaluations} gradient evaluations, "
            f"{chosen.batch_size * made.steps / budget.dataset_size:.3g} epochs; twice as many "
            f"would lower the noise by {chosen.doubling:.0%}",
        ),
        ("noise multiplier σ", rounded_up(made.noise_multiplier, digits=6)),
        *guarantee_rows(made.guarantee),
        ("sampling", made.sampling),
        ("knee", _rule() if found.knee else f"beyond this budget; {_rule()}"),
        (
            "effective noise",
            "σ·e/(B·√T), e the share that correlation leaves of independent noise in the "
            "parameters: noise in the mean of all steps' averaged gradients. The column σ/B, of "
            "one averaged gradient, is of independent noise",
        ),
        (
            "assumed",
            f"a constant learning rate with momentum {USUAL_MOMENTUM:g}, {share}; at most "
            f"{LONGEST} steps; correlated where it leaves at most {WORTH_CORRELATING:.0%}",
        ),
        ("not known", _UNKNOWN),
    ]


def _rule() -> str:
    return (
        f"the most steps, at least {SHORTEST}, for which twice the compute lowers the effective "
        f"noise by less than {LEAST_GAIN:.0%}"
    )


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.UsageError(f"{name}={text!r} is no number.") from None
