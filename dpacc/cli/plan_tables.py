"""A forecast as the tables that `dpacc plan` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpacc_accounting.guarantee import rounded_up

from dpacc.cli import terminal
from dpacc.cli.guarantee_table import guarantee_rows
from dpacc.recipe.config import TrainingConfig

if TYPE_CHECKING:
    from dpacc.planning.forecast import Forecast


def show_plan(
    *,
    found: Forecast,
    settings: TrainingConfig,
    memory: int,
    tflops: float,
    network: float,
    gpus: int,
) -> None:
    """Print all of a forecast.

    Args:
        found: the forecast.
        settings: of the run.
        memory: bytes of each device.
        tflops: sustained 10¹² operations a second of one device.
        network: sustained GB a second that a rank sends.
        gpus: how many; 0 for the processor.
    """
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
            else f"none in {_size(memory)} with the base whole",
        ),
        (
            "activations",
            f"{_size(found.activations[True])} with gradient_checkpointing, "
            f"{_size(found.activations[False])} without",
        ),
        ("noise multiplier σ", rounded_up(plan.noise_multiplier, digits=6)),
        *_correlated(found),
        *guarantee_rows(plan.guarantee()),
        (
            "steps",
            f"{plan.steps} of expected batch {plan.expected_batch_size}, N = {plan.dataset_size}",
        ),
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
                f"{_size(memory)} and {tflops:g} sustained TFLOP/s a device, {network:g} GB/s a "
                f"rank, every example {tokens} tokens; nothing overlaps",
            ),
        ],
    )


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
        [name, *(_size(s.memory.parts.get(name, 0)) for s in spreads.values())] for name in names
    ]
    rows += [
        ["peak", *(_size(s.memory.peak) for s in spreads.values())],
        ["reached in", *(s.memory.moment for s in spreads.values())],
        *_host_row(found, gpus),
        *(
            [f"sent a step, {wire}", *(_size(s.sent[wire]) for s in spreads.values())]
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
    return [[f"host memory of {ranks}", *([_size(noise.host_bytes)] * len(found.spreads))]]


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


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**27 else f"{count / 2**20:.2f} MiB"
