"""The server of a deployed federation, from its settings to what it leaves."""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid

from dpacc.federated.deployment.final_adapter import send_adapter
from dpacc.federated.deployment.round_figures import RoundFigures
from dpacc.federated.deployment.run_settings import RunSettings
from dpacc.federated.server.federated_server import FederatedServer
from dpacc.federated.server.held_out import HeldOut
from dpacc.federated.server.round_settings import Measure
from dpacc.federated.server.run_results import write_results


def run_server(run: RunSettings, *, grid: Grid, context: Context) -> FederatedServer:
    """All rounds; a run that was stopped goes on from the state in its folder.

    Raises:
        ConfigurationError: settings that contradict each other, or rounds that brought nothing.
    """
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
    figures = RoundFigures(names=run.trackers or (), folder=Path(run.folder))
    rounds = server.app(
        aggregation=run.aggregation,
        client_sampling_rate=run.client_sampling_rate,
        local_epochs=run.local_epochs,
        defence=run.defended,
        measure=_measure(run, server),
        on_round=lambda report: figures.log(server.history, number=report.number),
        compression=run.compression,
        sketch_size=run.sketch_size,
        rollback=run.rollback,
        round_timeout=run.round_timeout,
        connect_timeout=run.connect_timeout,
        client_nodes=run.listed,
    )
    try:
        rounds(grid, context)
    finally:
        figures.close()
    write_results(server, folder=run.folder)
    send_adapter(grid, folder=Path(run.folder) / "adapter", timeout=run.round_timeout)
    return server


def _measure(run: RunSettings, server: FederatedServer) -> Measure | None:
    if run.held_out is None:
        return None
    return HeldOut(folder=run.held_out, tokenizer=server.tokenizer, task=run.measured)
