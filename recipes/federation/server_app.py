"""The server's side: `flwr run` starts this on the SuperLink, once for the whole run."""

from __future__ import annotations

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from dpacc.federated import FederatedServer
from dpacc.federated.deployment.flower_config import read_config
from dpacc.federated.deployment.run_settings import RunSettings
from dpacc.federated.server.run_results import write_results

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """All rounds; a run that was stopped goes on from the state in its folder."""
    run = read_config(RunSettings, context.run_config)
    server = FederatedServer(
        model_name=run.model,
        num_clients=run.num_clients,
        rounds=run.rounds,
        privacy_budget=run.budget,
        client_privacy=run.client_privacy,
        secure_sum=run.secure_sum,
        lora_config=run.lora,
        task=run.learned,
        folder=run.folder,
    )
    rounds = server.app(
        aggregation=run.aggregation,
        client_sampling_rate=run.client_sampling_rate,
        local_epochs=run.local_epochs,
        defence=run.defended,
        compression=run.compression,
        round_timeout=run.round_timeout,
        connect_timeout=run.connect_timeout,
    )
    rounds(grid, context)
    write_results(server, folder=run.folder)
