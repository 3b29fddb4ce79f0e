"""What robust rules make of updates that are mostly noise: two hostile clients in ten, simulated.

    python benchmarks/robust_rules.py

Each honest client's update is s·u + noise: u of length 1 is what all have learned, s the
signal/noise, and the noise of length about 1 is its own. Hostile ones push across (along w, at a
right angle to u) or back. A cell is how much of u is kept, as a share of s, and how far the mean
goes along w, both over eight draws, which are the same for all rules, with standard errors. Nothing
is trained, and no client has a ledger.
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
    heads = [f"{part} at {signal:g}" for signal in SIGNALS for part in ("kept", "across")]
    for attack, push in ATTACKS.items():
        print(f"\nTwo of ten {attack}:\n\n| rule | {' | '.join(heads)} |")
        print(f"|---|{'---|' * len(heads)}")
        for rule in RULES:
            cells = [cell for signal in SIGNALS for cell in worth(rule, push, signal)]
            print(f"| {rule} | {' | '.join(cells)} |", flush=True)


def worth(rule: Any, push: Push, signal: float) -> list[str]:
    """What is kept and what goes across: means over draws, with their standard errors."""
    found = [trial(rule, push, signal, np.random.default_rng(seed)) for seed in range(DRAWS)]
    errors = np.std(found, axis=0, ddof=1) / np.sqrt(DRAWS)
    return [f"{m:.2f} ± {e:.2f}" for m, e in zip(np.mean(found, axis=0), errors, strict=True)]


def trial(rule: Any, push: Push, signal: float, draw: np.random.Generator) -> list[float]:
    """One round under a rule."""
    u, w = np.linalg.qr(draw.normal(size=(NUMBERS, 2)))[0].T
    noise = draw.normal(size=(CLIENTS, NUMBERS)) / np.sqrt(NUMBERS)
    updates = signal * u + noise
    for at in range(HOSTILE):
        updates[at] = push(signal, u, w, noise[at])
    start = {"B": np.zeros(NUMBERS, np.float32)}
    sent = {str(at): {"B": each.astype(np.float32)} for at, each in enumerate(updates)}
    mean = defended(Defence(rule=rule, attackers=HOSTILE), ffa)(start, sent).arrays["B"]
    return [float(mean @ u) / signal, float(mean @ w) / signal]


if __name__ == "__main__":
    main()
