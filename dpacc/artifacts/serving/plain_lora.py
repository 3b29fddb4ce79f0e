"""Which adapters other programs read: plain LoRA, W + s·B·A on linear layers, and nothing more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Starts that leave the base's weights as they are, so that A and B alone are the update.
_KEEP_THE_BASE = (True, False, "gaussian", "orthogonal", "eva", "lora_ga")
_MORE_THAN_LORA: Mapping[str, str] = {
    "modules_to_save": "it holds whole modules that were trained beside it",
    "use_dora": "DoRA scales each row by a norm of the merged weights",
    "lora_bias": "its factors have biases",
    "layer_replication": "it repeats layers of the base",
    "alora_invocation_tokens": "it is switched on by tokens",
    "trainable_token_indices": "it holds embeddings of some tokens",
    "target_parameters": "it adapts parameters that are no linear layers",
    **dict.fromkeys(
        ("kasa_config", "velora_config", "monteclora_config", "arrow_config"),
        "it computes more than B·A",
    ),
    "use_qalora": "it averages inputs in groups",
    "use_bdlora": "its factors are cut into blocks",
}


def not_plain(told: Mapping[str, Any]) -> list[str]:
    """Why an adapter is no plain LoRA, in words; nothing where it is.

    Args:
        told: its `adapter_config.json`.

    >>> not_plain({"peft_type": "LORA", "r": 8, "init_lora_weights": True, "use_dora": True})
    ['DoRA scales each row by a norm of the merged weights']
    """
    reasons = [why for name, why in _MORE_THAN_LORA.items() if told.get(name)]
    if told.get("peft_type") != "LORA":
        reasons.insert(0, f"it is of the kind {told.get('peft_type')}")
    if told.get("bias", "none") != "none":
        reasons.append("biases of the base were trained")
    start = told.get("init_lora_weights", True)
    if start not in _KEEP_THE_BASE:
        reasons.append(f"its start, {start}, changed the base's weights")
    return reasons
