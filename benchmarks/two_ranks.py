"""How much faster two ranks are than one: SmolLM2 on real text, one core a rank.

    python benchmarks/two_ranks.py --logical-batches 5

One group of one process and one of two (gloo on a CPU, NCCL on two GPUs) take turns, a logical
batch each, so that whatever else the machine does falls on both alike. Poisson draws vary in size:
rates are examples a second. Needs the model and reviews from `recipes/fetch_demo.py`.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import statistics
import time
from contextlib import suppress
from multiprocessing.connection import Connection

import click


def work(rank: int, ranks: int, port: int, pipe: Connection) -> None:
    """One rank: trains one logical batch whenever asked, and tells how many examples were its."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",  # else Accelerate gives a lone rank every core
    }
    if ranks == 1:
        del os.environ["WORLD_SIZE"]
    import torch
    from real_text_contenders import dpacc

    if not torch.cuda.is_available():  # the noise, too, is drawn on the rank's own core
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})

    def turn(examples: int) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        pipe.send(examples)
        pipe.recv()

    with suppress(EOFError):  # the parent is done
        dpacc(turn, "float32")


class Group:
    """Ranks that train together, and have trained on one logical batch when this returns."""

    def __init__(self, ranks: int) -> None:
        context = multiprocessing.get_context("spawn")
        port = _free_port()
        self._pipes = []
        for rank in range(ranks):
            here, there = multiprocessing.Pipe()
            context.Process(target=work, args=(rank, ranks, port, there), daemon=True).start()
            self._pipes.append(here)
        self._drawn()

    def examples_per_second(self) -> float:
        """Train on one more logical batch."""
        start = time.perf_counter()
        for pipe in self._pipes:
            pipe.send(True)
        return self._drawn() / (time.perf_counter() - start)

    def _drawn(self) -> int:
        return sum(pipe.recv() for pipe in self._pipes)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port: int = probe.getsockname()[1]
        return port


@click.command()
@click.option("--logical-batches", default=5, show_default=True, help="Timed of each group.")
def main(logical_batches: int) -> None:
    """Compare one rank with two."""
    groups = {ranks: Group(ranks) for ranks in (1, 2)}
    rates: dict[int, list[float]] = {ranks: [] for ranks in groups}
    for _ in range(logical_batches):
        for ranks, group in groups.items():
            rates[ranks].append(group.examples_per_second())
            print(f"{ranks} rank(s): {rates[ranks][-1]:.2f} examples/s", flush=True)
    one, two = (statistics.median(rates[ranks]) for ranks in (1, 2))
    print(f"median of {logical_batches}: {one:.2f} and {two:.2f} examples/s, {two / one:.2f}x")


if __name__ == "__main__":
    main()
