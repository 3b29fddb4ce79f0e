"""Write prv_reference.json: the interval of ε that prv-accountant proves for training runs.

    python -m venv prv && prv/bin/pip install prv-accountant==0.2.0
    prv/bin/python tests/accounting/pld/make_prv_reference.py

takes a few minutes on one core; settings that it cannot discretise are left out. It needs an
environment of its own, for nothing else here uses prv-accountant; its version is in the file.
"""

import importlib.metadata
import itertools
import json
import sys
from pathlib import Path

OUTPUT = Path(__file__).with_name("prv_reference.json")
# Sampling probability and steps: parts of an epoch to hundreds of epochs.
RUNS = ((0.5, 20), (0.1, 100), (0.02, 2000), (256 / 67_349, 789), (0.001, 10_000))
EPSILON_ERROR = 0.01


def interval(q: float, sigma: float, steps: int, delta: float) -> dict:
    """The setting, and the ε that it certainly has at least and at most."""
    from prv_accountant import PoissonSubsampledGaussianMechanism, PRVAccountant

    step = PoissonSubsampledGaussianMechanism(sampling_probability=q, noise_multiplier=sigma)
    accountant = PRVAccountant(
        prvs=[step],
        max_self_compositions=[steps],
        eps_error=EPSILON_ERROR,
        delta_error=1e-3 * delta,
    )
    low, _, high = accountant.compute_epsilon(delta, [steps])
    return {
        "probability": q,
        "noise_multiplier": sigma,
        "times": steps,
        "delta": delta,
        "low": low,
        "high": high,
    }


def main() -> None:
    """Compute every setting, and write them one a line under what made them."""
    made_by = {name: importlib.metadata.version(name) for name in ("prv-accountant", "numpy")}
    lines = []
    for (q, steps), sigma, delta in itertools.product(RUNS, (0.6, 0.8, 1.0, 3.0), (1e-7, 1e-5)):
        try:
            lines.append(json.dumps(interval(q, sigma, steps, delta)))
        except RuntimeError as error:
            print(f"left out {q}, {sigma}, {steps}, {delta}: {error}", file=sys.stderr)
    settings = ",\n".join(lines)
    OUTPUT.write_text(f'{{"made_by": {json.dumps(made_by)}, "settings": [\n{settings}\n]}}\n')


if __name__ == "__main__":
    main()
