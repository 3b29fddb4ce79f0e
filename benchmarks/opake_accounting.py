"""Opake's calibration of runs, one JSON object a line of stdin: σ, and milliseconds when warm.

Runs under any Python that can import `opake.accounting`, and needs `opake-accounting==0.16.1` alone
(no torch): it fails on CPython 3.11.7 and 3.12.1, and works on 3.13.0. Milliseconds are
processor time. Started by `benchmarks/accounting.py --opake PYTHON`.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import opake.accounting
from opake.api.accounting.dpsgd import gaussian, poisson


def calibrated(*, sample_rate: float, steps: int, epsilon: float, delta: float) -> float:
    """σ of T Poisson-sampled Gaussian steps."""

    def process(noise: float) -> Any:
        return poisson(gaussian(noise), sample_rate=sample_rate) * steps

    budget = opake.accounting.epsilon_budget(epsilon, delta=delta)
    found = opake.accounting.calibrate(budget, process, param_min=0.25, param_max=20.0)
    return float(found.param)


def main() -> None:
    """Answer each line, the first one twice: it also warms up."""
    runs = [json.loads(line) for line in sys.stdin]
    calibrated(**runs[0])
    for run in runs:
        start = time.process_time()
        noise = calibrated(**run)
        milliseconds = 1000 * (time.process_time() - start)
        print(json.dumps({"noise_multiplier": noise, "milliseconds": milliseconds}), flush=True)


if __name__ == "__main__":
    main()
