"""The model of a federation's server: the base with the adapter that all share, as it begins."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn
from transformers import PreTrainedTokenizerBase

from dpacc.federated.settings import LoraSettings, Task
from dpacc.federated.updates.layout import layout_hash
from dpacc.recipe.models import add_lora, load_base


class SharedModel(NamedTuple):
    """What server and clients begin with.

    Args:
        model: base and adapter.
        tokenizer: the base's.
        layout: what clients compare theirs with, taken before any rule corrects the base.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    layout: str


def shared_model(*, name: str, lora: LoraSettings, task: Task) -> SharedModel:
    """Load the base and put the adapter on it.

    Args:
        name: folder or hub id of the base.
        lora: the adapter.
        task: what is learned, and its labels.
    """
    base = load_base(model=name, task=task.kind, labels=task.labels, seed=lora.seed)
    model = add_lora(
        model=base.model,
        method=lora.method,
        rank=lora.rank,
        alpha=lora.alpha,
        target_modules=lora.target_modules,
        seed=lora.seed,
        top_layers=lora.top_layers,
    )
    layout = layout_hash(model, tokenizer=base.tokenizer)
    return SharedModel(model, base.tokenizer, layout)
