"""The server's side: `flwr run` starts this on the SuperLink, once for the whole run."""

from __future__ import annotations

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from dpacc.federated.deployment.flower_config import read_config
from dpacc.federated.deployment.run_settings import RunSettings
from dpacc.federated.deployment.server_run import run_server

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """All rounds; a run that was stopped goes on from the state in its folder."""
    run_server(read_config(RunSettings, context.run_config), grid=grid, context=context)
