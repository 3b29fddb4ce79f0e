"""A program that is started again where its ledger goes on and its model does not."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from dpacc.errors import ConfigurationError


def refuse_fresh_start(
    *, charged: int, ledger: Path, model: nn.Module, resumed: bool, checkpoints: bool
) -> None:
    """Refuse to spend what is left of a budget on a model that has forgotten what was learned.

    Args:
        charged: steps that the ledger held before this program's first.
        ledger: its file.
        model: the model that would be trained.
        resumed: whether the engine went back to its last checkpoint.
        checkpoints: whether there is a folder of them.

    Raises:
        ConfigurationError: the ledger goes on and the model begins anew.
    """
    if charged == 0 or resumed or not (checkpoints or is_fresh(model)):
        return
    remedy = (
        "call engine.resume() after make_private"
        if checkpoints
        else "load the adapter that they trained, with is_trainable=True, and next time give the "
        "engine checkpoints="
    )
    raise ConfigurationError(
        f"{ledger} holds {charged} steps of a run that was begun, and this model knows nothing of "
        f"them: {remedy}, or give this run a ledger of its own, whose budget adds to that one's"
    )


def is_fresh(model: nn.Module) -> bool:
    """Whether a model has LoRA adapters, none of which has learned anything yet.

    >>> is_fresh(nn.Linear(2, 2))
    False
    """
    upper = [p for name, p in model.named_parameters() if "lora_B" in name]
    return bool(upper) and not any(bool(p.any()) for p in upper)
