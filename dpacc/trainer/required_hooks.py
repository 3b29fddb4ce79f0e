"""What a private Trainer stands on in the library's own, and whether it is really there.

A method that is overridden and never called would leave the library's own training in its place,
or none at all: both are refused rather than found out from an adapter.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from dpacc_accounting import LedgerRecord, read_ledger
from torch import nn

from dpacc.errors import ConfigurationError, PrivacyError
from dpacc.plan import PrivacyPlan

STANDS_FOR = (
    *("get_train_dataloader", "get_batch_samples", "training_step", "create_model_card"),
    *("floating_point_ops", "log", "save_model", "_init_training_state", "_prepare_for_training"),
    *("_clip_grad_norm", "_get_grad_norm", "_save_optimizer_and_scheduler"),
    *("_push_from_checkpoint", "_load_from_checkpoint", "_finalize_training"),
)
"""Methods of the library's Trainer in whose place the private step stands."""

LOWEST_TRANSFORMERS = "5.3"

_log = logging.getLogger("dpacc")


def require_overridden(trainer: type, private: type, hooks: Sequence[str] = STANDS_FOR) -> None:
    """Refuse a library whose training loop does not have what the private one overrides.

    Args:
        trainer: the class that is made, the library's among its parents.
        private: the class whose methods stand in the place of the library's.
        hooks: the names of those methods.

    Raises:
        ConfigurationError: one of them overrides nothing.
    """
    parents = trainer.__mro__[trainer.__mro__.index(private) + 1 :]
    for name in hooks:
        if not any(name in vars(parent) for parent in parents):
            import transformers

            raise ConfigurationError(
                f"transformers {transformers.__version__} has no Trainer.{name}, in whose place "
                "the private step stands, so it would not be private, or not train at all; "
                f"install transformers>={LOWEST_TRANSFORMERS}"
            )


def require_all_charged(
    *, charged: int, taken: int, ledger: Path | None, plan: PrivacyPlan
) -> None:
    """Refuse a training that ended with other books than the steps it says it took.

    Args:
        charged: steps that the engine charged, those of earlier processes included.
        taken: steps that the Trainer counts.
        ledger: its file, on the process that writes it.
        plan: says which steps a resume passes over.

    Raises:
        PrivacyError: the numbers differ, or there is no step at all.
    """
    written = charged if ledger is None else _steps_over(read_ledger(path=ledger), plan, charged)
    if not charged == taken == written or taken == 0:
        raise PrivacyError(
            f"the Trainer counts {taken} steps, the engine {charged} and the ledger {written}: "
            "something else than the private step trained, or nothing did; do not use this "
            "model, and leave the Trainer's own loop as the library has it"
        )


def _steps_over(record: LedgerRecord, plan: PrivacyPlan, charged: int) -> int:
    """`charged`, if the ledger holds these steps but for those that a resume passed over."""
    over = 0
    for release in record.releases:
        if release.step not in (over, plan.next_start(steps_charged=over)):
            return len(record.releases)
        over = release.step + 1
    return charged if charged in (over, plan.next_start(steps_charged=over)) else over


def hold_in_full_precision(model: nn.Module) -> int:
    """Keep trainable parameters in fp32, where a noised update is not lost in rounding.

    TRL makes the adapters of a quantized base bf16. The arithmetic still runs in the base's dtype.

    Returns:
        How many were cast.
    """
    short = [p for p in model.parameters() if p.requires_grad and p.dtype != torch.float32]
    for parameter in short:
        parameter.data = parameter.data.float()
    if short:
        _log.warning(
            "%d trainable tensors were held in 16 bits and are held in float32 now; the arithmetic "
            "still runs in the base's precision",
            len(short),
        )
    return len(short)
