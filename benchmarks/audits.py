"""Audits of the engine at several ε: what was claimed, and what canaries prove.

    python benchmarks/audits.py

A line carries out one plan with 10,000 Dirac canaries and a fresh secret. The last column is of
the same plan with a fifth of the noise taken away behind the engine's back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dpacc_accounting.guarantee import rounded_down

from dpacc.audit import Audit, rehearse
from dpacc.plan import PrivacyPlan
from dpacc.randomness import correlated_noise

CANARIES = 10_000
EPSILONS = (1.0, 2.0, 4.0, 8.0)
BOUNDS = ("whatever the mechanism", "if Gaussian", "if independent")
PLANS = {"all in every step": (CANARIES, 10), "a quarter, Poisson": (CANARIES // 4, 20)}


def main() -> None:
    """Print a line of Markdown for each plan."""
    heads = ["sampling", "claimed ε", *BOUNDS, "as it is", "with 0.8 of its noise"]
    print(f"| {' | '.join(heads)} |")
    print("|---" * len(heads) + "|")
    for sampling, (batch, steps) in PLANS.items():
        for epsilon in EPSILONS:
            print(line(sampling, plan_of(epsilon, batch, steps)), flush=True)


def plan_of(epsilon: float, batch: int, steps: int) -> PrivacyPlan:
    """A plan for nothing but canaries at δ = 10⁻⁵."""
    return PrivacyPlan.calibrate(
        dataset_size=CANARIES,
        expected_batch_size=batch,
        steps=steps,
        target_epsilon=epsilon,
        target_delta=1e-5,
        max_grad_norm=1.0,
    )


def line(sampling: str, plan: PrivacyPlan) -> str:
    """The honest engine's bounds and verdict, and the verdict on too little noise."""
    honest = rehearse(plan=plan)
    with noise_times(0.8):
        leaking = rehearse(plan=plan)
    bounds = [honest.epsilon, honest.gaussian_epsilon, honest.independent_epsilon or 0.0]
    cells = [sampling, f"{plan.target_epsilon:g}", *map(rounded_down, bounds)]
    return f"| {' | '.join([*cells, verdict(honest), verdict(leaking)])} |"


def verdict(audit: Audit) -> str:
    """One word."""
    return "refuted" if audit.refuted else "stands"


@contextmanager
def noise_times(share: float) -> Iterator[None]:
    """So much of the noise that the ledger charges for, behind the engine's back."""
    honest = correlated_noise.standard_normals
    correlated_noise.standard_normals = lambda **words: share * honest(**words)
    try:
        yield
    finally:
        correlated_noise.standard_normals = honest


if __name__ == "__main__":
    main()
