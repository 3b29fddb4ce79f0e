"""A client's model with the shared adapter on it: all that is known before its data are read."""

from __future__ import annotations

import torch

from dpacc.federated.aggregation.factors import Factors, factors_of, no_corrections
from dpacc.federated.ranks.mixed_ranks import NestedRanks, adapted_model, nested_model
from dpacc.federated.ranks.rank_choice import PublicRank
from dpacc.federated.updates.compression import Compression
from dpacc.federated.updates.layout import Arrays, layout_hash, trainable_arrays
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.models import Base


class LocalAdapter:
    """One client's adapter, at its own rank; nothing of it depends on a record.

    Args:
        config: the adapter's settings.
        base: what it is put on; changed in place.
        rank: this client's own r_i, if it is below the shared adapter's, or what it must fit.
        compression: of what is sent, by which a rank may be chosen.

    Attributes:
        base: with its tokenizer.
        model: base and adapter.
        layout: the hash of the shared layout.
        ranks: how the client's rank lies in the shared one.
        shared: the adapter as it begins, at the shared rank.
    """

    def __init__(
        self,
        *,
        config: TrainingConfig,
        base: Base,
        rank: int | PublicRank | None,
        compression: Compression | None,
    ) -> None:
        self.base = base
        shared = adapted_model(config, base.model)
        self.layout = layout_hash(shared, tokenizer=base.tokenizer)
        if isinstance(rank, PublicRank):
            rank = _fitted(rank, shared, config, compression)
        if rank is None or rank == config.lora_rank:
            rank, self.model = config.lora_rank, shared
        else:
            self.model = nested_model(shared, config=config, rank=rank)
        self.ranks = NestedRanks(rank=rank, shared=config.lora_rank)
        self.shared: Arrays = self.ranks.widen(trainable_arrays(self.model))

    @property
    def factors(self) -> tuple[Factors, ...]:
        """The adapted layers."""
        return factors_of(self.model)

    def corrections(self) -> Arrays:
        """What the server may add to the base's weights: nothing yet."""
        return no_corrections(self.model)


def _fitted(
    rank: PublicRank,
    shared: torch.nn.Module,
    config: TrainingConfig,
    compression: Compression | None,
) -> int:
    outputs = sum(layer.outputs for layer in factors_of(shared))
    trained = sum(p.numel() for p in shared.parameters() if p.requires_grad)
    return rank.largest(
        shared=config.lora_rank,
        outputs=outputs,
        others=trained - config.lora_rank * outputs,
        compression=compression,
    )
