"""Clients of different ranks under one shared adapter, whose average stays exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.factors import factors_of
from dpacc.federated.updates.layout import Arrays
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.models import add_lora

_UPPER = ".lora_B."


@dataclass(frozen=True, kw_only=True)
class NestedRanks:
    """How a client's B, [outputs, rank], lies in the shared one, [outputs, shared].

    Padded with zeros, B·A is the same whether A has all its rows or the first `rank`; so the mean
    of the padded B's, times A, is the mean of the clients' own products.

    >>> ranks = NestedRanks(rank=1, shared=2)
    >>> ranks.widen({"q.lora_B.default.weight": np.float32([[3.0]])})
    {'q.lora_B.default.weight': array([[3., 0.]], dtype=float32)}
    """

    rank: int
    shared: int

    def narrow(self, arrays: Mapping[str, npt.NDArray[np.float32]]) -> Arrays:
        """The client's columns of every B; all else as it is."""
        return {
            name: np.ascontiguousarray(values[:, : self.rank]) if _UPPER in name else values
            for name, values in arrays.items()
        }

    def widen(self, arrays: Mapping[str, npt.NDArray[np.float32]]) -> Arrays:
        """Every B padded with zero columns to the shared rank."""
        missing = self.shared - self.rank
        return {
            name: np.pad(values, ((0, 0), (0, missing))) if _UPPER in name else values
            for name, values in arrays.items()
        }


def rank_of(arrays: Mapping[str, npt.NDArray[np.float32]]) -> int:
    """r, by the columns of the first B.

    >>> rank_of({"q.lora_B.default.weight": np.zeros((4, 2), np.float32)})
    2
    """
    return next((values.shape[1] for name, values in arrays.items() if _UPPER in name), 1)


def adapted_model(config: TrainingConfig, base: Any) -> nn.Module:
    """The shared adapter on a base, as server and clients all make it."""
    return cast(nn.Module, _adapter(config, base, rank=config.lora_rank, alpha=config.lora_alpha))


def nested_model(shared: nn.Module, *, config: TrainingConfig, rank: int) -> nn.Module:
    """The same base with an adapter of the first `rank` rows of the shared A, at the same scale.

    Raises:
        ConfigurationError: A is trained, so that it is not shared, or `rank` is out of range.
    """
    if config.lora_method != "ffa" or not 1 <= rank < config.lora_rank:
        raise ConfigurationError(
            f"rank={rank} with the shared rank {config.lora_rank} and method={config.lora_method}: "
            "a client's own rank must lie from 1 to the shared one, and needs method='ffa', "
            "which keeps A the same for all"
        )
    parameters = dict(shared.named_parameters())
    rows = {layer.lower: parameters[layer.lower][:rank].clone() for layer in factors_of(shared)}
    heads = {n: p.detach().clone() for n, p in parameters.items() if p.requires_grad}
    alpha = config.lora_alpha * rank / config.lora_rank
    nested = cast(nn.Module, _adapter(config, cast(Any, shared).unload(), rank=rank, alpha=alpha))
    with torch.no_grad():
        for name, parameter in nested.named_parameters():
            if name in rows:
                parameter.copy_(rows[name])
            elif parameter.requires_grad and parameter.shape == heads[name].shape:
                parameter.copy_(heads[name])
    return nested


def _adapter(config: TrainingConfig, base: Any, *, rank: int, alpha: float) -> Any:
    return add_lora(
        model=base,
        method=config.lora_method,
        rank=rank,
        alpha=alpha,
        target_modules=config.lora_target_modules,
        seed=config.seed,
        top_layers=config.lora_top_layers,
    )
