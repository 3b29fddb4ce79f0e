"""Calibrate common fine-tuning runs, side by side with dp-accounting.

    python benchmarks/accounting.py            # all settings ours, a few against dp-accounting
    python benchmarks/accounting.py --peers 6  # more of them: PLD takes seconds to minutes each
    python benchmarks/accounting.py --opake .venv/opake/bin/python  # against Opake's accountant too

Prints times in milliseconds, warm; ratios are dp-accounting over ours, so above 1 ours is faster,
or needs less noise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dpacc_accounting import Calibration, calibrate_epsilon, calibrate_noise

# Name, N, δ, then (batch, epochs, ε), after arXiv 2110.05679, 2110.06500 and 2204.13650.
TASKS: tuple[tuple[str, int, float, tuple[tuple[int, float, float], ...]], ...] = (
    ("SST-2", 67_349, 1e-5, ((256, 3, 8.0), (1024, 3, 3.0), (2048, 10, 1.0), (4096, 20, 8.0))),
    ("QNLI", 104_743, 9.5e-6, ((256, 3, 8.0), (1024, 6, 3.0), (2048, 20, 1.0), (6000, 18, 8.0))),
    ("QQP", 363_846, 1e-6, ((512, 3, 8.0), (2048, 18, 3.0), (6000, 18, 8.0))),
    ("MNLI", 392_702, 1e-6, ((512, 3, 8.0), (2048, 18, 3.0), (6000, 18, 8.0), (4096, 40, 1.0))),
    ("E2E", 42_061, 1e-5, ((256, 3, 8.0), (1024, 10, 3.0), (1024, 400, 8.0), (1024, 10, 0.5))),
    ("DART", 62_659, 1e-5, ((256, 3, 8.0), (1024, 10, 3.0), (1024, 50, 8.0))),
    ("reviews", 9_481, 1e-4, ((96, 0.2, 8.0), (96, 3, 8.0), (512, 20, 3.0), (9_481, 50, 8.0))),
    (
        "CIFAR-10",
        50_000,
        1e-5,
        ((256, 10, 8.0), (1024, 50, 3.0), (4096, 200, 8.0), (16384, 875, 1.0)),
    ),
    ("Alpaca", 52_002, 1e-5, ((128, 1, 8.0), (256, 3, 2.0), (1024, 5, 10.0))),
    ("web", 100_000_000, 1e-10, ((4096, 1, 8.0), (65_536, 1, 2.0))),
)

Row = list[str]


def settings() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every setting's name and the arguments of `calibrate_noise`."""
    for name, size, delta, runs in TASKS:
        for batch, epochs, epsilon in runs:
            words = f"{name} B={batch} E={epochs:g} ε={epsilon:g}"
            yield (
                words,
                {
                    "dataset_size": size,
                    "batch_size": batch,
                    "epochs": epochs,
                    "epsilon": epsilon,
                    "delta": delta,
                },
            )


def peer_noise(plan: Calibration, arguments: dict[str, Any], *, accountant: str) -> float:
    """dp-accounting's own calibration of the same run, within 1e-4 of σ."""
    import dp_accounting
    from dp_accounting import pld, rdp

    def event(sigma: float) -> dp_accounting.DpEvent:
        step = dp_accounting.PoissonSampledDpEvent(
            plan.sample_rate, dp_accounting.GaussianDpEvent(sigma)
        )
        return dp_accounting.SelfComposedDpEvent(step, plan.steps)

    fresh = {"PLD": pld.PLDAccountant, "RDP": rdp.RdpAccountant}[accountant]
    return float(
        dp_accounting.calibrate_dp_mechanism(
            fresh,
            event,
            arguments["epsilon"],
            arguments["delta"],
            dp_accounting.ExplicitBracketInterval(0.25, 20.0),
            tol=1e-4,
        )
    )


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What `call` returns, and its milliseconds."""
    start = time.perf_counter()
    found = call()
    return found, 1000 * (time.perf_counter() - start)


def import_cost(code: str) -> float:
    """Median milliseconds of running `code` in a fresh interpreter, over an empty one."""

    def run(text: str) -> float:
        return timed(lambda: subprocess.run([sys.executable, "-c", text], check=True))[1]

    return statistics.median(run(code) - run("pass") for _ in range(5))


def show(columns: Row, rows: list[Row]) -> None:
    """Plain text, columns aligned: names to the left, numbers to the right."""
    widths = [max(len(row[at]) for row in [columns, *rows]) for at in range(len(columns))]
    for row in [columns, *rows]:
        first, *others = (cell.ljust(w) if not at else cell.rjust(w) for at, (cell, w) in enumerate(zip(row, widths, strict=True)))  # fmt: skip # noqa: E501
        print("  ".join([first, *others]), flush=True)


def surely_needed(plan: Calibration, arguments: dict[str, Any]) -> bool:
    """Whether 0.05% less noise is certainly too little: its certified lower bound on ε says so."""
    less = calibrate_epsilon(
        dataset_size=arguments["dataset_size"],
        batch_size=arguments["batch_size"],
        noise_multiplier=plan.noise_multiplier * (1 - 5e-4),
        steps=plan.steps,
        delta=arguments["delta"],
    ).guarantee
    return less.epsilon - less.slack > arguments["epsilon"]


def our_rows() -> tuple[list[Row], list[float], int]:
    """Ours on every setting: σ, milliseconds, and how far below ε a certified bound lies.

    Then all milliseconds, and for how many settings σ is within 0.05% of the least there is.
    """
    rows, spent, tight = [], [], 0
    for name, arguments in settings():
        plan, elapsed = timed(lambda arguments=arguments: calibrate_noise(**arguments))
        spent.append(elapsed)
        slack = plan.guarantee.slack / plan.guarantee.epsilon
        rows.append([name, f"{plan.noise_multiplier:.6g}", f"{elapsed:.1f}", f"{100 * slack:.4f}"])
        tight += surely_needed(plan, arguments)
    return rows, spent, tight


def peer_rows(count: int) -> list[Row]:
    """The first settings of different tasks against both accountants."""
    chosen = [next(each for each in settings() if each[0].startswith(task[0])) for task in TASKS]
    rows = []
    for name, arguments in chosen[:count]:
        plan, ours = timed(lambda arguments=arguments: calibrate_noise(**arguments))
        for accountant in ("PLD", "RDP"):
            sigma, theirs = timed(
                lambda p=plan, a=arguments, n=accountant: peer_noise(p, a, accountant=n)
            )
            rows.append(
                [
                    f"{name}, {accountant}",
                    f"{plan.noise_multiplier:.5f}",
                    f"{sigma:.5f}",
                    f"{sigma / plan.noise_multiplier:.4f}",
                    f"{ours:.1f}",
                    f"{theirs:.0f}",
                    f"{theirs / ours:.0f}",
                ]
            )
    return rows


def opake_rows(python: str, count: int) -> list[Row]:
    """The same settings against Opake's PLDs, under a Python that can import them."""
    chosen = [next(each for each in settings() if each[0].startswith(task[0])) for task in TASKS]
    ours: list[tuple[str, Calibration, float]] = []
    asked = []
    for name, arguments in chosen[:count]:
        start = time.process_time()
        plan = calibrate_noise(**arguments)
        ours.append((name, plan, 1000 * (time.process_time() - start)))
        run = {"sample_rate": plan.sample_rate, "steps": plan.steps}
        asked.append(run | {name: arguments[name] for name in ("epsilon", "delta")})
    script = str(Path(__file__).with_name("opake_accounting.py"))
    lines = "".join(json.dumps(run) + "\n" for run in asked)
    said = subprocess.run([python, script], input=lines, capture_output=True, text=True, check=True)
    rows = []
    for (name, plan, spent), line in zip(ours, said.stdout.splitlines(), strict=True):
        sigma, theirs = (json.loads(line)[key] for key in ("noise_multiplier", "milliseconds"))
        found = [f"{plan.noise_multiplier:.5f}", f"{sigma:.5f}"]
        found += [f"{sigma / plan.noise_multiplier:.4f}", f"{spent:.1f}", f"{theirs:.0f}"]
        rows.append([name, *found, f"{theirs / spent:.0f}"])
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=int, default=3, help="settings against dp-accounting")
    parser.add_argument("--opake", help="a Python that can import opake.accounting")
    given = parser.parse_args()
    peers = given.peers
    calibrate_noise(dataset_size=1000, batch_size=10, epochs=1, epsilon=8.0, delta=1e-5)
    rows, spent, tight = our_rows()
    show(["setting", "σ", "ms", "slack of ε, %"], rows)
    print(f"{len(spent)} settings: median {statistics.median(spent):.1f} ms, ", end="")
    print(f"worst {max(spent):.1f} ms; in {tight}, 0.05% less noise is certainly too little\n")
    show(
        ["against dp-accounting", "σ ours", "σ theirs", "ratio", "ms ours", "ms theirs", "ratio"],
        peer_rows(peers),
    )
    if given.opake:
        columns = ["σ ours", "σ theirs", "ratio", "ms ours", "ms theirs", "ratio"]
        print()
        show(["against Opake, processor time", *columns], opake_rows(given.opake, peers))
    print("\nimporting, ms beyond an empty interpreter")
    for code in (
        "import numpy",
        "import dpacc_accounting",
        "from dpacc_accounting import calibrate_noise",
        "import dp_accounting",
    ):
        print(f"  {code:45} {import_cost(code):7.0f}")
    print()
    for script in ("federation.py", "extremes.py"):
        subprocess.run([sys.executable, str(Path(__file__).with_name(script))], check=True)
        print()


if __name__ == "__main__":
    main()
