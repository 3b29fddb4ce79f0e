"""Log a run's private figures to TensorBoard, Weights & Biases or trackio, through Accelerate.

Logged are ε, the learning rate and held-out quality: what is public or already paid for. What is
computed from private data without noise stays out, unless the ledger says that it was logged; so
does the machine's load, for memory grows with the private batch. What is logged is dated by its
step, for how long a step takes follows the private batch too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import filter_trackers
from accelerate.utils import is_tensorboard_available, is_trackio_available, is_wandb_available
from torch import Tensor

from dpacc.errors import ConfigurationError
from dpacc.recipe.public_times import (
    TRACKIO_QUIET,
    WANDB_QUIET,
    date_trackers,
    refuse_remote_trackio,
)

_AVAILABLE = {
    "tensorboard": is_tensorboard_available,
    "wandb": is_wandb_available,
    "trackio": is_trackio_available,
}


def require_trackers(*, names: Sequence[str]) -> None:
    """Refuse, before anything is read, what is not installed or dates rows elsewhere.

    Raises:
        ConfigurationError: with the package to install, or the setting to leave out.

    >>> require_trackers(names=[])
    """
    for name in names:
        if not _AVAILABLE[name]():
            raise ConfigurationError(
                f"trackers={name} is not installed: pip install {name}, or leave it out"
            )
    if "trackio" in names:
        refuse_remote_trackio()


def start_trackers(
    *,
    accelerator: Accelerator,
    names: Sequence[str],
    folder: Path,
    project: str,
    settings: Mapping[str, Any],
) -> None:
    """Begin logging, under the run's folder where a tracker keeps files of its own.

    Args:
        accelerator: of this launch; afterwards `accelerator.log` reaches the trackers.
        names: which of them.
        folder: the run's.
        project: what the runs have in common.
        settings: what to show of how the run was told; nothing that names private data.

    Raises:
        ConfigurationError: a tracker is not installed.
    """
    require_trackers(names=names)
    if not names:
        return
    accelerator.project_configuration.set_directories(str(folder))
    accelerator.log_with = filter_trackers([*names], str(folder))
    accelerator.init_trackers(
        project,
        config={name: _plain(value) for name, value in settings.items()},
        init_kwargs=_in_the_folder_without_load(folder, names),
    )
    date_trackers(accelerator)


def _in_the_folder_without_load(folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What trackers are begun with, so that they keep the run's folder and watch no machine."""
    if "trackio" in names:
        # Read when trackio is first imported; a folder that the user chose stays.
        os.environ.setdefault("TRACKIO_DIR", str(folder / "trackio"))
    begun_with: dict[str, dict[str, Any]] = {
        "wandb": {
            "dir": str(folder),
            "name": folder.name,
            "save_code": False,
            "settings": WANDB_QUIET,
        },
        "trackio": {"name": folder.name} | TRACKIO_QUIET,
    }
    return {name: given for name, given in begun_with.items() if name in names}


class NonPrivateLoss:
    """The mean training loss of one logical step, which nothing protects.

    For runs that say so in their ledger; every rank must ask for `mean` in every step.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._seen = torch.zeros(2, device=accelerator.device)

    def add(self, losses: Tensor) -> None:
        """Take in one micro-batch's losses, [examples]."""
        self._seen += torch.stack([losses.detach().sum(), losses.new_tensor(float(len(losses)))])

    def mean(self) -> float:
        """Over all ranks since it was last asked for; NaN where nobody was drawn."""
        total, count = self._accelerator.reduce(self._seen, reduction="sum").tolist()
        self._seen = torch.zeros_like(self._seen)
        return total / count if count else float("nan")


def _plain(value: Any) -> int | float | str | bool:
    return value if isinstance(value, int | float | str | bool) else str(value)
