"""Where a Trainer may report to: trackers that let rows be dated by their steps.

How long a step takes follows how many examples it drew, so a tracker that stamps its rows itself
tells that. Losses that are logged without noise tell as much, and the statement says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from dpacc.errors import ConfigurationError

DATED_BY_STEP = ("tensorboard", "wandb", "trackio")
"""Those whose rows are: see `dpacc.recipe.public_times`."""

_MEASURES_THE_MACHINE = "codecarbon"
_ELSEWHERE = {"kubeflow": "set DISABLE_KUBEFLOW_INTEGRATION=TRUE"}


def refuse_trackers(
    *, report_to: Sequence[str], callbacks: Iterable[Any], log_non_private_metrics: bool
) -> None:
    """Refuse trackers that would tell what a step drew.

    Args:
        report_to: transformers' option.
        callbacks: all of the trainer's, or their classes.
        log_non_private_metrics: whether losses are logged too, which the ledger says.

    Raises:
        ConfigurationError: there is one, with what to do instead.
    """
    for name in [*report_to, *filter(None, map(_tracker_of, callbacks))]:
        if name == _MEASURES_THE_MACHINE:
            raise ConfigurationError(
                f"report_to={name!r} measures energy, which follows how many examples were drawn; "
                "leave it out"
            )
        if name in DATED_BY_STEP or log_non_private_metrics:
            continue
        instead = _ELSEWHERE.get(name, f"report to {', '.join(DATED_BY_STEP)} instead")
        raise ConfigurationError(
            f"report_to={name!r} dates its rows by when a step ended, and so by how many examples "
            f"it drew; {instead}, or set PrivacyArguments(log_non_private_metrics=True), which the "
            "statement then says"
        )


def _tracker_of(callback: Any) -> str | None:
    """The name under which transformers knows a callback that reports, or its class."""
    kind = callback if isinstance(callback, type) else type(callback)
    names = {known: name for name, known in INTEGRATION_TO_CALLBACK.items()}
    return next((names[parent] for parent in kind.__mro__ if parent in names), None)
