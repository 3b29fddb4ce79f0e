"""How a sentence encoder makes one vector of a text: the mean of its tokens, where it says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import cached_file

_SAID_IN = "1_Pooling/config.json"


class MeanPooling(nn.Module):
    """The mean over a text's own tokens, Σₜ mₜhₜ / Σₜ mₜ with m the attention mask.

    It stands where a BERT's pooler does, which is given no mask, so it sees the one that the body
    is called with.

    Args:
        body: the encoder whose pooler it becomes.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self._mask: Tensor | None = None
        body.register_forward_pre_hook(self._see, with_kwargs=True)

    def forward(self, states: Tensor) -> Tensor:
        """One vector a text, [examples, hidden], from states [examples, tokens, hidden]."""
        mask = torch.ones(states.shape[:2]) if self._mask is None else self._mask
        weights = mask.to(states)[..., None]
        return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)

    def _see(self, _: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._mask = named.get("attention_mask", arguments[1] if len(arguments) > 1 else None)


def takes_mean(model: PreTrainedModel) -> bool:
    """Whether a classifier reads the mean of its text's tokens."""
    return isinstance(getattr(model.base_model, "pooler", None), MeanPooling)


def say_mean(folder: Path) -> None:
    """Let a model's folder say that its texts are the mean of their tokens."""
    path = folder / _SAID_IN
    path.parent.mkdir()
    path.write_text(json.dumps({"pooling_mode_mean_tokens": True}), encoding="utf-8")


def pools_by_mean(source: str) -> bool:
    """Whether a model's folder, or hub id, says that its texts are the mean of their tokens.

    Sentence encoders say so in `1_Pooling/config.json`; their pooler for the first token, if they
    have one, was never trained for this.
    """
    path = cached_file(
        source,
        _SAID_IN,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if path is None:
        return False
    said = json.loads(Path(path).read_text(encoding="utf-8"))
    return said.get("pooling_mode_mean_tokens") is True


def pool_by_mean(model: PreTrainedModel) -> None:
    """Let a classifier read the mean of its tokens; one that has no pooler stays as it is."""
    body = model.base_model
    if getattr(body, "pooler", None) is not None:
        body.pooler = MeanPooling(body)
