"""What a finished run leaves in its server's folder."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from dpacc.artifacts.run_folder import write_file
from dpacc.federated.server.federated_server import FederatedServer


def write_results(server: FederatedServer, *, folder: Path | str) -> None:
    """Write what a finished run leaves: `adapter/`, `history.json`, and, for `dpacc compose`,
    `rounds.yaml`. The last two say who took part, and only their owner may read them.

    Raises:
        ConfigurationError: no round used any client's update; the files are there all the same.
    """
    place, history = Path(folder), server.history
    server.publish(folder=place / "adapter")
    write_file(
        path=place / "history.json", content=json.dumps(history.to_json(), indent=2).encode()
    )
    if history.is_priced:
        rounds = yaml.safe_dump(history.federation())
        write_file(path=place / "rounds.yaml", content=rounds.encode())
    history.require_moved()
