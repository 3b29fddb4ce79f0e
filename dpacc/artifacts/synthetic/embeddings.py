"""Where texts lie: the mean of a pretrained encoder's last hidden states over a text's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from transformers import AutoModel

from dpacc.artifacts.synthetic.divergence import Vectors
from dpacc.recipe.evaluation import evaluating
from dpacc.recipe.pretrained import load_tokenizer, locate, quiet_loading, unreadable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TEXTS_AT_ONCE = 32


class Encoder(NamedTuple):
    """A pretrained transformer without its head, and its tokenizer."""

    model: Any
    tokenizer: PreTrainedTokenizerBase


def load_encoder(*, model: str, device: torch.device | None = None) -> Encoder:
    """Load an encoder, or a language model without its head, in float32.

    Args:
        model: folder, or id on the hub.
        device: where it computes.

    Raises:
        ConfigurationError: the folder or id cannot be read.
    """
    source, tokenizer = locate(model), load_tokenizer(model=model)
    try:
        with quiet_loading():
            found = AutoModel.from_pretrained(source, dtype=torch.float32, trust_remote_code=False)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a damaged file raises whatever its parser raises
        raise unreadable(model, error) from error
    return Encoder(found.to(device), tokenizer)


def embed(*, encoder: Encoder, texts: Sequence[str], max_length: int = 512) -> Vectors:
    """[n, d], the mean over each text's tokens of the last hidden states.

    Args:
        encoder: what [`load_encoder`][dpacc.artifacts.synthetic.embeddings.load_encoder] returns.
        texts: of any length; one without a token is read as the tokenizer's padding.
        max_length: tokens of each that are read, if the encoder has positions for them.
    """
    model, tokenizer = encoder
    positions = getattr(model.config, "max_position_embeddings", max_length)
    longest = min(max_length, tokenizer.model_max_length, positions)
    found = np.zeros((len(texts), model.config.hidden_size))
    # Texts of one length together, so that little is padding.
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    with evaluating(model):
        for start in range(0, len(order), _TEXTS_AT_ONCE):
            places = order[start : start + _TEXTS_AT_ONCE]
            batch = tokenizer(
                [texts[at] or tokenizer.pad_token for at in places],
                truncation=True,
                max_length=longest,
                padding=True,
                padding_side="right",
                return_tensors="pt",
            ).to(model.device)
            states = model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            ).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            means = (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
            found[places] = means.double().cpu().numpy()
    return found
