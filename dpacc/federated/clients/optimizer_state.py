"""AdamW's moments between rounds, on the client's own disk: a new process goes on with them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load, save

from dpacc.artifacts.run_folder import write_file
from dpacc.errors import ConfigurationError

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class OptimizerMemory:
    """What AdamW made of noised gradients so far; it follows from releases, and never leaves.

    Args:
        optimizer: an AdamW with one group of parameters.
        path: where its state is kept, which appears whole or not at all.
    """

    def __init__(self, optimizer: torch.optim.AdamW, path: Path) -> None:
        self._optimizer = optimizer
        self._parameters = optimizer.param_groups[0]["params"]
        self._path = path

    def keep(self) -> None:
        """Write the state."""
        kept = {
            f"{place}.{name}": self._optimizer.state[parameter][name].detach().cpu().contiguous()
            for place, parameter in enumerate(self._parameters)
            for name in _MOMENTS
            if parameter in self._optimizer.state
        }
        write_file(path=self._path, content=save(kept))

    def restore(self) -> None:
        """Take up the state that was kept, if there is one.

        Raises:
            ConfigurationError: it is another adapter's.
        """
        if not self._path.exists():
            return
        # Not mapped from the file, which the next round replaces: Windows would refuse.
        kept = load(self._path.read_bytes())
        for place, parameter in enumerate(self._parameters):
            moments = {name: kept.get(f"{place}.{name}") for name in _MOMENTS}
            average = moments["exp_avg"]
            if average is None:
                continue
            if average.shape != parameter.shape:
                raise ConfigurationError(
                    f"{self._path} holds the state of another adapter; give this client a folder "
                    "of its own"
                )
            self._optimizer.state[parameter] = {
                name: each if name == "step" or each is None else each.to(parameter.device)
                for name, each in moments.items()
            }
