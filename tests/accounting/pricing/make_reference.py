"""Write reference.json: ε of random sampled-Gaussian runs by dp-accounting's PLD.

    .venv/bin/python tests/accounting/pricing/make_reference.py

takes about half an hour on one core with dp-accounting 0.6.0; values that are there already are
kept, so delete the file to compute all of them. Each setting's grid is halved until the pessimistic
ε moves by less than 1e-4 of itself, or the distribution outgrows `LARGEST`; such a setting is
marked unsettled, because its own grid then limits the comparison.
"""

import json
import logging
import math
import random
import sys
from pathlib import Path

from dp_accounting.pld import privacy_loss_distribution

SETTINGS = 520
LARGEST = 2_000_000
OUTPUT = Path(__file__).with_name("reference.json")


def settings(count: int) -> list[dict]:
    """Log-uniform settings over the ranges that training uses."""
    draw = random.Random(2026)

    def between(low: float, high: float) -> float:
        return float(f"{math.exp(draw.uniform(math.log(low), math.log(high))):.4g}")

    return [
        {
            "noise_multiplier": between(0.3, 20),
            "probability": between(1e-5, 1),
            "times": int(between(1, 1e6)),
            "delta": between(1e-10, 1e-3),
        }
        for _ in range(count)
    ]


def distribution(setting: dict, *, step: float, pessimistic: bool):
    """dp-accounting's privacy loss distribution of the whole run on a grid of `step`."""
    once = privacy_loss_distribution.from_gaussian_mechanism(
        setting["noise_multiplier"],
        sampling_prob=setting["probability"],
        pessimistic_estimate=pessimistic,
        value_discretization_interval=step,
        use_connect_dots=pessimistic,
        log_mass_truncation_bound=-80,
    )
    return once.self_compose(setting["times"]) if setting["times"] > 1 else once


def reference(setting: dict) -> dict:
    """The setting with its pessimistic and optimistic ε on the finest grid tried."""
    sigma, q, delta = setting["noise_multiplier"], setting["probability"], setting["delta"]
    step = 0.2 * q * math.sqrt(math.expm1(1 / sigma**2))
    largest_loss = (1 + 13 * sigma) / sigma**2
    step = max(step, largest_loss / LARGEST)
    before, settled = math.inf, False
    while True:
        epsilon = distribution(setting, step=step, pessimistic=True).get_epsilon_for_delta(delta)
        settled = before == epsilon or before - epsilon < 1e-4 * epsilon
        if settled or largest_loss / step > LARGEST:
            break
        before, step = epsilon, step / 2
    optimistic = distribution(setting, step=step, pessimistic=False).get_epsilon_for_delta(delta)
    return setting | {
        "step": step,
        "settled": settled,
        "pessimistic": epsilon,
        "optimistic": optimistic,
    }


def main() -> None:
    """Write the reference values, one setting a line."""
    logging.disable(logging.WARNING)
    known = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else []
    lines = []
    for number, setting in enumerate(settings(SETTINGS), 1):
        kept = [each for each in known if setting.items() <= each.items()]
        lines.append(json.dumps(kept[0] if kept else reference(setting)))
        print(f"{number}/{SETTINGS} {lines[-1]}", file=sys.stderr)
    OUTPUT.write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
