"""How many tokens a model has places for: beyond them, its forward pass ends in an error."""

from __future__ import annotations

import re

from torch import nn

from dpacc.errors import ConfigurationError

# Embeddings of absolute positions, by what families call them.
_ABSOLUTE = re.compile(r"(^|\.)(wpe|(embed_)?positions?|(embed_)?positions?_embeddings?)$")


def most_tokens(model: nn.Module) -> int | None:
    """The most tokens that fit a model's table of positions; None where it has no table.

    RoBERTa's begins behind the index that pads, OPT's at its third row.

    >>> from transformers import GPT2Config, GPT2LMHeadModel
    >>> config = GPT2Config(vocab_size=9, n_positions=20, n_embd=4, n_layer=1, n_head=1)
    >>> most_tokens(GPT2LMHeadModel(config))
    20
    """
    named = [m for name, m in model.named_modules() if _ABSOLUTE.search(name)]
    rows = [_rows(module) for module in named if isinstance(module, nn.Embedding)]
    # GPT-J's is computed, not learned.
    rows += [len(b) for name, b in model.named_buffers() if name.endswith("embed_positions")]
    return min(rows, default=None)


def require_positions(*, model: nn.Module, max_length: int) -> None:
    """Refuse examples that may be longer than the model can read.

    Raises:
        ConfigurationError: with the length to set.
    """
    most = most_tokens(model)
    if most is not None and max_length > most:
        raise ConfigurationError(
            f"max_length={max_length} is more than the {most} positions of this model: set "
            f"--max_length {most} or less"
        )


def _rows(table: nn.Embedding) -> int:
    unused = 0 if table.padding_idx is None else table.padding_idx + 1
    return table.num_embeddings - max(unused, int(getattr(table, "offset", 0)))
