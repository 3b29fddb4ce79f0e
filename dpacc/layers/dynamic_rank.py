"""One adapter for every rank: each step trains the first rows of A and columns of B alone.

How many is drawn for each step from a public seed, so that it tells nothing of the data. What is
not among them is zero in the forward, has no gradient, weighs nothing in a norm and gets no noise,
and comes back for the update. Whoever cuts the adapter to its first r rows and columns then has one
that was trained at rank r, too (DyLoRA, arXiv 2210.07558; under privacy arXiv 2405.06368).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dpacc.errors import ConfigurationError
from dpacc.layers.gradient_buffer import GradientBuffer, Slot
from dpacc.randomness.run_secret import RunSecret

_RANK_AXIS = {"lora_A": 0, "lora_B": 1}


class DynamicRank:
    """Which rows and columns learn in which step, and the others, put aside while they do not.

    Args:
        model: with its LoRA adapters, all of one rank.
        buffer: what its layers write their gradients to.
        seed: public; draws each step's rank uniformly from 1 to the adapters'.
        cut: whether the launch cuts parameters or the optimizer's state over the ranks.

    Raises:
        ConfigurationError: something else than both factors of LoRA is trained, or adapters are of
            several ranks; or what would be put aside is cut over the ranks.
    """

    def __init__(
        self, *, model: nn.Module, buffer: GradientBuffer, seed: int, cut: bool = False
    ) -> None:
        if cut:
            raise ConfigurationError(
                "a rank that changes from step to step (lora_method=dylora) needs whole adapters, "
                "and DeepSpeed cuts them: launch with launch_configs/ddp.yaml or fsdp2.yaml"
            )
        self._buffer = buffer
        self._draws = RunSecret.from_fixed_seed(seed)
        self._factors = [
            (buffer.layout.slots[id(p)], p, _rank_axis(name))
            for name, p in model.named_parameters()
            if p.requires_grad
        ]
        ranks = {p.shape[axis] for _, p, axis in self._factors}
        if len(ranks) != 1:
            raise ConfigurationError(
                f"adapters of ranks {sorted(ranks)} have no first rows in common; give all of "
                "them one rank"
            )
        (self.largest,) = ranks
        self._aside: list[tuple[Tensor, Tensor]] = []

    def rank(self, step: int) -> int:
        """r of a step, from 1 to the adapters' own."""
        words = self._draws.stream(purpose="rank", step=step).words(start=0, count=2)
        return 1 + int(words[0] % self.largest)

    @torch.no_grad()
    def begin(self, step: int) -> None:
        """Put aside what does not learn in this step; its forwards see zeros in its place."""
        self.end()
        rank = self.rank(step)
        learning: dict[Slot, Tensor] = {}
        for slot, parameter, axis in self._factors:
            rest = parameter.narrow(axis, rank, self.largest - rank)
            self._aside.append((rest, rest.clone()))
            rest.zero_()
            learning[slot] = _first(parameter, axis, rank)
        self._buffer.learning = learning

    @torch.no_grad()
    def end(self) -> None:
        """Put it back."""
        for rest, values in self._aside:
            rest.copy_(values)
        self._aside = []
        self._buffer.learning = {}

    def learns(self, step: int) -> Tensor:
        """[width], which columns of the flat sum learn in this step."""
        return self._columns(self.rank(step))

    def always(self) -> Tensor:
        """[width], which columns learn in every step: those of rank 1."""
        return self._columns(1)

    def _columns(self, rank: int) -> Tensor:
        parts = [_first(parameter, axis, rank).flatten() for _, parameter, axis in self._factors]
        return torch.cat(parts)


def dynamic_rank_of(
    model: nn.Module, buffer: GradientBuffer, *, seed: int | None, cut: bool
) -> DynamicRank | None:
    """Which elements learn in which step, by a public seed; None without one: all do in each.

    Raises:
        ConfigurationError: as [`DynamicRank`][dpacc.layers.dynamic_rank.DynamicRank] does.
    """
    return None if seed is None else DynamicRank(model=model, buffer=buffer, seed=seed, cut=cut)


@torch.no_grad()
def keep_first(*, model: nn.Module, rank: int) -> None:
    """Cut every LoRA adapter of a model to its first rows of A and columns of B; the rest is zero.

    Raises:
        ConfigurationError: there are no adapters, or none of so high a rank.
    """
    factors = [
        (p, _RANK_AXIS[part])
        for name, p in model.named_parameters()
        for part in name.split(".")
        if part in _RANK_AXIS
    ]
    largest = max((p.shape[axis] for p, axis in factors), default=0)
    if not 1 <= rank <= largest:
        raise ConfigurationError(
            f"rank={rank} must lie between 1 and that of the adapters, {largest}"
        )
    for parameter, axis in factors:
        kept = min(rank, parameter.shape[axis])
        parameter.narrow(axis, kept, parameter.shape[axis] - kept).zero_()


def _rank_axis(name: str) -> int:
    for part in name.split("."):
        if part in _RANK_AXIS:
            return _RANK_AXIS[part]
    raise ConfigurationError(
        f"{name} is trained and is neither the A nor the B of LoRA, so that it has no first rows; "
        "choose lora_method=lora"
    )


def _first(parameter: Tensor, axis: int, rank: int) -> Tensor:
    """[shape of the parameter], true for the first `rank` along an axis."""
    first = torch.zeros_like(parameter, dtype=torch.bool)
    first.narrow(axis, 0, rank).fill_(True)
    return first
