"""`dpacc plan`: what a run would need, before anything is downloaded or rented."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource
from dpacc_accounting import UnitSampling
from dpacc_accounting.guarantee import rounded_up

from dpacc.cli import options, terminal
from dpacc.cli.guarantee_table import guarantee_rows
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig, load_config

_GIVEN = ParameterSource.COMMANDLINE

if TYPE_CHECKING:
    from dpacc.plan import PrivacyPlan
    from dpacc.planning.forecast import Forecast


@click.command(
    short_help="Say what a run would need: memory, traffic, time, noise, launch.",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("config", type=click.Path(path_type=Path), required=False)
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@options.gpus(default=1)
@options.memory_per_gpu
@click.option("--dataset-size", type=click.IntRange(min=1), help="N.  [default: counted]")
@click.option(
    "--tokens-per-example",
    type=click.IntRange(min=1),
    help="Padded tokens of an example.  [default: the configuration's max_length]",
)
@click.option(
    "--tflops",
    type=click.FloatRange(min=0, min_open=True),
    help="Sustained 10¹² operations a second of one device.  [default: 120 a GPU, 0.1 without]",
)
@click.option(
    "--network",
    type=click.FloatRange(min=0, min_open=True),
    default=25.0,
    show_default=True,
    help="Sustained GB a second that one rank sends.",
)
@click.option("--epsilon", help="ε, instead of what CONFIG says.")
@click.option("--delta", help="δ, likewise.")
@click.option(
    "--recommend",
    is_flag=True,
    help="Say which batch size, steps and bands a budget of compute is best spent on.",
)
@click.option(
    "--gradient-evaluations",
    type=click.IntRange(min=1),
    help="With --recommend: expected batch size times steps.  [default: CONFIG's]",
)
@click.option(
    "--fits",
    is_flag=True,
    help="Say what fits on 1, 2 and 8 GPUs (or --gpus), each launch, 2,048 and 8,192 tokens.",
)
@options.plot
@options.as_json
@click.pass_context
def plan(
    context: click.Context,
    config: Path | None,
    overrides: tuple[str, ...],
    gpus: int,
    memory_per_gpu: int,
    dataset_size: int | None,
    tokens_per_example: int | None,
    tflops: float | None,
    network: float,
    epsilon: str | None,
    delta: str | None,
    recommend: bool,
    gradient_evaluations: int | None,
    fits: bool,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Plan the run of CONFIG, a YAML of recipes/train.py, without GPU, weights or training.

    Any setting of CONFIG may be overridden: --model gpt2 --quantization nf4 --dtype bfloat16.
    Of the data nothing is read but how many examples there are.

    \b
      dpacc plan recipes/configs/llama2_7b.yaml --gpus 8 --memory-per-gpu 24GB

    With --recommend nothing is needed but N, ε and how many gradients may be evaluated; δ is
    N^-1.1 unless it is given. A CONFIG says what options do not.

    \b
      dpacc plan --recommend --dataset-size 9603 --epsilon 8 --gradient-evaluations 288090 \\
        --plot recommended.png
    """
    if config is not None and str(config).startswith("-"):
        raise click.UsageError(
            f"{config} is no option without a CONFIG, whose settings it changes."
        )
    given = {"--epsilon": epsilon, "--delta": delta}
    told = [word for name, value in given.items() if value is not None for word in (name, value)]
    settings = config and load_config(arguments=["--config", str(config), *overrides, *told])
    if recommend and fits:
        raise click.UsageError("--fits and --recommend answer different questions: give one.")
    if recommend:
        from dpacc.cli.calibration.recommendation import (
            budget_of,
            require_no_machine,
            show_recommendation,
        )

        require_no_machine(context)
        with options.training_stack():
            units = dataset_size or (_count(settings) if settings else None)
        budget = budget_of(
            config=settings or None,
            dataset_size=units,
            evaluations=gradient_evaluations,
            epsilon=epsilon,
            delta=delta,
        )
        show_recommendation(budget=budget, plot=plot, as_json=as_json)
        return
    if gradient_evaluations is not None or plot is not None:
        wrong = "--plot" if gradient_evaluations is None else "--gradient-evaluations"
        raise click.UsageError(f"{wrong} needs --recommend.")
    if not settings:
        raise click.UsageError("Missing argument 'CONFIG'; only --recommend does without.")
    if fits:
        _show_fits(
            settings=settings,
            dataset_size=dataset_size,
            memory=memory_per_gpu,
            gpus=gpus if context.get_parameter_source("gpus") is _GIVEN else None,
            tokens=tokens_per_example,
            as_json=as_json,
        )
        return
    with options.training_stack(), terminal.at_work("planning") as doing:
        from dpacc.planning import unit_sampling
        from dpacc.planning.forecast import Machine, forecast
        from dpacc.planning.traffic import Rates

        rate = tflops or options.sustained_tflops(gpus=gpus)
        rates = Rates(operations=rate * 1e12, network=network * 1e9)
        found = forecast(
            config=settings,
            dataset_size=dataset_size or _count(settings),
            machine=Machine(gpus=gpus, memory=memory_per_gpu, rates=rates),
            tokens=tokens_per_example,
            path=shlex.join([str(config), *overrides, *told]),
            progress=doing,
        )
        people = _people(settings)
    assumed = {"sustained_tflops": rate, "network_gb_per_second": network, "gpus": gpus}
    if as_json:
        guarantee, phases = found.plan.guarantee().to_json(), found.plan.to_json().get("phases")
        terminal.show_json(
            {
                "model": settings.model,
                **found.to_json(),
                "noise_multiplier": found.plan.noise_multiplier,
                "sampling": found.plan.sampling,
                "steps": found.plan.steps,
                "dataset_size": found.plan.dataset_size,
                "expected_batch_size": found.plan.expected_batch_size,
                **({} if phases is None else {"phases": phases}),
                "guarantee": guarantee,
                **({} if people is None else {"unit_sampling": unit_sampling.to_json(both=people)}),
                "assumed": {**assumed, "memory_bytes": memory_per_gpu},
            }
        )
        return
    _show(
        found=found,
        settings=settings,
        memory=memory_per_gpu,
        tflops=rate,
        network=network,
        gpus=gpus,
    )
    if people is not None:
        rows = unit_sampling.in_words(both=people, unit=str(settings.unit_field))
        terminal.show_facts(title=f"One {settings.unit_field}, several examples", facts=rows)


def _show_fits(
    *,
    settings: TrainingConfig,
    dataset_size: int | None,
    memory: int,
    gpus: int | None,
    tokens: int | None,
    as_json: bool,
) -> None:
    """Every launch on several numbers of GPUs, instead of one plan."""
    from dpacc.cli.calibration.fits_table import show_fits

    if gpus == 0:
        raise click.UsageError("--fits compares GPUs: leave out --gpus 0.")
    with options.training_stack(), terminal.at_work("planning") as doing:
        from dpacc.planning.fitting import GPUS, TOKENS, what_fits

        found = what_fits(
            config=settings,
            dataset_size=dataset_size or _count(settings),
            memory=memory,
            gpus=GPUS if gpus is None else (gpus,),
            lengths=TOKENS if tokens is None else (tokens,),
            progress=doing,
        )
    if as_json:
        said = [each.to_json() for each in found]
        terminal.show_json({"model": settings.model, "fits": said, "memory_bytes": memory})
    else:
        show_fits(fits=found, settings=settings, memory=memory)


def _people(config: TrainingConfig) -> UnitSampling | None:
    """Both ways of drawing where the data tells who owns how many examples."""
    if config.unit_cap is None or not Path(config.train_data).expanduser().exists():
        return None
    from dpacc.data.privacy_units import count_units
    from dpacc.planning.unit_sampling import both_ways
    from dpacc.recipe.examples import load_units

    owners = load_units(config=config) or []
    units = count_units(examples=len(owners), units=owners)
    kept = count_units(examples=len(owners), units=owners, kept_of_each=config.unit_cap)
    return both_ways(config=config, units=units, examples=kept)


def _count(config: TrainingConfig) -> int:
    """How many privacy units the training data holds."""
    from dpacc.data.privacy_units import count_units
    from dpacc.data.records import read_records
    from dpacc.recipe.examples import load_units

    if not Path(config.train_data).expanduser().exists():
        raise ConfigurationError(
            f"train_data={config.train_data} is no file here, so its examples cannot be counted: "
            "give --dataset-size"
        )
    units = load_units(config=config)
    if units is not None:
        return count_units(examples=len(units), units=units, kept_of_each=config.kept_of_each)
    return len(read_records(source=config.train_data, fields={}))


def _show(
    *,
    found: Forecast,
    settings: TrainingConfig,
    memory: int,
    tflops: float,
    network: float,
    gpus: int,
) -> None:
    from dpacc.planning.noise_over_signal import in_words

    plan, tokens = found.plan, found.tokens
    largest = found.largest_micro_batch
    facts = [
        ("model", f"{settings.model}, base stored as {settings.quantization}"),
        ("trainable parameters", f"{found.trainable:,}"),
        ("per-example gradients", found.strategy),
        (
            "micro-batch",
            f"{found.examples} examples of {tokens} tokens, {found.micro_batches} a logical step "
            "on each rank",
        ),
        (
            "largest that fits",
            f"{largest} examples: --micro_batch_tokens {largest * tokens}"
            if largest
            else f"none in {options.size(memory)} with the base whole",
        ),
        (
            "activations",
            f"{options.size(found.activations[True])} with gradient_checkpointing, "
            f"{options.size(found.activations[False])} without",
        ),
        (
            "noise multiplier σ",
            ", then ".join(rounded_up(p.noise_multiplier, digits=6) for p in plan.each_phase),
        ),
        ("noise", in_words(ratio=found.noise_over_signal)),
        *_correlated(found),
        *guarantee_rows(plan.guarantee()),
        (
            "steps",
            f"{plan.steps} of expected batch {plan.batch_in_words}, N = {plan.dataset_size}",
        ),
        *_allocated(plan),
    ]
    terminal.show_facts(title="Plan", facts=facts)
    _show_spreads(found, gpus)
    launch = found.launch
    terminal.show_facts(
        title="Recommendation",
        facts=[
            ("launch", f"{launch.file}: {launch.why}" if launch else _nothing_fits(settings)),
            *([("line", launch.line)] if launch else []),
            (
                "assumed",
                f"{options.size(memory)} and {tflops:g} sustained TFLOP/s a device, {network:g} "
                f"GB/s a rank, every example {tokens} tokens; nothing overlaps",
            ),
        ],
    )


def _allocated(plan: PrivacyPlan) -> list[tuple[str, str]]:
    """How long an epoch is, where it is drawn as a whole."""
    if plan.sampling != "allocated":
        return []
    each = plan.participation.cycle
    words = f"{each} steps, each {plan.unit} in one of them; a run that dies goes on at the next"
    return [("an epoch", words)]


def _correlated(found: Forecast) -> list[tuple[str, str]]:
    """How many bands, and what they gain in this run's own workload."""
    noise = found.correlation
    if noise is None:
        return []
    if noise.bands == 1:
        return [("correlated noise", "1 band: here independent noise is best")]
    return [
        (
            "correlated noise",
            f"{noise.bands} bands leave {noise.left:.3g} of what independent noise would in this "
            f"run's parameters; one step's is up to {noise.largest_step:.3g} times as large",
        )
    ]


def _show_spreads(found: Forecast, gpus: int) -> None:
    from dpacc.planning.memory import PLACEMENTS

    spreads = found.spreads
    names = list(dict.fromkeys(name for s in spreads.values() for name in s.memory.parts))
    rows = [
        [name, *(options.size(s.memory.parts.get(name, 0)) for s in spreads.values())]
        for name in names
    ]
    rows += [
        ["peak", *(options.size(s.memory.peak) for s in spreads.values())],
        ["reached in", *(s.memory.moment for s in spreads.values())],
        *_host_row(found, gpus),
        *(
            [f"sent a step, {wire}", *(options.size(s.sent[wire]) for s in spreads.values())]
            for wire in ("fp32", "bf16")
        ),
        ["seconds a step", *(f"{s.seconds:.3g}" for s in spreads.values())],
        ["hours in all", *(f"{s.seconds * found.plan.steps / 3600:.2g}" for s in spreads.values())],
    ]
    columns = ["on each device", *(PLACEMENTS[name] for name in spreads)]
    terminal.show_table(title="Memory, traffic and time", columns=columns, rows=rows)


def _host_row(found: Forecast, gpus: int) -> list[list[str]]:
    """What GPUs do not hold; where there are none, the parts have it."""
    noise = found.correlation
    if noise is None or noise.bands == 1 or not gpus:
        return []
    ranks = f"each of {gpus} ranks" if gpus > 1 else "the rank"
    return [[f"host memory of {ranks}", *([options.size(noise.host_bytes)] * len(found.spreads))]]


def _nothing_fits(settings: TrainingConfig) -> str:
    advice = []
    if settings.quantization == "none":
        advice.append("--quantization nf4")
    if not settings.gradient_checkpointing:
        advice.append("--gradient_checkpointing true")
    if settings.per_example_gradients != "ghost":
        advice.append("--per_example_gradients ghost")
    advice.append(f"--micro_batch_tokens {max(1, settings.micro_batch_tokens // 2)}")
    return f"nothing fits; try {', '.join(advice)}, or more GPUs"
