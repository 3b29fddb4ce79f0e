"""What a restarted server goes on from: the shared adapter, and apart from it who took part.

The adapter may be given away; the rounds' reports name every organisation, so they are in files of
their own that nobody else may read. A round adds its line to one of them; the other, which does not
grow with the rounds, names the adapter's file and which lines count, and is exchanged last: at any
moment all three belong to the same round.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpacc_accounting.ledger.disk import sync_folder
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from dpacc.artifacts.kept.appended_lines import AppendedLines
from dpacc.artifacts.run_folder import write_file
from dpacc.errors import ConfigurationError
from dpacc.federated.server.history import ROUNDS_FILE, History, history_in
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

    To be read before it is kept: a round's line goes after those that count.

    Args:
        folder: the server's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / "state.json"
        self._rounds = AppendedLines(folder / ROUNDS_FILE)

    def keep(self, state: State) -> None:
        """Write the adapter and the new rounds, then what names them; drop the adapter before."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        adapter = self._folder / f"adapter-{len(state.history.rounds):04}.safetensors"
        content = save(state.arrays)
        write_file(path=adapter, content=content)
        new = state.history.rounds[self._rounds.count :]
        self._rounds.extend(report.to_json() for report in new)
        known = {
            "run": state.run,
            "agreed": state.agreed,
            "history": state.history.beside_rounds(),
            "rounds": self._rounds.mark,
            "adapter": adapter.name,
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        sync_folder(self._folder)  # what it names is there before it is
        write_file(path=self.path, content=json.dumps(known).encode())
        sync_folder(self._folder)
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
                history=history_in(known, rounds=self._rounds),
                arrays=load_file(adapter),
            )
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ConfigurationError(
                f"{self.path} is damaged ({error}); restore it from a copy, or start a new "
                "federation in a folder of its own"
            ) from None
