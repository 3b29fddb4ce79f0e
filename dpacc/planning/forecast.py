"""Everything a run would need, from its configuration and a description of the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from dpacc.plan import PrivacyPlan
from dpacc.planning.architectures import read_architecture
from dpacc.planning.earlier_noise import EarlierNoise, earlier_noise, row_bytes, rows_kept
from dpacc.planning.launch import Launch, recommend
from dpacc.planning.memory import (
    DeviceMemory,
    Placement,
    cost_of_probe,
    device_memory,
    most_that_fits,
    placements_on,
)
from dpacc.planning.noise_over_signal import noise_over_signal
from dpacc.planning.skeleton import Skeleton, build_skeleton
from dpacc.planning.traffic import Rates, seconds, sent_bytes
from dpacc.planning.weightless_step import MicroBatchCost, Strategy, cost_of_micro_batch
from dpacc.recipe.assembly import plan_for
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.precision import computes_in_16_bits
from dpacc.step.strategies import choose, rows_within


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a run is planned for.

    Attributes:
        gpus: how many; 0 means one process on the processor.
        memory: bytes of each device.
        rates: what each keeps up.
    """

    gpus: int
    memory: int
    rates: Rates

    @property
    def ranks(self) -> int:
        """Processes."""
        return max(1, self.gpus)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One way to spread a run over the ranks, and what it costs.

    Attributes:
        memory: of each device.
        sent: bytes that a rank sends in a logical step, by wire format.
        seconds: of a logical step, with the configuration's wire.
    """

    memory: DeviceMemory
    sent: Mapping[str, int]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What `dpacc plan` says.

    Attributes:
        plan: the promise, with its noise.
        trainable: parameters.
        strategy: how per-example gradients are made.
        examples: privacy units of one example each in a micro-batch.
        tokens: of each example, padded; of both answers of a pair.
        micro_batches: of a logical step on each rank.
        activations: bytes that a forward leaves, by whether activations are recomputed.
        spreads: by placement; those that a single device makes alike are left out.
        largest_micro_batch: examples that fit when the base is whole; 0 if none.
        launch: the recommendation, if anything fits.
        correlation: what correlated noise gains and takes, if the configuration asks for it.
        noise_over_signal: of the whole run, as `planning.noise_over_signal` defines it.
    """

    plan: PrivacyPlan
    trainable: int
    strategy: Strategy
    examples: int
    tokens: int
    micro_batches: int
    activations: Mapping[bool, int]
    spreads: Mapping[Placement, Spread]
    largest_micro_batch: int
    launch: Launch | None
    correlation: EarlierNoise | None
    noise_over_signal: float

    def in_one_line(self) -> str:
        """Memory and time when the base is whole, for the head of a configuration.

        Rounded to what an estimate is worth.
        """
        whole = self.spreads["whole"]
        gib, hours = whole.memory.peak / 2**30, whole.seconds * self.plan.steps / 3600
        return (
            f"{self.trainable:,} trainable parameters, {gib:.1f} GiB on each device, "
            f"{whole.seconds:.3g} s a logical step, {hours:.2g} h in all"
        )

    def to_json(self) -> dict[str, Any]:
        """All of it, in bytes and seconds."""
        return {
            "trainable_parameters": self.trainable,
            "per_example_gradients": self.strategy,
            "micro_batch": {
                "examples": self.examples,
                "tokens_per_example": self.tokens,
                "per_logical_step_and_rank": self.micro_batches,
                "largest_examples": self.largest_micro_batch,
                "largest_tokens": self.largest_micro_batch * self.tokens,
            },
            "activation_bytes": {
                "with_checkpointing": self.activations[True],
                "without_checkpointing": self.activations[False],
            },
            "spreads": {
                name: {
                    "peak_bytes": spread.memory.peak,
                    "moment": spread.memory.moment,
                    "parts_bytes": dict(spread.memory.parts),
                    "sent_bytes_per_step": dict(spread.sent),
                    "seconds_per_step": spread.seconds,
                }
                for name, spread in self.spreads.items()
            },
            "launch": None if self.launch is None else vars(self.launch),
            "noise_over_signal": self.noise_over_signal,
            **({"correlated_noise": self.correlation.to_json()} if self.correlation else {}),
        }


def forecast(
    *,
    config: TrainingConfig,
    dataset_size: int,
    machine: Machine,
    tokens: int | None = None,
    path: str = "CONFIG.yaml",
    progress: Callable[[str], None] = lambda _: None,
) -> Forecast:
    """Plan a run without its weights, its data or a GPU.

    Args:
        config: the run.
        dataset_size: N, privacy units.
        machine: where it would run.
        tokens: of an example; by default the most the configuration keeps.
        path: of the configuration, for the launch line.
        progress: is told what is being planned; a step of a deep model takes seconds.

    Raises:
        ConfigurationError: the model's architecture cannot be read, or a setting does not fit.
    """
    config = _as_computed(config, machine)
    progress("noise")
    plan = plan_for(config=config, dataset_size=dataset_size)
    progress("the model")
    architecture = read_architecture(model=config.model)
    skeleton = build_skeleton(config=config, architecture=architecture)
    tokens, sequences = tokens or config.max_length, sequences_of(config)
    strategy, rows = strategy_here(
        config, skeleton, memory=machine.memory, on_processor=machine.gpus == 0
    )
    examples = max(1, config.micro_batch_tokens // (tokens * sequences))
    if strategy == "materialize":
        examples = min(examples, max(1, rows))

    @cache
    def cost(count: int) -> MicroBatchCost:
        progress(f"a micro-batch of {count:,} × {tokens:,} tokens")
        return cost_of_micro_batch(
            skeleton=skeleton,
            plan=plan,
            strategy=strategy,
            examples=count,
            tokens=tokens,
            sequences=sequences,
        )

    progress("the coupling probe")
    probe = cost_of_probe(skeleton=skeleton, plan=plan, sequences=sequences)

    def memory(placement: Placement, count: int) -> DeviceMemory:
        return device_memory(
            skeleton=skeleton,
            step=cost(count),
            probe=probe,
            placement=placement,
            ranks=machine.ranks,
            on_processor=machine.gpus == 0,
            earlier_noise=rows_kept(bands=plan.bands)
            * row_bytes(plan=plan, trainable=skeleton.trainable),
        )

    micro_batches = -(-config.expected_batch_size // (machine.ranks * examples))

    def spread(placement: Placement) -> Spread:
        sent = {
            wire: sent_bytes(
                trainable=skeleton.trainable,
                base_bytes=skeleton.base_bytes,
                placement=placement,
                ranks=machine.ranks,
                wire=wire,
                discrete=config.noise == "discrete_gaussian",
                micro_batches=micro_batches,
                strategy=strategy,
            )
            for wire in ("fp32", "bf16")
        }
        took = seconds(
            operations=micro_batches * cost(examples).operations,
            sent=sent[config.wire],
            rates=machine.rates,
        )
        return Spread(memory=memory(placement, examples), sent=sent, seconds=took)

    spreads = {placement: spread(placement) for placement in placements_on(machine.ranks)}
    fitting = {name for name, each in spreads.items() if each.memory.peak <= machine.memory}
    progress("the same with activations kept or made again")
    activations = _activations(config, plan, cost(examples), strategy, examples, tokens)
    correlation = earlier_noise(config=config, plan=plan, trainable=skeleton.trainable)
    return Forecast(
        plan=plan,
        trainable=skeleton.trainable,
        strategy=strategy,
        examples=examples,
        tokens=tokens * sequences,
        micro_batches=micro_batches,
        activations=activations,
        spreads=spreads,
        largest_micro_batch=most_that_fits(
            peak=lambda count: memory("whole", count).peak,
            limit=machine.memory,
            at_most=_most_worth_asking(config, strategy, rows),
        ),
        launch=recommend(
            gpus=machine.gpus, fitting=fitting, quantization=config.quantization, config=path
        )
        if fitting
        else None,
        correlation=correlation,
        noise_over_signal=noise_over_signal(
            plan=plan,
            trainable=skeleton.trainable,
            correlation=1.0 if correlation is None else correlation.of_its_own,
        ),
    )


def sequences_of(config: TrainingConfig) -> int:
    """How many rows of a forward one example is: the two answers of a pair, or one text."""
    return 2 if config.task == "preference" else 1


def _as_computed(config: TrainingConfig, machine: Machine) -> TrainingConfig:
    """As a processor runs it, where that is the device: nothing leaves it, and `auto` differs."""
    if machine.gpus:
        return config
    in_32_bits = config.dtype == "auto" and not computes_in_16_bits(None)
    dtype = "float32" if in_32_bits else config.dtype
    return replace(config, dtype=dtype, offload_activations=False)


def strategy_here(
    config: TrainingConfig, skeleton: Skeleton, *, memory: int, on_processor: bool = False
) -> tuple[Strategy, int]:
    """What the engine would choose, from what is free once a quantized base is on the device."""
    there = skeleton.base_bytes if config.quantization != "none" or on_processor else 0
    rows = rows_within(free=max(0, memory - there), width=skeleton.trainable)
    return choose(config.per_example_gradients, rows_that_fit=rows), rows


def _activations(
    config: TrainingConfig,
    plan: PrivacyPlan,
    known: MicroBatchCost,
    strategy: Strategy,
    examples: int,
    tokens: int,
) -> dict[bool, int]:
    """With and without recomputing them: one is known, the other is counted."""
    chosen = config.gradient_checkpointing
    other = replace(config, gradient_checkpointing=not chosen, offload_activations=False)
    skeleton = build_skeleton(config=other, architecture=read_architecture(model=config.model))
    counted = cost_of_micro_batch(
        skeleton=skeleton,
        plan=plan,
        strategy=strategy,
        examples=examples,
        tokens=tokens,
        sequences=sequences_of(config),
    )
    return {chosen: known.activations, not chosen: counted.activations}


def _most_worth_asking(config: TrainingConfig, strategy: Strategy, rows: int) -> int:
    most = config.expected_batch_size
    return min(most, max(1, rows)) if strategy == "materialize" else most
