"""Fine-tuning on real text of every length, side by side: seconds a logical batch of 256.

    python benchmarks/real_text.py --logical-batches 5

dpacc against transformers' Trainer at its defaults without privacy, and against Opacus. Each runs
in a process of its own; logical batches are interleaved, so that whatever else the machine does
falls on all of them alike. Poisson draws vary in size, so times are scaled to 256 examples. Needs
`pip install opacus==1.6.0` and the model and reviews from `recipes/fetch_demo.py`.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from multiprocessing.connection import Connection

import click

Row = tuple[float, float, float]
"""Seconds on the clock and on the processor a logical batch, and the peak memory so far in MB."""


def work(name: str, threads: int, dtype: str, pipe: Connection) -> None:
    """In a process of its own: train, one logical batch whenever asked."""
    import torch
    from real_text_contenders import CONTENDERS, LOGICAL_BATCH

    torch.set_num_threads(threads)
    started: tuple[float, float] | None = None

    def turn(examples: int) -> None:
        nonlocal started
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if started is None:
            pipe.send("ready")
        else:
            spent = time.perf_counter() - started[0], time.process_time() - started[1]
            scale = LOGICAL_BATCH / max(examples, 1)
            pipe.send((spent[0] * scale, spent[1] * scale, _peak()))
        pipe.recv()
        started = time.perf_counter(), time.process_time()

    try:
        CONTENDERS[name](turn, dtype)
    except EOFError:  # the parent is done
        pass
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}"[:200])


def _peak() -> float:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def start(name: str, threads: int, dtype: str) -> Connection:
    """Start a contender, which runs once untimed and then says "ready", or why it cannot run."""
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    context.Process(target=work, args=(name, threads, dtype, there), daemon=True).start()
    return here


@click.command()
@click.option("--logical-batches", default=5, show_default=True, help="Timed of each tool.")
@click.option("--threads", default=1, show_default=True, help="Threads of each tool.")
@click.option("--dtype", default="float32", show_default=True, help="Precision of the base.")
@click.option("--only", default="", help="Names to run, separated by semicolons.")
def main(logical_batches: int, threads: int, dtype: str, only: str) -> None:
    """Compare training on movie reviews across tools."""
    from real_text_contenders import CONTENDERS

    names = [name for name in CONTENDERS if not only or name in only.split(";")]
    pipes = {name: start(name, threads, dtype) for name in names}
    answers = {name: pipe.recv() for name, pipe in pipes.items()}
    running = {name: pipe for name, pipe in pipes.items() if answers[name] == "ready"}
    results: dict[str, list[Row]] = {name: [] for name in running}
    for _ in range(logical_batches):
        for name, pipe in running.items():
            pipe.send(True)
            answer = pipe.recv()
            if isinstance(answer, str):
                raise SystemExit(f"{name} stopped: {answer}")
            results[name].append(answer)
            print(f"{name}: {answer[0]:.1f} s", flush=True)
    print(f"256 examples, median of {logical_batches}, {threads} thread(s) each, {dtype}")
    for name, rows in results.items():
        print(f"{name:22}{_row(rows, results)}")
    for name, why in answers.items():
        if name not in running:
            print(f"{name:22}did not run: {why}")


def _row(rows: list[Row], results: dict[str, list[Row]]) -> str:
    wall, processor, peak = _medians(rows)
    ratios = [
        f"{wall / _medians(results[name])[0]:5.2f}x {name}"
        for name in ("Hugging Face Trainer", "Opacus")
        if name in results
    ]
    figures = f"{wall:7.2f} s  processor {processor:7.2f} s  peak {peak:5.0f} MB"
    return "  ".join([figures, *ratios])


def _medians(rows: list[Row]) -> list[float]:
    return [statistics.median(column) for column in zip(*rows, strict=True)]


if __name__ == "__main__":
    main()
