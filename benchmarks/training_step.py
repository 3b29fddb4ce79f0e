"""One optimizer step, side by side: time and peak memory, as ratios to not being private.

    python benchmarks/training_step.py --repeats 7

Each tool runs in a process of its own; the steps are interleaved, so that whatever else the
machine does falls on all of them alike, and medians are compared. Needs the peers:
`pip install opacus==1.6.0 dp-lora==0.1.0` and the model from `recipes/fetch_demo.py`.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import click


def work(name: str, threads: int, pipe: Connection) -> None:
    """In a process of its own: load, then run a step and tell its time whenever asked."""
    import torch
    from contenders import CONTENDERS

    torch.set_num_threads(threads)
    try:
        step = CONTENDERS[name]()
        step()
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}"[:200])
        return
    pipe.send("ready")
    with suppress(EOFError):
        while pipe.recv():
            pipe.send(timed(step))


def timed(step: Callable[[], None]) -> tuple[float, float, float]:
    """Seconds on the clock and on the processor, and the peak memory so far in MB."""
    import torch

    wall, processor = time.perf_counter(), time.process_time()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - processor, _peak()


def _peak() -> float:
    """Peak memory of this process so far, in MB: the GPU's if there is one."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def start(name: str, threads: int) -> Connection:
    """Start a contender, which runs once untimed and then says "ready", or why it cannot run."""
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    context.Process(target=work, args=(name, threads, there), daemon=True).start()
    return here


@click.command()
@click.option("--repeats", default=7, show_default=True, help="Steps timed of each tool.")
@click.option("--threads", default=1, show_default=True, help="Threads of each tool.")
@click.option("--only", default="", help="Names to run, separated by commas.")
def main(repeats: int, threads: int, only: str) -> None:
    """Compare one LoRA step across tools."""
    from contenders import CONTENDERS, non_private

    names = [name for name in CONTENDERS if not only or name in only.split(",")]
    pipes = {name: start(name, threads) for name in names}
    answers = {name: pipe.recv() for name, pipe in pipes.items()}
    running = {name: pipe for name, pipe in pipes.items() if answers[name] == "ready"}
    results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in running}
    for _ in range(repeats):
        for name, pipe in running.items():
            pipe.send(True)
            results[name].append(pipe.recv())
    floor = next(n for n, build in CONTENDERS.items() if build is non_private)
    print(f"One step, median of {repeats}, {threads} thread(s) each")
    for name, rows in results.items():
        print(f"{name:18}{_row(rows, results.get(floor, rows))}")
    for name, why in answers.items():
        if name not in running:
            print(f"{name:18}did not run: {why}")


def _row(rows: list[tuple[float, float, float]], floor: list[Any]) -> str:
    wall, processor, peak = (statistics.median(column) for column in zip(*rows, strict=True))
    base = [statistics.median(column) for column in zip(*floor, strict=True)]
    return (
        f"{wall:6.2f} s {wall / base[0]:5.2f}x   processor {processor:6.2f} s "
        f"{processor / base[1]:5.2f}x   peak {peak:5.0f} MB {peak / base[2]:5.2f}x"
    )


if __name__ == "__main__":
    main()
