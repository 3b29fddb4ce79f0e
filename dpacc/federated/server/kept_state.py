"""What a restarted server goes on from: the shared adapter, and apart from it who took part.

The adapter may be given away; the rounds' reports name every organisation, so they are in a file
of their own that nobody else may read. It names its adapter's file, and is exchanged last: at any
moment both belong to the same round.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from dpacc.errors import ConfigurationError
from dpacc.federated.server.history import History
from dpacc.federated.updates.layout import Arrays


@dataclass(frozen=True, kw_only=True)
class State:
    """A federation after one of its rounds.

    Args:
        run: its own name, drawn once.
        agreed: the settings that may not change.
        history: of all rounds.
        arrays: the shared adapter.
    """

    run: str
    agreed: str
    history: History
    arrays: Arrays


class KeptState:
    """The state in a folder, which changes whole or not at all.

    Args:
        folder: the server's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / "state.json"

    def keep(self, state: State) -> None:
        """Write the adapter, then what names it, then drop the adapter before it."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        adapter = self._folder / f"adapter-{len(state.history.rounds):04}.safetensors"
        save_file(state.arrays, adapter)
        known = {
            "run": state.run,
            "agreed": state.agreed,
            "history": state.history.to_json(),
            "adapter": adapter.name,
            "sha256": hashlib.sha256(adapter.read_bytes()).hexdigest(),
        }
        partial = self.path.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(known, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)
        for other in self._folder.glob("adapter-*.safetensors"):
            if other != adapter:
                other.unlink()

    def read(self) -> State | None:
        """What was kept last, if anything was.

        Raises:
            ConfigurationError: it is damaged.
        """
        if not self.path.exists():
            return None
        try:
            known: dict[str, Any] = json.loads(self.path.read_text())
            adapter = self._folder / Path(known["adapter"]).name
            if hashlib.sha256(adapter.read_bytes()).hexdigest() != known["sha256"]:
                raise ValueError(f"{adapter.name} is another one than it names")
            return State(
                run=known["run"],
                agreed=known["agreed"],
                history=History.from_json(known["history"]),
                arrays=load_file(adapter),
            )
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ConfigurationError(
                f"{self.path} is damaged ({error}); restore it from a copy, or start a new "
                "federation in a folder of its own"
            ) from None
