"""A round of 10, 100 and 1,000 clients: the server's peak memory, and seconds at both ends.

    python benchmarks/scale.py                                # 46,080 numbers
    python benchmarks/scale.py --numbers 40000000 --clients 4 16 --kinds average secagg

Clients train nothing: each moves every number by one of its own. They live in a second process, so
that memory is the server's alone, as where clients are far away; messages are serialised and read
back. Memory is what the process holds at its peak beyond what it held before the round. Seconds are
of processors. In "secagg" a fifth of all may drop out, and nobody does; "everybody" is the same
without neighbours.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage

from dpacc.federated.aggregation.averaging import ffa
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.federated.secure_sum.summing_client import SecureClient
from dpacc.federated.server.history import History
from dpacc.federated.server.in_process_grid import LocalGrid
from dpacc.federated.server.secure_sum_strategy import SecureFederatedLoRA
from dpacc.federated.server.strategy import FederatedLoRA
from dpacc.federated.updates.layout import to_record


class Moving:
    """A client that moves every number by its own."""

    def __init__(self, node: int) -> None:
        self.client_id = f"site-{node}"
        self._moved = np.float32(node / 1024)

    def answer(self, message: Message) -> Message:
        """The update."""
        start = message.content.array_records["arrays"]["B"].numpy()
        said = ConfigRecord({"client": self.client_id})
        records = {"arrays": to_record({"B": start + self._moved}), "config": said}
        return Message(RecordDict(records), reply_to=message)  # type: ignore[arg-type]

    @property
    def app(self) -> ClientApp:
        """As Flower runs it, without a sum."""
        app = ClientApp()

        @app.train()
        def train(message: Message, context: Context) -> Message:
            del context
            return self.answer(message)

        return app


class Far(LocalGrid):
    """Asks clients that live in another process."""

    def __init__(self, clients: int, pipe: Connection) -> None:
        super().__init__({node: ClientApp() for node in range(1, clients + 1)})
        self._pipe = pipe

    def _ask(self, node: int, message: Message) -> Message:
        self._pipe.send_bytes(node.to_bytes(8, "big"))
        self._pipe.send_bytes(message_to_proto(message).SerializeToString())
        return message_from_proto(ProtoMessage.FromString(self._pipe.recv_bytes()))


def clients_answer(pipe: Connection, count: int, settings: SecureSum | None) -> None:
    """Be all clients, until the server hangs up; then say how long that took."""
    with tempfile.TemporaryDirectory() as place:
        apps = {}
        for node in range(1, count + 1):
            client: Any = Moving(node)
            if settings is not None:
                client = SecureClient(
                    client=client, secure_sum=settings, folder=Path(place) / f"{node}"
                )
            apps[node] = client.app
        LocalGrid({})  # tells Flower which run this process is of
        contexts = {
            node: Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})
            for node in apps
        }
        begun = time.process_time()
        while node := int.from_bytes(pipe.recv_bytes(), "big"):
            message = message_from_proto(ProtoMessage.FromString(pipe.recv_bytes()))
            reply = apps[node](message, contexts[node])
            pipe.send_bytes(message_to_proto(reply).SerializeToString())
        pipe.send(time.process_time() - begun)


def served(pipe: Connection, count: int, numbers: int, settings: SecureSum | None) -> None:
    """Be the server of one round, and say what it took."""
    ours, theirs = multiprocessing.Pipe()
    far = multiprocessing.Process(target=clients_answer, args=(theirs, count, settings))
    far.start()
    start = {"B": np.zeros(numbers, np.float32)}
    common: dict[str, Any] = {
        "start": start,
        "aggregation": ffa,
        "budget": None,
        "clients": count,
        "sampling_rate": 1.0,
        "history": History(),
        "connect_timeout": 60.0,
        "measure": lambda arrays: {},
        "after_round": lambda arrays, history: None,
    }
    strategy = (
        FederatedLoRA(**common)
        if settings is None
        else SecureFederatedLoRA(secure_sum=settings, privacy=None, ledger=None, **common)
    )
    grid = Far(count, ours)
    level = "client" if settings is None else "example"
    config = ConfigRecord({"run": "a run", "privacy": level})
    before, begun = _peak(), time.process_time()
    strategy.start(grid=grid, initial_arrays=to_record(start), num_rounds=1, train_config=config)
    seconds = time.process_time() - begun
    mean = (count + 1) / 2 / 1024
    assert np.abs(strategy.arrays["B"] - mean).max() < 1e-5, common["history"].rounds[-1].failed
    ours.send_bytes(bytes(8))
    pipe.send(
        (
            _peak() - before,
            seconds,
            ours.recv() / count,
            grid.bytes_received / count / numbers,
            grid.bytes_sent / count / numbers,
        )
    )
    far.join()


def _peak() -> float:
    """MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


KINDS: dict[str, Callable[[int], SecureSum | None]] = {
    "average": lambda count: None,
    "secagg": lambda count: SecureSum(clients=count, threshold=-(-4 * count // 5)),
    "everybody": lambda count: SecureSum(clients=count, threshold=count // 2 + 1),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--numbers", type=int, default=46_080)
    parser.add_argument("--clients", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--kinds", nargs="+", default=["average", "secagg"], choices=[*KINDS])
    asked = parser.parse_args()
    multiprocessing.set_start_method("fork")  # nothing has run yet that a copy would miss
    print(
        "kind | clients | neighbours | server MB | server s | client s | up | down, bytes a number"
    )
    for kind in asked.kinds:
        for count in asked.clients:
            settings = KINDS[kind](count)
            drawn = settings and settings.neighbourhood
            ours, theirs = multiprocessing.Pipe()
            server = multiprocessing.Process(
                target=served, args=(theirs, count, asked.numbers, settings)
            )
            server.start()
            memory, seconds, client, received, sent = ours.recv()
            server.join()
            row = [kind, f"{count}", f"{drawn.neighbours if drawn else '-'}", f"{memory:.1f}"]
            row += [f"{seconds:.2f}", f"{client:.4f}", f"{received:.2f}", f"{sent:.2f}"]
            print(" | ".join(row), flush=True)


if __name__ == "__main__":
    main()
