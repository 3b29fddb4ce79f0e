"""What one device holds at the worst moment of a run, part by part, for each way to spread it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from dpacc.plan import PrivacyPlan
from dpacc.planning.skeleton import Skeleton
from dpacc.planning.weightless_step import MicroBatchCost, cost_of_micro_batch
from dpacc.step.release import MOST_DRAWN_AHEAD

Placement = Literal["whole", "zero2", "zero3", "fsdp2"]
PLACEMENTS: dict[Placement, str] = {
    "whole": "plain",
    "zero2": "ZeRO-1/2",
    "zero3": "ZeRO-3",
    "fsdp2": "FSDP2",
}

_PROBE_EXAMPLES, _PROBE_TOKENS = 3, 13  # the largest made-up micro-batch

RUNTIME_BYTES = {"processor": 550 * 2**20, "gpu": 2**30}
"""Python, torch and their libraries: measured on a processor; on a GPU an allowance for the CUDA
context, workspaces and fragments."""

_ZERO3_MAX_LIVE = 10**9  # DeepSpeed's stage3_max_live_parameters


@dataclass(frozen=True, kw_only=True)
class DeviceMemory:
    """The bytes of each part at the moment when they are most.

    Attributes:
        moment: "probe", "micro-batch" or "release".
        parts: bytes by name; they sum to `peak`.
    """

    moment: str
    parts: Mapping[str, int]

    @property
    def peak(self) -> int:
        """All parts together."""
        return sum(self.parts.values())


def cost_of_probe(*, skeleton: Skeleton, plan: PrivacyPlan, sequences: int = 1) -> MicroBatchCost:
    """What the coupling probe's largest micro-batch takes, of which one gradient is kept.

    Args:
        skeleton: the model.
        plan: how gradients are clipped and added.
        sequences: of each example; a preference pair has two.
    """
    return cost_of_micro_batch(
        skeleton=skeleton,
        plan=plan,
        strategy="probe",
        examples=_PROBE_EXAMPLES,
        tokens=_PROBE_TOKENS,
        sequences=sequences,
    )


def placements_on(ranks: int) -> list[Placement]:
    """All ways to spread a run over so many ranks; one rank holds all of it."""
    return list(PLACEMENTS) if ranks > 1 else ["whole"]


def device_memory(
    *,
    skeleton: Skeleton,
    step: MicroBatchCost,
    probe: MicroBatchCost,
    placement: Placement,
    ranks: int,
    on_processor: bool,
    earlier_noise: int = 0,
) -> DeviceMemory:
    """Memory of one device at the worst of three moments of a run.

    With W = 4 bytes · trainable parameters: the coupling probe makes one example's gradient while
    it holds two more; a micro-batch holds AdamW's 2W and the clipped sum; a release holds that
    sum, between ranks twice, and the noise. On a processor little noise is drawn ahead, into its
    own memory.

    Args:
        skeleton: the model.
        step: the largest micro-batch, materialized or ghost.
        probe: see `cost_of_probe`.
        placement: what is cut over the ranks.
        ranks: how many there are.
        on_processor: whether the device is the processor itself.
        earlier_noise: bytes of the rows that correlated noise keeps between steps, on the host.
    """
    flat = 4 * skeleton.trainable
    fixed = {
        "runtime": RUNTIME_BYTES["processor" if on_processor else "gpu"],
        **_model_parts(skeleton, placement, ranks),
        **({"earlier noise": earlier_noise} if on_processor and earlier_noise else {}),
    }
    optimizer = {"optimizer": _optimizer_bytes(flat, placement, ranks)}
    ahead = on_processor and skeleton.trainable <= MOST_DRAWN_AHEAD
    noise = {"noise": flat if ahead else 0}
    # The clipped sum, noise or gradient, and a copy to reduce; AdamW's own work on a GPU.
    releasing = (2 + (ranks > 1) + (0 if on_processor else 2)) * flat
    moments = {
        "probe": {"probe": probe.peak + 2 * flat, **noise},
        "micro-batch": {
            **optimizer,
            "clipped sum": step.clipped_sum,
            **noise,
            "per-example gradients": step.gradients,
            "activations": step.activations,
            "logits and losses": step.losses,
            "backward": step.peak
            - step.clipped_sum
            - step.gradients
            - step.activations
            - step.losses,
        },
        "release": {**optimizer, "clipped sum, noise and update": releasing},
    }
    worst = max(moments, key=lambda name: sum(moments[name].values()))
    return DeviceMemory(moment=worst, parts={**fixed, **moments[worst]})


def _model_parts(skeleton: Skeleton, placement: Placement, ranks: int) -> dict[str, int]:
    base, flat = skeleton.base_bytes, 4 * skeleton.trainable
    if placement in ("whole", "zero2") or ranks == 1:
        return {"base": base, "adapters": flat}
    if placement == "fsdp2":
        gathered = skeleton.outside_bytes + 2 * skeleton.block_bytes
        return {"base": base // ranks, "gathered": min(base, gathered), "adapters": flat}
    live = min(base, _ZERO3_MAX_LIVE * skeleton.element_bytes)
    return {"base": base // ranks, "gathered": live, "adapters": flat // ranks}


def _optimizer_bytes(flat: int, placement: Placement, ranks: int) -> int:
    """AdamW's two averages; DeepSpeed cuts them, with a copy of the adapters, over the ranks."""
    if placement in ("whole", "fsdp2"):
        return 2 * flat
    return 3 * flat // ranks + flat


def most_that_fits(*, peak: Callable[[int], int], limit: int, at_most: int) -> int:
    """The largest number whose peak is within the limit; 0 if none, `at_most` if all.

    `peak` must not fall. The answer is one that fits and whose successor was seen not to. A peak on
    a straight line is asked for four times at most, any other 3·log₂(`at_most`) + 3 times: where
    two guesses by the chord leave more than half of the numbers, a third halves them.

    >>> most_that_fits(peak=lambda n: 100 + 7 * n, limit=200, at_most=1000)
    14
    """
    least = peak(1)
    if least > limit or at_most == 1:
        return int(least <= limit)
    most = peak(at_most)
    if most <= limit:
        return at_most
    known = {1: least, at_most: most}
    low, high, poor = 1, at_most, 0
    while high - low > 1:
        left = high - low
        guess = low + (limit - known[low]) * left // (known[high] - known[low])
        guess = (low + high) // 2 if poor == 2 else min(max(low + 1, guess), high - 1)
        known[guess] = peak(guess)
        low, high = (guess, high) if known[guess] <= limit else (low, guess)
        poor = poor + 1 if poor < 2 and 2 * (high - low) > left else 0
    return low
