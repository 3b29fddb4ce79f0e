"""Price a federation of 10,000 clients that all differ, over 1,000 rounds.

    python benchmarks/federation.py

Prints the processor time a client of three ways: all clients in one array, one client at a time
between two certified bounds, and dp-accounting's PLD accountant; and how far the first lies above
the second. Then the same clients, each joining every round by a hidden coin of its own. Times are
of this process; ratios are of one run.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from typing import Any

from dpacc_accounting import Event, epsilon, price_federation, read_federation

CLIENTS, ALONE, PEER = 10_000, 100, 5
DELTA = 1e-6


def main() -> None:
    """Time the three ways and print the table."""
    federation = read_federation(document=_federation(random.Random(1)))
    events = [client.schedule[0].as_joined for client in federation.clients]
    together, found = _timed(lambda: price_federation(federation=federation))
    alone, tight = _timed(lambda: [epsilon(event=e, delta=DELTA).epsilon for e in events[:ALONE]])
    peer, _ = _timed(lambda: [_dp_accounting(event) for event in events[:PEER]])
    bounds = [price.server.epsilon for price in found.prices[:ALONE]]
    excess = [bound / exact - 1 for bound, exact in zip(bounds, tight, strict=True)]
    print(f"{CLIENTS:,} different clients, up to 1,000 rounds: {together:.1f} s of processor time")
    print(f"{'':24}{'ms a client':>12}{'times as long':>15}")
    for name, seconds in (
        ("together", together / CLIENTS),
        ("one at a time", alone / ALONE),
        ("dp-accounting PLD", peer / PEER),
    ):
        print(f"{name:24}{1000 * seconds:12.2f}{seconds / (together / CLIENTS):15.1f}")
    print(
        f"above the tight ε: {statistics.median(excess):.2%} typically, {max(excess):.2%} at most"
    )
    coins = read_federation(document=_federation(random.Random(1), hidden=True))
    behind, _ = _timed(lambda: price_federation(federation=coins))
    print(f"behind hidden coins, both views: {behind:.1f} s of processor time")


def _federation(draw: random.Random, *, hidden: bool = False) -> dict[str, Any]:
    clients = [
        {
            "name": f"client {k}",
            "dataset_size": draw.randint(500, 50_000),
            "batch_size": draw.choice([16, 32, 64, 128]),
            "rounds": draw.randint(1, 1000),
            "noise_multiplier": draw.uniform(0.6, 2.0),
            "participation": draw.uniform(0.05, 0.5) if hidden else 1,
        }
        for k in range(CLIENTS)
    ]
    return {"level": "example", "delta": DELTA, "clients": clients}


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def _dp_accounting(event: Event) -> float:
    from dp_accounting import dp_event
    from dp_accounting.pld import PLDAccountant

    step = event.event
    noise = dp_event.GaussianDpEvent(step.event.noise_multiplier)
    accountant = PLDAccountant()
    accountant.compose(dp_event.PoissonSampledDpEvent(step.probability, noise), event.times)
    return float(accountant.get_epsilon(DELTA))


if __name__ == "__main__":
    import dp_accounting.pld  # noqa: F401 - importing it is not what is timed

    main()
