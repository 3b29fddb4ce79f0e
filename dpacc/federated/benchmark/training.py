"""Train one cell: together, each client alone, or everything in one place."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from dpacc_accounting import Guarantee
from torch import nn

from dpacc.federated.benchmark.data_sets import Record
from dpacc.federated.benchmark.lab import Bench
from dpacc.federated.benchmark.measuring import Quality
from dpacc.federated.benchmark.partitions import dealt
from dpacc.federated.server.history import History


def train_cell(bench: Bench) -> dict[str, Any]:
    """What the cell's model is worth, and what its ledgers say that it cost.

    Args:
        bench: the cell, its records, and a folder.

    Raises:
        ConfigurationError: the records cannot be dealt so, or nothing was learned.
    """
    began, worked = time.monotonic(), time.process_time()
    with bench.emptied():
        found = {"federated": _together, "local": _alone, "central": _in_one_place}[bench.cell.way](
            bench
        )
    seconds, worked = time.monotonic() - began, time.process_time() - worked
    return found | {"seconds": round(seconds, 1), "cpu_seconds": round(worked, 1)}


def shares_of(bench: Bench) -> list[list[Record]]:
    """Each client's records."""
    shared = bench.cell.shared
    shares = dealt(
        bench.data,
        clients=bench.cell.clients,
        partition=shared["partition"],
        alpha=shared["alpha"],
        seed=shared["seed"],
    )
    return [[bench.data.train[at] for at in share] for share in shares]


def _together(bench: Bench) -> dict[str, Any]:
    shares = shares_of(bench)
    history, start, quality = _trained(bench, "together", shares)
    return _told(start, [quality], [history]) | {
        "rounds": [dict(each.quality) for each in history.rounds],
        "failures": sum(len(each.failed) for each in history.rounds),
        "bytes_received": sum(each.bytes_received for each in history.rounds),
    }


def _alone(bench: Bench) -> dict[str, Any]:
    """Every client as a federation of its own, with the same ε and as many steps."""
    runs = [
        _trained(bench, f"alone-{number}", [share])
        for number, share in enumerate(shares_of(bench), start=1)
    ]
    return _told(runs[0][1], [quality for _, _, quality in runs], [each for each, _, _ in runs])


def _in_one_place(bench: Bench) -> dict[str, Any]:
    history, start, quality = _trained(bench, "one-place", [bench.data.train])
    return _told(start, [quality], [history])


def _trained(
    bench: Bench, name: str, shares: Sequence[Sequence[Record]]
) -> tuple[History, Quality, Quality]:
    """The rounds, and the model's quality before and after them."""
    shared = bench.cell.shared
    clients = [
        bench.client(f"{name}-client-{number}", share)
        for number, share in enumerate(shares, start=1)
    ]
    server = bench.server(f"{name}-server", clients=len(clients))
    quality_of = bench.quality_of(server)
    start = quality_of(server.model)

    def measure(model: nn.Module) -> Mapping[str, float]:
        found = quality_of(model)
        return {found.metric: found.value, "standard error": found.error}

    history = server.train(
        clients=clients,
        aggregation=bench.cell.aggregation,
        local_epochs=shared["local_epochs"],
        measure=measure if bench.cell.way == "federated" else None,
    )
    for client in clients:
        client.close()
    history.require_moved()
    end = quality_of(server.model)
    quality_of.close()
    return history, start, end


def _told(start: Quality, found: Sequence[Quality], histories: Sequence[History]) -> dict[str, Any]:
    """One cell's result: the mean quality, and the largest ε that any client's ledger holds.

    The error of a mean of clients' models, all measured on the same records, is at most the mean
    of their errors.
    """
    return {
        "metric": start.metric,
        "start": start.value,
        "quality": mean(each.value for each in found),
        "error": mean(each.error for each in found),
        "guarantee": dearest(histories).to_json(),
    }


def dearest(histories: Sequence[History]) -> Guarantee:
    """The guarantee with the largest ε of a client, as its ledger's steps price it; all notes."""
    stated = [price.server for each in histories for price in each.guarantee().prices]
    worst = max(stated, key=lambda each: each.epsilon)
    return worst.noted([note for each in stated for note in each.notes])
