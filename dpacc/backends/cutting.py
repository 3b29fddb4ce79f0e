"""Which bases may be cut over ranks."""

from __future__ import annotations

from torch import nn

from dpacc.errors import ConfigurationError


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
