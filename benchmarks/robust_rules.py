"""What robust rules make of updates that are mostly noise: two of eleven are hostile, simulated.

    python benchmarks/robust_rules.py

Each honest client's update is s·u + noise: u of length 1 is what all have learned, s the
signal/noise, and the noise of length about 1 is its own. Hostile ones push across (along w, at a
right angle to u) or back. A cell is how far the mean ends from s·u within the plane of u and w, as
a share of s, over four draws, which are the same for all rules; the last table has the worst of
each rule. `LEAST_SIGNAL` is where it first is no worse than "none", which has the tests of length
and angle alone. Nothing is trained, and no client has a ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpacc.federated.aggregation.averaging import ffa
from dpacc.federated.aggregation.robust import Defence, defended

RULES: tuple[Any, ...] = (
    "none", "krum", "multi-krum", "bulyan", "median", "trimmed-mean", "clipped-mean",
)  # fmt: skip
SIGNALS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)
CLIENTS, HOSTILE, NUMBERS, DRAWS = 11, 2, 20_000, 4

Vector = NDArray[np.float64]
Push = Callable[[float, Vector, Vector, Vector], Vector]

ATTACKS: dict[str, Push] = {
    "push across by 0.3, without noise of their own": lambda s, u, w, noise: 0.3 * w,
    "push across by 0.9, without noise of their own": lambda s, u, w, noise: s * u + 0.9 * w,
    "push back by 0.3, without noise of their own": lambda s, u, w, noise: -0.3 * u,
    "push back by 0.9, without noise of their own": lambda s, u, w, noise: -0.9 * u,
    "flip the signs of what they learned": lambda s, u, w, noise: -s * u - noise,
    "push back by 3s, in noise of their own": lambda s, u, w, noise: -3 * s * u + noise,
    "push across by 3s, in noise of their own": lambda s, u, w, noise: 3 * s * w + noise,
}


def main() -> None:
    """One table for each attack, and one of the worst."""
    worst = {rule: [0.0] * len(SIGNALS) for rule in RULES}
    for attack, push in ATTACKS.items():
        found = {rule: [error(rule, push, signal) for signal in SIGNALS] for rule in RULES}
        show(f"Two of eleven {attack}", found)
        worst = {
            rule: [max(pair) for pair in zip(worst[rule], found[rule], strict=True)]
            for rule in RULES
        }
    show("The worst of these", worst)


def show(title: str, found: dict[str, list[float]]) -> None:
    """A row for each rule."""
    print(f"\n{title}:\n\n| rule | {' | '.join(f's = {signal:g}' for signal in SIGNALS)} |")
    print(f"|---|{'---|' * len(SIGNALS)}")
    for rule, errors in found.items():
        print(f"| {rule} | {' | '.join(f'{each:.2f}' for each in errors)} |", flush=True)


def error(
    rule: Any, push: Push, signal: float, *, numbers: int = NUMBERS, draws: int = DRAWS
) -> float:
    """How far off a rule's result is within the plane of u and w, as a share of s."""
    found = [trial(rule, push, signal, numbers, np.random.default_rng(k)) for k in range(draws)]
    return float(np.mean(found))


def trial(rule: Any, push: Push, signal: float, numbers: int, draw: np.random.Generator) -> float:
    """One round under a rule."""
    u, w = np.linalg.qr(draw.normal(size=(numbers, 2)))[0].T
    noise = draw.normal(size=(CLIENTS, numbers)) / np.sqrt(numbers)
    updates = signal * u + noise
    for at in range(HOSTILE):
        updates[at] = push(signal, u, w, noise[at])
    start = {"B": np.zeros(numbers, np.float32)}
    sent = {str(at): {"B": each.astype(np.float32)} for at, each in enumerate(updates)}
    mean = defended(Defence(rule=rule, attackers=HOSTILE), ffa)(start, sent).arrays["B"]
    return float(np.hypot(mean @ u / signal - 1, mean @ w / signal))


if __name__ == "__main__":
    main()
