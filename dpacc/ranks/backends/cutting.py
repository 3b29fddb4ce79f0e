"""Which bases may be cut over ranks, and what their forward says when a rank is lost."""

from __future__ import annotations

from typing import Any

from torch import nn

from dpacc.errors import ConfigurationError
from dpacc.ranks.collectives import telling_of_lost_ranks


def tell_of_lost_ranks(model: nn.Module) -> None:
    """Let a forward of `model`, which gathers it, say so when a rank is gone.

    By its class: hooks of the model itself gather too, and no other hook sees them fail.
    """
    kind = type(model)

    def call(self: nn.Module, *inputs: Any, **named: Any) -> Any:
        with telling_of_lost_ranks():
            return kind.__call__(self, *inputs, **named)

    model.__class__ = type(kind.__name__, (kind,), {"__call__": call})


def refuse_bases_that_cannot_be_cut(model: nn.Module) -> None:
    """Refuse int8 weights: bitsandbytes keeps their scales beside them, where no shard would be.

    Raises:
        ConfigurationError: the base has one.
    """
    for name, module in model.named_modules():
        if type(module).__name__ == "Linear8bitLt":
            raise ConfigurationError(
                f"{name} holds an int8 weight, which cannot be cut over ranks; use "
                "quantization=nf4, or launch with launch_configs/ddp.yaml"
            )
