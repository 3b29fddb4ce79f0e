"""Few directions in which a run goes on, found by its own first phase's released gradients.

After a first phase of noised steps, the principal directions V of what they released are public, as
all that is computed from it. From then on a unit's gradient g is projected to the k numbers gV and
clipped there; their sum gets k numbers of noise, and V lifts it back for the optimizer (DP-SFT,
arXiv 2601.11113, whose published figures are of a first phase without noise). What leaves a step is
V times k noised numbers: nothing outside V's span can.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from dpacc.errors import ConfigurationError
from dpacc.layers.gradient_buffer import Layout, Slot
from dpacc.plan import PrivacyPlan
from dpacc.ranks import collectives

_SUMS_A_DIRECTION = 4
_COLUMNS_AT_ONCE = 1 << 16


class Subspace:
    """V, and the sums of released gradients of which it is made.

    Memory: sums of up to 4k parts of the first phase, on the host, in fp32 and each as long as all
    adapters; afterwards V in their place, k such vectors on the device, and while it is found twice
    its size in fp64 on the main process.

    Args:
        rank: k.
        width: d, the number of trainable elements.
        begins: the first step that is taken within V.
        accelerator: the launch's Accelerator.

    Attributes:
        basis: V, [width, k] fp32 with orthonormal columns, from step `begins` on; None before.
        layout: of the sum of a step within V: one slot of k numbers.

    Raises:
        ConfigurationError: the first phase has fewer steps than k, or there are fewer elements.
    """

    def __init__(self, *, rank: int, width: int, begins: int, accelerator: Accelerator) -> None:
        if not 1 <= rank <= min(begins, width):
            raise ConfigurationError(
                f"subspace_rank={rank} needs a first phase of at least as many steps, which has "
                f"{begins}, and as many trained elements, of which there are {width}; lower it"
            )
        self.rank = rank
        self.begins = begins
        self._accelerator = accelerator
        self._sums = torch.zeros(min(begins, _SUMS_A_DIRECTION * rank), width)
        self.basis: Tensor | None = None
        self.layout = _layout_of(rank)

    def begin(self, step: int) -> None:
        """Find V before the first step within it; all ranks must call it, and get the same."""
        if step < self.begins or self.basis is not None:
            return
        found: list[Tensor] = []
        collectives.on_main_process(
            self._accelerator,
            lambda: found.append(principal_directions(self._sums, rank=self.rank)),
        )
        self._hold(collectives.share_from_main(found[0] if found else None))

    def follow(self, step: int, released: Tensor) -> None:
        """Add a step's noised gradient, [width], to the part of the first phase that it is in."""
        if step < self.begins:
            self._sums[step * len(self._sums) // self.begins] += released.cpu()

    def lift(self, numbers: Tensor) -> Tensor:
        """V times k numbers, [width]."""
        assert self.basis is not None  # begin has seen to it
        return self.basis @ numbers

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps; all of it was released, or follows from that."""
        return {"sums": self._sums} if self.basis is None else {"basis": self.basis}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go back to what `state` gave.

        Raises:
            ConfigurationError: it is of other adapters, or of another k.
        """
        if "basis" in state and state["basis"].shape == (self._sums.shape[1], self.rank):
            self._hold(state["basis"])
        elif "sums" in state and state["sums"].shape == self._sums.shape:
            self._sums = state["sums"].clone()
        else:
            raise ConfigurationError(
                "the checkpoint's subspace is of other adapters or another rank; resume with the "
                "settings that the run was started with"
            )

    def _hold(self, basis: Tensor) -> None:
        self.basis = basis.to(self._accelerator.device)
        self._sums = self._sums[:0].clone()


class ProjectedGradients:
    """Adds up gV block by block as gradients come by, and keeps no gradient.

    Args:
        basis: V, [width, k] fp32.
        units: how many privacy units the backward is over.

    Attributes:
        rows: [units, k] fp32.
    """

    def __init__(self, basis: Tensor, *, units: int) -> None:
        self._basis = basis
        self.rows = torch.zeros(units, basis.shape[1], device=basis.device)

    def take(self, slot: Slot, block: Tensor) -> None:
        """Project one slot's gradients."""
        self.rows += block.float() @ self._basis[slot.offset : slot.end]


def subspace_of(
    rank: int | None, plan: PrivacyPlan, *, layout: Layout, accelerator: Accelerator
) -> Subspace | None:
    """The subspace in which a plan's second phase is taken, if its rank is given.

    Raises:
        ConfigurationError: the plan has not two phases, or clips layers by themselves.
    """
    if rank is None:
        return None
    if len(plan.phases) != 2 or plan.clipping == "per-layer":
        raise ConfigurationError(
            f"subspace_rank={rank} with {len(plan.phases)} phases and clipping={plan.clipping}: a "
            "plan of two phases finds the subspace in the first and stays within it in the second, "
            "where no layer has a norm of its own; make it with dpacc.plan.phased_plan"
        )
    begins = plan.phases[0].steps
    return Subspace(rank=rank, width=layout.width, begins=begins, accelerator=accelerator)


def layout_within(subspace: Subspace | None, *, whole: Layout) -> Layout:
    """Of the sum of the step at hand: `whole`, or k numbers."""
    return whole if subspace is None or subspace.basis is None else subspace.layout


@torch.no_grad()
def principal_directions(rows: Tensor, *, rank: int) -> Tensor:
    """The k right singular vectors of the largest singular values, [width, k] fp32, orthonormal.

    From the rows' inner products in fp64, so that little more than the result is held.

    Args:
        rows: [n, width] fp32, n >= k.
        rank: k.

    >>> rows = torch.tensor([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> principal_directions(rows, rank=1).abs().round().flatten().tolist()
    [1.0, 0.0, 0.0]
    """
    starts = range(0, rows.shape[1], _COLUMNS_AT_ONCE)
    parts = [rows[:, start : start + _COLUMNS_AT_ONCE] for start in starts]
    products = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for part in parts:
        products += part.double() @ part.double().T
    largest = torch.linalg.eigh(products).eigenvectors[:, -rank:].flip(1)
    # Orthonormal up to the rounding of small singular values, which the last step takes out.
    lifted = torch.cat([part.double().T @ largest for part in parts])
    directions: Tensor = torch.linalg.qr(lifted).Q.float()
    return directions


def _layout_of(rank: int) -> Layout:
    numbers = torch.nn.Parameter(torch.zeros(rank), requires_grad=False)
    return Layout({"the subspace": numbers})
