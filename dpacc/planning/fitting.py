"""What one device would hold on so many GPUs, under each launch, at each length of example."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dpacc.planning.architectures import read_architecture
from dpacc.planning.forecast import sequences_of, strategy_here
from dpacc.planning.memory import (
    DeviceMemory,
    Placement,
    cost_of_probe,
    device_memory,
    placements_on,
)
from dpacc.planning.skeleton import build_skeleton
from dpacc.planning.weightless_step import Strategy, cost_of_micro_batch
from dpacc.recipe.assembly import plan_for
from dpacc.recipe.config import TrainingConfig

GPUS, TOKENS = (1, 2, 8), (2048, 8192)
"""What is compared unless something else is asked for."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One way to run, with micro-batches of a single example: the least that it needs.

    Attributes:
        gpus: how many.
        placement: what is cut over them.
        tokens: of an example.
        strategy: how per-example gradients are made.
        memory: of each GPU, at its worst moment.
        fits: whether it has as much.
    """

    gpus: int
    placement: Placement
    tokens: int
    strategy: Strategy
    memory: DeviceMemory
    fits: bool

    def to_json(self) -> dict[str, Any]:
        """In bytes."""
        return {
            "gpus": self.gpus,
            "placement": self.placement,
            "tokens": self.tokens,
            "per_example_gradients": self.strategy,
            "moment": self.memory.moment,
            "parts_bytes": dict(self.memory.parts),
            "peak_bytes": self.memory.peak,
            "fits": self.fits,
        }


def what_fits(
    *,
    config: TrainingConfig,
    dataset_size: int,
    memory: int,
    gpus: Sequence[int] = GPUS,
    lengths: Sequence[int] = TOKENS,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Fit]:
    """Every launch on every number of GPUs, at every length.

    The model is built once, and one example of each length runs through it on shapes.

    Args:
        config: the run.
        dataset_size: N, privacy units.
        memory: bytes of each GPU.
        gpus: how many there might be.
        lengths: tokens of an example.
        progress: is told what is being planned.

    Raises:
        ConfigurationError: the model's architecture cannot be read, or a setting does not fit.
    """
    plan = plan_for(config=config, dataset_size=dataset_size)
    progress("the model")
    skeleton = build_skeleton(config=config, architecture=read_architecture(model=config.model))
    strategy, _ = strategy_here(config, skeleton, memory=memory)
    given: dict[str, Any] = {
        "skeleton": skeleton,
        "plan": plan,
        "sequences": sequences_of(config),
    }
    progress("the coupling probe")
    probe = cost_of_probe(**given)
    found = []
    for tokens in lengths:
        progress(f"an example of {tokens:,} tokens")
        step = cost_of_micro_batch(strategy=strategy, examples=1, tokens=tokens, **given)
        for ranks in gpus:
            for placement in placements_on(ranks):
                held = device_memory(
                    skeleton=skeleton,
                    step=step,
                    probe=probe,
                    placement=placement,
                    ranks=ranks,
                    on_processor=False,
                )
                found.append(
                    Fit(
                        gpus=ranks,
                        placement=placement,
                        tokens=tokens,
                        strategy=strategy,
                        memory=held,
                        fits=held.peak <= memory,
                    )
                )
    return found
