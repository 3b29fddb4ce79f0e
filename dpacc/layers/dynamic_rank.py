"""One adapter for every rank: each step trains the first rows of A and columns of B alone.

How many is drawn for each step from a public seed, so that it tells nothing of the data. What is
not among them is zero in the forward, has no gradient, weighs nothing in a norm and gets no noise,
and comes back for the update. Whoever cuts the adapter to its first r rows and columns then has one
that was trained at rank r, too (DyLoRA, arXiv 2210.07558; under privacy arXiv 2405.06368).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpacc.errors import ConfigurationError
from dpacc.layers.gradient_buffer import GradientBuffer, Slot
from dpacc.randomness.run_secret import RunSecret

_RANK_AXIS = {"lora_A": 0, "lora_B": 1}

RankOf = Callable[[int], int]
"""The rank of a step, by its number."""


@dataclass(frozen=True, kw_only=True)
class DrawnRanks:
    """Ranks that are uniform from 1 to the largest; whoever knows the seed knows them all.

    Args:
        seed: public.
        largest: the adapters' own.

    >>> [DrawnRanks(seed=4, largest=8).of(number) for number in range(6)]
    [6, 4, 1, 3, 7, 2]
    """

    seed: int
    largest: int

    def of(self, number: int) -> int:
        """r of a step, or of a round."""
        draws = RunSecret.from_fixed_seed(self.seed)
        words = draws.stream(purpose="rank", step=number).words(start=0, count=2)
        return 1 + int(words[0] % self.largest)


class DynamicRank:
    """Which rows and columns learn in which step, and the others, put aside while they do not.

    Args:
        model: with its LoRA adapters, all of one rank; what else is trained, as a head is, learns
            in every step.
        buffer: what its layers write their gradients to.
        ranks: public; each step's rank, or a seed that draws it uniformly from 1 to the adapters'.
        cut: whether the launch cuts parameters or the optimizer's state over the ranks.

    Raises:
        ConfigurationError: there is no LoRA adapter, one of another kind, or several ranks; or what
            would be put aside is cut over the ranks.
    """

    def __init__(
        self, *, model: nn.Module, buffer: GradientBuffer, ranks: int | RankOf, cut: bool = False
    ) -> None:
        if cut:
            raise ConfigurationError(
                "a rank that changes from step to step (lora_method=dylora) needs whole adapters, "
                "and DeepSpeed cuts them: launch with launch_configs/ddp.yaml or fsdp2.yaml"
            )
        self._buffer = buffer
        self._trained = [
            (p, rank_axis(name)) for name, p in model.named_parameters() if p.requires_grad
        ]
        self._factors = [(p, axis) for p, axis in self._trained if axis is not None]
        found = {p.shape[axis] for p, axis in self._factors}
        if len(found) != 1:
            raise ConfigurationError(
                f"adapters of ranks {sorted(found)} have no first rows in common; give all of "
                "them one rank"
            )
        (self.largest,) = found
        self._slots = {id(p): buffer.layout.slots[id(p)] for p, _ in self._factors}
        self._rank_of = (
            DrawnRanks(seed=ranks, largest=self.largest).of if isinstance(ranks, int) else ranks
        )
        self._aside: list[tuple[Tensor, Tensor]] = []

    def rank(self, step: int) -> int:
        """r of a step, from 1 to the adapters' own."""
        rank = self._rank_of(step)
        if not 1 <= rank <= self.largest:
            raise ConfigurationError(
                f"rank={rank} of step {step} must lie between 1 and that of the adapters, "
                f"{self.largest}"
            )
        return rank

    @torch.no_grad()
    def begin(self, step: int) -> None:
        """Put aside what does not learn in this step; its forwards see zeros in its place."""
        self.end()
        rank = self.rank(step)
        learning: dict[Slot, Tensor] = {}
        for parameter, axis in self._factors:
            rest = parameter.narrow(axis, rank, self.largest - rank)
            self._aside.append((rest, rest.clone()))
            rest.zero_()
            learning[self._slots[id(parameter)]] = _first(parameter, axis, rank)
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
        return torch.cat([_first(p, axis, rank).flatten() for p, axis in self._trained])


def dynamic_rank_of(
    model: nn.Module, buffer: GradientBuffer, *, ranks: int | RankOf | None, cut: bool
) -> DynamicRank | None:
    """Which elements learn in which step, by public ranks; None without them: all do in each.

    Raises:
        ConfigurationError: as [`DynamicRank`][dpacc.layers.dynamic_rank.DynamicRank] does.
    """
    return None if ranks is None else DynamicRank(model=model, buffer=buffer, ranks=ranks, cut=cut)


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


def rank_axis(name: str) -> int | None:
    """Along which axis a trained parameter has its rank; None for what is no adapter.

    Raises:
        ConfigurationError: it is an adapter's, and neither the A nor the B of a linear layer.

    >>> rank_axis("q_proj.lora_B.default.weight"), rank_axis("score.weight")
    (1, None)
    """
    for part in name.split("."):
        if part in _RANK_AXIS:
            return _RANK_AXIS[part]
        if part.startswith("lora_"):
            raise ConfigurationError(
                f"{name} is trained and is neither the A nor the B of LoRA, so that it has no "
                "first rows; choose lora_method=lora"
            )
    return None


def _first(parameter: Tensor, axis: int | None, rank: int) -> Tensor:
    """[shape of the parameter], true for the first `rank` along an axis; without one, for all."""
    if axis is None:
        return torch.ones_like(parameter, dtype=torch.bool)
    first = torch.zeros_like(parameter, dtype=torch.bool)
    first.narrow(axis, 0, rank).fill_(True)
    return first
