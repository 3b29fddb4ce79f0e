"""What correlated noise would gain and take: rows of earlier noise, in memory on every rank."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from dpacc_accounting.factorization.banded import largest_step_noise, relative_error

from dpacc.plan import PrivacyPlan
from dpacc.recipe.assembly import plan_for, workload_of
from dpacc.recipe.config import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class EarlierNoise:
    """What `correlation: banded` comes to.

    Attributes:
        bands: b, as chosen or given; 1 where independent noise is best.
        left: root mean square of the noise in the run's own workload, over that of independent
            noise at the same ε.
        of_its_own: the same root mean square over that of independent noise of the same σ.
        largest_step: one step's largest noise, over that of independent noise.
        host_bytes: of host memory on each rank.
    """

    bands: int
    left: float
    of_its_own: float
    largest_step: float
    host_bytes: int

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


def earlier_noise(
    *, config: TrainingConfig, plan: PrivacyPlan, trainable: int
) -> EarlierNoise | None:
    """What the correlation that a configuration asks for comes to; None if it asks for none.

    Args:
        config: the run.
        plan: its plan.
        trainable: parameters, each of which gets noise.
    """
    workload = workload_of(config=config, dataset_size=plan.dataset_size)
    if workload is None:
        return None
    independent = plan_for(
        config=replace(config, correlation="none", bands=None), dataset_size=plan.dataset_size
    )
    scale = plan.noise_multiplier / independent.noise_multiplier
    coefficients = plan.noise_coefficients
    of_its_own = relative_error(workload=workload, coefficients=coefficients)
    grown = largest_step_noise(coefficients=coefficients, steps=plan.steps)
    return EarlierNoise(
        bands=plan.bands,
        left=scale * of_its_own,
        of_its_own=of_its_own,
        largest_step=scale * grown,
        host_bytes=row_bytes(plan=plan, trainable=trainable) * (rows_kept(bands=plan.bands) + 1),
    )


def rows_kept(*, bands: int) -> int:
    """Rows of noise that outlive their step: the last b − 1 and the newest, or none.

    What a release works on is one copy more.

    >>> rows_kept(bands=1), rows_kept(bands=8)
    (0, 8)
    """
    return bands if bands > 1 else 0


def row_bytes(*, plan: PrivacyPlan, trainable: int) -> int:
    """Of one step's noise in fp32, that of adaptive clipping's count among it."""
    return 4 * (trainable + (plan.clipping == "adaptive"))
