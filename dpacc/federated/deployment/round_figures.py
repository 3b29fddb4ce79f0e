"""What a deployed federation's server logs of each round, to the trackers that runs log to.

Logged are the dearest client's ε, which is paid for, and what was measured on the server's own
public examples. Nobody's name is, nor who took part, nor how long anything took.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from accelerate import Accelerator

from dpacc.federated.server.history import History
from dpacc.recipe.trackers import require_trackers, start_trackers

_LOG = logging.getLogger(__name__)


class RoundFigures:
    """Trackers of one federation, under its server's folder.

    Args:
        names: tensorboard, wandb or trackio; none logs nothing.
        folder: the server's.

    Raises:
        ConfigurationError: one is not installed, or would date rows elsewhere.
    """

    def __init__(self, *, names: Sequence[str], folder: Path) -> None:
        require_trackers(names=names)
        self._accelerator: Accelerator | None = None
        if names:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._accelerator = Accelerator(cpu=True)
            start_trackers(
                accelerator=self._accelerator,
                names=names,
                folder=folder,
                project="dpacc-federation",
                settings={},
            )

    def log(self, history: History, *, number: int) -> None:
        """One row for the round `number`, dated by it."""
        if self._accelerator is None:
            return
        try:
            self._accelerator.log(figures_of(history), step=number)
        except Exception:  # a service that is away must not cost the clients a round
            _LOG.exception("round %d was not logged to the trackers", number)

    def close(self) -> None:
        """Write what was logged."""
        if self._accelerator is not None:
            self._accelerator.end_training()


def figures_of(history: History) -> dict[str, float]:
    """ε of the dearest client with a flag for each note beside it, and each kind's quality.

    At example level ε is that against the server; at client level, where the server is trusted,
    that of the released models.
    """
    if not history.is_priced:
        return {}
    found = history.guarantee()
    at_client_level = found.level == "client"
    dearest = found.worst_released.released if at_client_level else found.worst_server.server
    quality = history.rounds[-1].quality if history.rounds else history.start_quality
    return dearest.figures() | {f"held_out/{kind}": value for kind, value in quality.items()}
