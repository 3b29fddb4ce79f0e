"""Hammer one budget with eight processes that are killed at random, and see that it holds.

    python benchmarks/budget_kills.py --kills 200

Each process begins runs, goes on with others' that died, commits them before or after their end,
gives reservations back, and copies ledgers to go on with the copy. It is killed with SIGKILL at a
random one of its own calls: inside a reservation, a charge, a commit, between any two lines. At
the end nobody may have been granted more than the total, by three counts: the budget's own, that of
all ledgers on the disk, and that of the witness, to which each process says what it was granted
before it charges. Exits with 1 if not. Calls are counted, not seconds: what it shows does not
depend on how busy the machine is.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import click
from dpacc_accounting import (
    Budget,
    BudgetExceeded,
    BudgetRecord,
    Composed,
    Event,
    Gaussian,
    LedgerError,
    PoissonSampled,
    Repeated,
    create_budget,
    epsilon,
    merge_ledgers,
    read_budget,
    read_ledger,
)

STEPS, RUNS, DELTA = 4, 12, 1e-5
STEP = PoissonSampled(probability=0.1, event=Gaussian(noise_multiplier=1.0))
PLANNED = Repeated(event=STEP, times=STEPS)
PLAN = {"steps": STEPS, "unit": "example", "adjacency": "add-or-remove", "target_delta": DELTA}
OPERATIONS = ("begin", "begin", "go on", "go on", "commit", "commit", "give back", "copy")
MOST_CALLS, MOST_PROCESSES = 4000, 10
HERE = ("dpacc_accounting/budget/", "dpacc_accounting/ledger/", "budget_kills.py")


def cost(events: list[Event]) -> float:
    """ε of all of them together."""
    return epsilon(event=Composed(events=tuple(events)), delta=DELTA).epsilon


def die_at_call(number: int) -> None:
    """Send this process SIGKILL at its so many-th call from the code that keeps the books."""
    left = [number]

    def count(frame: FrameType, event: str, _: Any) -> None:
        if event in ("call", "c_call") and any(h in frame.f_code.co_filename for h in HERE):
            left[0] -= 1
            if left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)


def work(folder: Path, seed: int) -> None:
    """A few operations on the folder's budget and ledgers; refusals are no surprise."""
    draw = random.Random(seed)
    for _ in range(6):
        try:
            operate(folder, draw, draw.choice(OPERATIONS))
        except BudgetExceeded:
            tell(folder, "refused")
        except LedgerError:  # in use, already committed, a copy
            tell(folder, "turned away")


def operate(folder: Path, draw: random.Random, what: str) -> None:
    """One of `OPERATIONS`."""
    budget = Budget(path=folder / "budget.jsonl")
    ledgers = sorted(folder.glob("run-*.jsonl"))
    if what == "begin" or not ledgers:
        take_steps(folder, budget, folder / f"run-{draw.getrandbits(64):x}.jsonl", draw)
        return
    ledger = draw.choice(ledgers)
    if what == "go on":
        take_steps(folder, budget, ledger, draw)
    elif what == "commit":
        budget.commit(ledgers=[ledger])
    elif what == "give back":
        budget.release(run=read_ledger(path=ledger).run)
    else:
        copy = folder / f"run-{draw.getrandbits(64):x}.jsonl"
        shutil.copyfile(ledger, copy)
        take_steps(folder, budget, copy, draw)


def take_steps(folder: Path, budget: Budget, path: Path, draw: random.Random) -> None:
    """Open a ledger within the budget, and take some or all of its steps."""
    with budget.open_ledger(path=path, plan=PLAN, planned=PLANNED) as ledger:
        tell(folder, f"granted {ledger.run}")
        for step in range(ledger.steps_charged, draw.randint(0, STEPS)):
            ledger.charge(step=step, event=STEP)


def tell(folder: Path, what: str) -> None:
    """Leave a line that outlives this process."""
    descriptor = os.open(folder / "witness", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, what.encode() + b"\n")
    os.close(descriptor)


def hammer(folder: Path, *, kills: int, processes: int, seed: int) -> Counter[str]:
    """Let so many processes work at once, until so many were killed; then let the last ones end."""
    draw, fates, running = random.Random(seed), Counter[str](), set[int]()
    enough = kills + processes // 2
    while fates["killed"] < kills or running:
        if fates.total() > MOST_PROCESSES * kills:
            raise AssertionError(f"too few get far enough to be killed: {dict(fates)}")
        while fates["killed"] < kills and len(running) < min(processes, enough - fates["killed"]):
            running.add(begin(folder, draw.getrandbits(64), draw.randint(1, MOST_CALLS)))
        process, status = os.wait()
        running.discard(process)
        fates["killed" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"] += 1
    return fates


def begin(folder: Path, seed: int, calls: int) -> int:
    """A process of its own, which dies at that call, unless it ends before."""
    if process := os.fork():
        return process
    code = 1
    try:
        die_at_call(calls)
        work(folder, seed)
        code = 0
    finally:
        sys.setprofile(None)
        os._exit(code)


def judge(folder: Path, total: float) -> tuple[BudgetRecord, dict[str, float]]:
    """ε by three counts: none may be over the total."""
    record = read_budget(path=folder / "budget.jsonl")
    held = cost([share.event for share in record.shares.values()])
    found = {str(path): read_ledger(path=path) for path in usable(folder)}
    charged = {path: books for path, books in found.items() if books.releases}
    released = merge_ledgers(records=charged, delta=DELTA).event
    granted = {said.split()[1] for said in witnessed(folder) if said.startswith("granted")}
    strangers = {books.run for books in charged.values()} - granted
    if strangers or granted - record.shares.keys():
        raise AssertionError("steps were taken, or granted, of which the budget knows nothing")
    figures = {
        "by the budget": held,
        "by the ledgers": cost([released]),
        "by the witness": cost([record.shares[run].event for run in granted]),
    }
    over = {name: found for name, found in figures.items() if found > total}
    if over:
        raise AssertionError(f"over the total of {total}: {over}")
    return record, figures


def witnessed(folder: Path) -> list[str]:
    """What processes said before they died or ended."""
    return (folder / "witness").read_text().splitlines()


def usable(folder: Path) -> list[Path]:
    """The ledgers that were begun at all."""
    return [path for path in sorted(folder.glob("run-*")) if b"\n" in path.read_bytes()]


@click.command()
@click.option("--kills", default=200, show_default=True)
@click.option("--processes", default=8, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(kills: int, processes: int, seed: int) -> None:
    """Hammer a budget of twelve runs in a folder of its own, and print what came of it."""
    total = cost([PLANNED] * RUNS)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        create_budget(path=folder / "budget.jsonl", name="hammered", epsilon=total, delta=DELTA)
        fates = hammer(folder, kills=kills, processes=processes, seed=seed)
        record, figures = judge(folder, total)
        states = Counter(share.state for share in record.shares.values())
        said = Counter(each.split()[0] for each in witnessed(folder))
    found = {"total": total, **figures, "processes": fates, "runs": states, "operations": said}
    print(json.dumps(found, indent=2))
    if "exit 1" in fates:
        sys.exit(1)


if __name__ == "__main__":
    main()
