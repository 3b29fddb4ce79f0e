"""Calibrate and price the far corners of what the accountant takes: nothing hangs or fills memory.

    python benchmarks/extremes.py

Prints, for both adjacencies, how long the calibrations and prices took (processor time, warm), the
five slowest, and the peak memory. What cannot be answered is refused in one line, and counted.
"""

from __future__ import annotations

import itertools
import resource
import statistics
import time
from collections.abc import Callable, Iterator

from dpacc_accounting import Adjacency, Calibration, Guarantee
from dpacc_accounting import epsilon as price
from dpacc_accounting.calibration.noise import noise_within
from dpacc_accounting.calibration.training_runs import training

SIZE = 10**8
STEPS = (1, 1000, 10**7)
DELTAS = (1e-12, 1e-5, 0.1)

Setting = tuple[str, Callable[[Adjacency], Calibration | Guarantee]]


def calibrations() -> Iterator[Setting]:
    """Noise for q from 1e-7 to 1, T to 10⁷, δ from 1e-12 to 0.1 and ε from 0.01 to 1000."""
    batches = (10, 10_000, 1_000_000, SIZE // 2, SIZE)
    for batch, steps, delta, epsilon in itertools.product(
        batches, STEPS, DELTAS, (0.01, 1.0, 1000.0)
    ):
        yield (
            f"q={batch / SIZE:g} T={steps:g} δ={delta:g} ε={epsilon:g}",
            lambda adjacency, b=batch, t=steps, d=delta, e=epsilon: noise_within(
                dataset_size=SIZE, batch_size=b, steps=t, epsilon=e, delta=d, adjacency=adjacency
            ),
        )


def prices() -> Iterator[Setting]:
    """ε for σ from 0.05 to 100, q from 1e-7 to 1, T to 10⁷ and δ from 1e-12 to 0.1."""
    for sigma, rate, steps, delta in itertools.product(
        (0.05, 0.3, 1.0, 100.0), (1e-7, 1e-4, 1e-2, 0.5, 1.0), STEPS, DELTAS
    ):
        yield (
            f"σ={sigma:g} q={rate:g} T={steps:g} δ={delta:g}",
            lambda adjacency, s=sigma, q=rate, t=steps, d=delta: price(
                event=training(rate=q, noise_multiplier=s, steps=t), delta=d, adjacency=adjacency
            ),
        )


def measured(setting: Setting, adjacency: Adjacency) -> tuple[float, str, str]:
    """Seconds, the setting's name, and the answer in a word or two."""
    name, ask = setting
    start = time.process_time()
    try:
        found = ask(adjacency)
        if isinstance(found, Calibration):
            answer = f"σ={found.noise_multiplier:.6g} ε={found.guarantee.epsilon:.6g}"
        else:
            answer = f"ε={found.epsilon:.6g}"
    except ValueError as error:
        answer = f"refused: {error}"
    return time.process_time() - start, name, answer


def report(title: str, settings: list[Setting], adjacency: Adjacency) -> None:
    """Time every setting and print the summary."""
    rows = sorted((measured(setting, adjacency) for setting in settings), reverse=True)
    spent = [row[0] for row in rows]
    refused = sum(answer.startswith("refused") for _, _, answer in rows)
    print(
        f"{len(rows)} {title}, {adjacency.value}: median {1000 * statistics.median(spent):.1f} ms, "
        f"{sum(each > 0.5 for each in spent)} above 0.5 s, worst {spent[0]:.1f} s, "
        f"{refused} refused"
    )
    for seconds, name, answer in rows[:5]:
        print(f"  {seconds:5.1f} s  {name:36} {answer}")


def main() -> None:
    """Both tables for both adjacencies, and the peak memory."""
    noise_within(dataset_size=1000, batch_size=10, epochs=1, epsilon=8.0, delta=1e-5)
    for adjacency in Adjacency:
        report("calibrations", list(calibrations()), adjacency)
        report("prices", list(prices()), adjacency)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:.0f} MB")


if __name__ == "__main__":
    main()
