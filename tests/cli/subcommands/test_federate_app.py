"""`dpacc federate app` finds the app that a SuperNode reviews."""

from __future__ import annotations

import json
from pathlib import Path

from flwr.cli.build import build_fab_from_disk

from dpacc.federated.supernode import code_of
from tests.cli.conftest import Run


def test_the_folder_is_an_app_of_three_files(dpacc: Run) -> None:
    """Alone on a line of stdout, for `$(dpacc federate app)`; it is what the checkout holds."""
    told = dpacc("federate", "app")
    folder = Path(told.out.strip())
    assert told.code == 0
    assert set(code_of(build_fab_from_disk(folder))) == {
        "client_app.py",
        "pyproject.toml",
        "server_app.py",
    }
    assert json.loads(dpacc("federate", "app", "--json").out) == {"app": str(folder)}
