"""One secure sum of an adapter's updates: CPU seconds and bytes, by protocol and number of clients.

    python benchmarks/secure_sum.py     # 460,800 numbers: SmolLM2-135M with r = 8 on q and v
    python benchmarks/secure_sum.py --numbers 10000 --clients 5

Clients train nothing, so all that is timed is the protocol: messages are serialised and read back
as on a network, and all run one after the other in this process. "peer" times what Flower's own
SecAgg+ spends on a client's masks alone (numpy's Mersenne twister from 32 bits of the key, 64-bit
numbers on the wire), beside ours of the same masks.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

from dpacc.federated.secure_sum.keys import mask, new_key
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.federated.secure_sum.summing_client import SecureClient
from dpacc.federated.server.history import History
from dpacc.federated.server.in_process_grid import LocalGrid
from dpacc.federated.server.secure_sum_strategy import SecureFederatedLoRA
from dpacc.federated.updates.layout import to_record


@dataclass
class Still:
    """A client whose update is always the same."""

    client_id: str
    moved: np.ndarray[Any, np.dtype[np.float32]]

    def answer(self, message: Message) -> Message:
        """The update."""
        named = ConfigRecord({"client": self.client_id})
        records = {"arrays": to_record({"B": self.moved}), "config": named}
        return Message(RecordDict(records), reply_to=message)  # type: ignore[arg-type]


@dataclass
class TimedGrid(LocalGrid):
    """Counts the seconds that clients take, and loses some after training."""

    apps: Any
    lost: int
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def __post_init__(self) -> None:
        super().__init__(self.apps)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Deliver, and take the time."""
        sent = list(messages)
        begun = time.process_time()
        replies = list(super().send_and_receive(sent, timeout=timeout))
        self.seconds["clients"] += time.process_time() - begun
        if sent and sent[0].metadata.message_type == "train":
            return replies[self.lost :]
        return replies


def one_sum(settings: SecureSum, *, numbers: int, lost: int) -> list[str]:
    """A row of the table; the sum is checked."""
    draw = np.random.default_rng(0)
    moved = [draw.normal(size=numbers).astype(np.float32) for _ in range(settings.clients)]
    place = tempfile.TemporaryDirectory()  # gone with this function
    clients = [
        SecureClient(
            client=Still(f"{n}", each), secure_sum=settings, folder=Path(place.name) / f"{n}"
        )
        for n, each in enumerate(moved)
    ]
    grid = TimedGrid(apps={n: each.app for n, each in enumerate(clients, start=1)}, lost=lost)
    start = {"B": np.zeros(numbers, np.float32)}
    strategy = SecureFederatedLoRA(
        secure_sum=settings,
        privacy=None,
        ledger=None,
        start=start,
        aggregation=None,
        budget=None,
        clients=settings.clients,
        sampling_rate=1.0,
        history=History(),
        connect_timeout=60.0,
        measure=lambda arrays: {},
        after_round=lambda arrays, history: None,
    )
    begun = time.process_time()
    config = ConfigRecord({"run": "a run", "privacy": "example"})
    strategy.start(grid=grid, initial_arrays=to_record(start), num_rounds=1, train_config=config)
    whole = time.process_time() - begun
    expected = np.mean(moved[lost:], axis=0, dtype=np.float64)
    assert np.abs(strategy.arrays["B"] - expected).max() < 1e-6
    return [
        settings.protocol,
        f"{settings.clients}",
        f"{settings.fewest}",
        f"{lost}",
        f"{grid.seconds['clients'] / settings.clients:.3f}",
        f"{whole - grid.seconds['clients']:.3f}",
        f"{grid.bytes_received / settings.clients / numbers:.2f}",
        f"{grid.bytes_sent / settings.clients / numbers:.2f}",
    ]


def against_flower(*, clients: int, numbers: int) -> None:
    """The masks of one client, ours and Flower's."""
    keys = [new_key() for _ in range(clients)]
    begun = time.process_time()
    for key in keys:
        mask(key, count=numbers)
    ours = time.process_time() - begun
    begun = time.process_time()
    for key in keys:
        pseudo_rand_gen(key, 1 << 32, [(numbers,)])
    theirs = time.process_time() - begun
    print(
        f"peer: {clients} masks: {ours:.3f} s ours, {theirs:.3f} s Flower's, {theirs / ours:.1f}x"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--numbers", type=int, default=460_800)
    parser.add_argument("--clients", type=int, nargs="+", default=[5, 10, 20, 50])
    asked = parser.parse_args()
    print("protocol | n | t | lost | client s | server s | bytes a number up | down")
    for clients in asked.clients:
        threshold = 2 * clients // 3 + 1
        secagg = SecureSum(clients=clients, threshold=threshold)
        rows = [(secagg, 0), (secagg, clients - threshold)]
        rows.append((SecureSum(clients=clients, protocol="pairwise"), 0))
        if clients <= 10:
            rows.append((SecureSum(clients=clients, threshold=threshold, protocol="ckks"), 0))
        for settings, lost in rows:
            row = one_sum(settings, numbers=asked.numbers, lost=lost)
            print(" | ".join(row), flush=True)
        against_flower(clients=clients, numbers=asked.numbers)


if __name__ == "__main__":
    main()
