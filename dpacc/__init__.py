"""Differentially private LoRA fine-tuning of language models, launched with Accelerate.

Names are loaded on first use, so that planning noise never waits for torch.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpacc.loops.drop_in import PrivacyEngine as PrivacyEngine
    from dpacc.losses.per_example import causal_lm_losses as causal_lm_losses
    from dpacc.plan import PrivacyPlan as PrivacyPlan
    from dpacc.trainer.preference_trainer import (
        PrivatePreferenceTrainer as PrivatePreferenceTrainer,
    )
    from dpacc.trainer.privacy_arguments import PrivacyArguments as PrivacyArguments
    from dpacc.trainer.private_trainer import PrivateTrainer as PrivateTrainer

__version__ = "0.1.0"

_HOMES = {
    "PrivacyPlan": "dpacc.plan",
    "PrivacyEngine": "dpacc.loops.drop_in",
    "PrivacyArguments": "dpacc.trainer.privacy_arguments",
    "PrivatePreferenceTrainer": "dpacc.trainer.preference_trainer",
    "PrivateTrainer": "dpacc.trainer.private_trainer",
    "causal_lm_losses": "dpacc.losses.per_example",
}

__all__ = [
    "PrivacyArguments",
    "PrivacyEngine",
    "PrivacyPlan",
    "PrivatePreferenceTrainer",
    "PrivateTrainer",
    "causal_lm_losses",
]


def on_first_use(
    package: Mapping[str, Any], homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__`, whose names are loaded when they are asked for.

    Args:
        package: its `globals()`.
        homes: the module that defines each name.
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package['__name__']!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return load, lambda: sorted([*package, *homes])


__getattr__, __dir__ = on_first_use(globals(), _HOMES)
