"""Write byzfl_reference.json: what byzfl 0.0.11 makes of a few random sets of vectors.

    pip install byzfl==0.0.11
    python tests/dpacc/federated/aggregation/make_byzfl_reference.py

byzfl counts one neighbour more than the paper's n − f − 2 in Krum, so it is asked for f + 1.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

SETS = ((5, 1, 7), (9, 2, 20), (11, 4, 50))


def main() -> None:
    """One entry for each set."""
    from byzfl import Krum, Median, TrMean

    found = []
    for clients, attackers, width in SETS:
        vectors = np.random.default_rng(clients).normal(size=(clients, width))
        vectors[:attackers] += 3.0
        found.append(
            {
                "attackers": attackers,
                "vectors": vectors.tolist(),
                "krum": Krum(f=attackers + 1)(vectors).tolist(),
                "median": Median()(vectors).tolist(),
                "trimmed-mean": TrMean(f=attackers)(vectors).tolist(),
            }
        )
    Path(__file__).with_name("byzfl_reference.json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
