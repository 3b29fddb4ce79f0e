"""Rotary embeddings whose frequencies follow the longest row of a batch, and how to hold them.

`rope_type: dynamic` and `longrope` look at the largest position of a micro-batch: one long example
changes how its neighbours are computed, and `dynamic` keeps what it chose for later batches. Held,
they keep the frequencies that one length calls for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from dpacc.errors import ConfigurationError, PrivacyError

_HELD = "held"
_OF_A_WHOLE_BATCH = ("dynamic", "longrope", "su")


def hold_rotary_embeddings(model: nn.Module, *, longest: int | None = None) -> None:
    """Compute every example with the frequencies that a text of `longest` tokens would get.

    Models whose frequencies are constant already are left alone. Call it before `prepare`, and
    likewise wherever the trained adapters are used.

    Args:
        model: with rotary embeddings of transformers.
        longest: tokens, which must be public; by default those of a text that fits the model's
            original context.
    """
    for module, layer_type in _followers(model):
        if longest is not None:
            _set_frequencies(module, layer_type, longest)
        if layer_type is None:
            module.rope_type = _HELD
        else:
            module.rope_type = {**module.rope_type, layer_type: _HELD}


def refuse_rotary_embeddings_of_a_whole_batch(model: nn.Module) -> None:
    """Refuse a model whose rotary embeddings look at the longest row.

    Raises:
        PrivacyError: they do, and are not held.
    """
    names = {id(module): name for name, module in model.named_modules()}
    for module, layer_type in _followers(model):
        kind = module.rope_type if layer_type is None else module.rope_type[layer_type]
        raise PrivacyError(_complaint(names[id(module)], kind))
    if any(hasattr(module, "rope_type") for module in model.modules()):
        return
    for kind in _configured(getattr(model, "config", None)):
        if _follows(kind):
            raise PrivacyError(_complaint("the configuration", kind))


def _complaint(name: str, kind: str) -> str:
    return (
        f"{name} has rotary embeddings of type {kind}, whose frequencies follow the longest row of "
        "a micro-batch; call dpacc.step.admission.rotary.hold_rotary_embeddings(model) before "
        "prepare(), which keeps those of texts within the original context, or of longest= tokens"
    )


def _follows(kind: Any) -> bool:
    return isinstance(kind, str) and any(each in kind for each in _OF_A_WHOLE_BATCH)


def _followers(model: nn.Module) -> Iterator[tuple[Any, str | None]]:
    """Every rotary module that looks at a whole batch, and for which of its layer types."""
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        if isinstance(kinds, Mapping):
            yield from ((module, layer) for layer, kind in kinds.items() if _follows(kind))
        elif _follows(kinds):
            yield module, None


def _configured(config: Any) -> Iterator[Any]:
    """The kinds of scaling that a configuration names, also in parts of it, for code of others."""
    for name in ("rope_parameters", "rope_scaling"):
        settings = getattr(config, name, None)
        if isinstance(settings, Mapping):
            for part in (settings, *settings.values()):
                if isinstance(part, Mapping):
                    yield part.get("rope_type", part.get("type"))
    for part in vars(config).values() if config is not None else ():
        if hasattr(part, "to_dict") and hasattr(part, "model_type"):
            yield from _configured(part)


def _set_frequencies(module: Any, layer_type: str | None, longest: int) -> None:
    if longest < 1:
        raise ConfigurationError(f"longest={longest} must be at least 1 token")
    kind = module.rope_type if layer_type is None else module.rope_type[layer_type]
    prefix = "" if layer_type is None else f"{layer_type}_"
    buffer = getattr(module, f"{prefix}inv_freq")
    of_layer = {} if layer_type is None else {"layer_type": layer_type}
    frequencies, scaling = ROPE_INIT_FUNCTIONS[kind](
        module.config, buffer.device, seq_len=longest, **of_layer
    )
    with torch.no_grad():
        buffer.copy_(frequencies)
    setattr(module, f"{prefix}attention_scaling", scaling)
