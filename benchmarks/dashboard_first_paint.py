"""How long a person waits for the dashboard's first page, and how many bytes that page is made of.

    python benchmarks/dashboard_first_paint.py --runs 1000 --steps 100

Writes run folders of three plans, as recipes leave them, without training; serves them; opens the
page in Chromium; and waits until the table of runs stands there: once with everything read for the
first time, then again in a new window. The same with three runs says what Streamlit and the browser
need by themselves; the server's own processor time does not depend on who else uses the machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from dpacc_accounting import Ledger, read_ledger
from playwright.sync_api import sync_playwright

from dpacc.artifacts.proof import privacy_document
from dpacc.plan import PrivacyPlan

CHROMIUM = "/usr/bin/chromium"
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")


def write_runs(folder: Path, *, runs: int, steps: int) -> None:
    """So many finished runs: one in ten without a proof, so that its ε was recorded nowhere."""
    kinds = [_one_run(folder / f"run-{number:04}", sigma, steps)
             for number, sigma in enumerate((0.8, 1.0, 1.2))]  # fmt: skip
    for number in range(3, runs):
        place = folder / f"run-{number:04}"
        shutil.copytree(kinds[number % 3], place)
        if not number % 10:
            (place / "privacy.json").unlink()


def _one_run(place: Path, sigma: float, steps: int) -> Path:
    plan = PrivacyPlan(
        dataset_size=10_000,
        expected_batch_size=100,
        steps=steps,
        noise_multiplier=sigma,
        max_grad_norm=1.0,
        target_delta=1e-5,
        target_epsilon=4.0,
    )
    place.mkdir(parents=True)
    with Ledger.open(path=place / "ledger.jsonl", plan=plan.to_json()) as book:
        for step in range(steps):
            book.charge(step=step, event=plan.charge(step))
    record = read_ledger(path=place / "ledger.jsonl")
    proof = privacy_document(record=record, ledger="ledger.jsonl")
    (place / "privacy.json").write_bytes(proof)
    return place


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, int]]:
    """A dashboard on it, until the block ends: its address, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["-m", "dpacc", "dashboard", str(folder), "--port", str(port)]
    process = subprocess.Popen([sys.executable, *words], stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        while process.poll() is None:
            try:
                urllib.request.urlopen(f"{address}/_stcore/health").close()
                break
            except OSError:
                time.sleep(0.2)
        yield address, process.pid
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def first_paints(address: str, *, pid: int, times: int) -> Iterator[tuple[float, float]]:
    """Seconds until the table is there, and of the server's processor; each in a new window."""
    server = psutil.Process(pid)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", CHROMIUM), args=[*QUIET]
        )
        for _ in range(times):
            page = browser.new_context().new_page()
            began, used = time.monotonic(), sum(server.cpu_times()[:2])
            page.goto(address)
            page.wait_for_selector(".wide tbody tr", timeout=120_000)
            yield time.monotonic() - began, sum(server.cpu_times()[:2]) - used
            page.context.close()
        browser.close()


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--times", type=int, default=4)
    asked = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'runs':>6} {'paint':>7} {'until the table':>16} {'server, processor':>18}")
    for runs in (3, asked.runs):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "runs"
            write_runs(folder, runs=runs, steps=asked.steps)
            with served(folder) as (address, pid):
                paints = first_paints(address, pid=pid, times=asked.times)
                for at, (seconds, processor) in enumerate(paints):
                    kind = "again" if at else "first"
                    print(f"{runs:6} {kind:>7} {seconds:14.2f} s {processor:16.2f} s")


if __name__ == "__main__":
    main()
