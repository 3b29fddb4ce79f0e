"""What robust rules make of updates that are mostly noise, by a simulation of two hostile clients in ten.

    python benchmarks/robust_rules.py

Each honest client's update is s·u + noise: u of length 1 is what all have learned, s the signal/noise, and the
noise of length about 1 is its own. Hostile ones push across (along w, at a right angle to u) or back. A cell is how
much of u is kept, as a share of s, and how far the mean goes along w, both over eight draws, with the standard
error of the former. It is a simulation of the rules alone: nothing is trained, and no client has a ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpacc.federated.aggregation.averaging import ffa
from dpacc.federated.aggregation.robust import Defence, defended

RULES: tuple[Any, ...] = ("none", "krum", "multi-krum", "median", "trimmed-mean", "clipped-mean")
SIGNALS = (0.1, 0.3, 1.0)
CLIENTS, HOSTILE, NUMBERS, DRAWS = 10, 2, 20_000, 8

Vector = NDArray[np.float64]
Push = Callable[[float, Vector, Vector, Vector], Vector]

ATTACKS: dict[str, Push] = {
    "push across by 0.3, without noise of their own": lambda s, u, w, noise: 0.3 * w + 0 * noise,
    "push back by 0.3, without noise of their own": lambda s, u, w, noise: -0.3 * u + 0 * noise,
    "flip the signs of what they learned": lambda s, u, w, noise: -s * u - noise,
    "push back by 3s, in noise of their own": lambda s, u, w, noise: -3 * s * u + noise,
    "push across by 3s, in noise of their own": lambda s, u, w, noise: 3 * s * w + noise,
}


def main() -> None:
    """One table for each attack."""
    for attack, push in ATTACKS.items():
        print(f"\nTwo of ten {attack}:\n")
        for part in ("kept", "across"):
            print(f"| rule | {' | '.join(f'{part} at {signal:g}' for signal in SIGNALS)} |")
            print(f"|---|{'---|' * len(SIGNALS)}")
            for rule in RULES:
                print(f"| {rule} | {' | '.join(cell(rule, push, s, part) for s in SIGNALS)} |")


def cell(rule: Any, push: Push, signal: float, part: str) -> str:
    """A mean over draws, the same ones for all rules, with its standard error."""
    found = [trial(rule, push, signal, np.random.default_rng(seed))[part] for seed in range(DRAWS)]
    return f"{np.mean(found):.2f} ± {np.std(found, ddof=1) / np.sqrt(DRAWS):.2f}"


def trial(rule: Any, push: Push, signal: float, draw: np.random.Generator) -> dict[str, float]:
    """One round under a rule."""
    u, w = np.linalg.qr(draw.normal(size=(NUMBERS, 2)))[0].T
    noise = draw.normal(size=(CLIENTS, NUMBERS)) / np.sqrt(NUMBERS)
    updates = signal * u + noise
    for at in range(HOSTILE):
        updates[at] = push(signal, u, w, noise[at])
    start = {"B": np.zeros(NUMBERS, np.float32)}
    sent = {str(at): {"B": each.astype(np.float32)} for at, each in enumerate(updates)}
    mean = defended(Defence(rule=rule, attackers=HOSTILE), ffa)(start, sent).arrays["B"]
    return {"kept": float(mean @ u) / signal, "across": float(mean @ w) / signal}


if __name__ == "__main__":
    main()
