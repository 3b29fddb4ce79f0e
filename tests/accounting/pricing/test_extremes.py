"""The far corners of the parameter space neither hang nor fill the memory.

`benchmarks/extremes.py` runs all of their 630 settings; here are a seeded few and the slowest one.
"""

import itertools
import json
import math
import random
import re
import subprocess
import sys
from pathlib import Path

from dpacc_accounting import Adjacency, Guarantee
from dpacc_accounting import epsilon as least_epsilon
from dpacc_accounting.calibration.noise import noise_within
from dpacc_accounting.calibration.training_runs import training

from tests.accounting.work import counted_work

SIZE = 10**8
STEPS, DELTAS = (1, 1000, 10**7), (1e-12, 1e-5, 0.1)
TO_CALIBRATE = [
    {"batch_size": batch, "steps": steps, "delta": delta, "epsilon": epsilon}
    for batch, steps, delta, epsilon in itertools.product(
        (10, 10_000, 10**6, SIZE // 2, SIZE), STEPS, DELTAS, (0.01, 1.0, 1000.0)
    )
]
TO_PRICE = [
    {"batch_size": batch, "steps": steps, "delta": delta, "noise_multiplier": sigma}
    for batch, steps, delta, sigma in itertools.product(
        (10, 10_000, 10**6, SIZE // 2, SIZE), STEPS, DELTAS, (0.05, 0.3, 1.0, 100.0)
    )
]
SLOWEST = {"batch_size": 10, "steps": 10**7, "delta": 1e-5, "epsilon": 0.01}


def price(
    *,
    dataset_size: int,
    batch_size: int,
    steps: int,
    noise_multiplier: float,
    delta: float,
    adjacency: Adjacency,
) -> Guarantee:
    """ε of a training run at any δ."""
    event = training(rate=batch_size / dataset_size, noise_multiplier=noise_multiplier, steps=steps)
    return least_epsilon(event=event, delta=delta, adjacency=adjacency)


def run_sample() -> None:
    """Answer a seeded sample, and print its answers, the most work and the peak memory."""
    draw, answers, most = random.Random(11), [], 0
    some = [*draw.sample(TO_CALIBRATE, 7), SLOWEST, *draw.sample(TO_PRICE, 7)]
    for setting in some:
        ask = noise_within if "epsilon" in setting else price
        with counted_work() as work:
            try:
                adjacency = draw.choice(list(Adjacency))
                found = ask(dataset_size=SIZE, adjacency=adjacency, **setting)
                found = getattr(found, "guarantee", found)
                answers.append([setting, found.epsilon, found.slack])
            except ValueError as error:
                answers.append([setting, str(error), None])
        most = max(most, work.points)
    # Not `ru_maxrss`, which a process takes over from the one that started it.
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(json.dumps({"answers": answers, "most": most, "peak": int(peak) / 1024}))


def test_corners_are_answered_or_refused_with_bounded_work_and_memory():
    """Every corner gets a certified ε within its target, or one line with a remedy."""
    code = f"import runpy; runpy.run_path({__file__!r})['run_sample']()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=1200,
        check=True,
    )
    told = json.loads(done.stdout)
    assert not done.stderr
    assert len(told["answers"]) == 15
    for setting, epsilon, slack in told["answers"]:
        if isinstance(epsilon, str):
            assert "choose delta below" in epsilon
            assert "\n" not in epsilon
        else:
            assert 0 <= slack <= epsilon <= setting.get("epsilon", math.inf)
            assert math.isfinite(epsilon)
    assert sum(isinstance(answer[1], float) for answer in told["answers"]) >= 10
    assert told["most"] < 400_000_000
    assert told["peak"] < 1024
