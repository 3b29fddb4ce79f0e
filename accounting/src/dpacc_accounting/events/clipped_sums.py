"""Sums of clipped gradients under Gaussian noise, alone or beside a count of what was clipped.

In adaptive clipping the norm follows a quantile of the gradients' norms. Each step releases, from
the same batch, the clipped sum with noise of standard deviation σ_g·C, and Σ (b_i − ½), b_i telling
whether norm i is below C, with noise σ_b. One unit moves the first by C and the second by ½
(replacing it: 2C and 1). Divided by their noises they are one vector that moves by
`√(σ_g⁻² + (2σ_b)⁻²)`: one Gaussian of noise multiplier

    σ = (σ_g⁻² + (2σ_b)⁻²)^(−1/2)

Source: Andrew, Thakkar, McMahan & Ramaswamy 2019 (arXiv 1905.03871), theorem 1.

A unit may also move one sum by an amount that chance decides, as where it is drawn several times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dpacc_accounting.events.arguments import require_noise
from dpacc_accounting.events.fields import AnyEvent, listed, real


def joint_noise_multiplier(*, sum_noise_multiplier: float, count_noise: float) -> float:
    """σ = (σ_g⁻² + (2σ_b)⁻²)^(−1/2) of the sum and the count together; 0 where either has no noise.

    Args:
        sum_noise_multiplier: σ_g >= 0, the noise on the clipped sum divided by C.
        count_noise: σ_b >= 0, the standard deviation of the noise on the count.

    Raises:
        ValueError: a noise is no finite number >= 0.

    Source: Andrew et al. 2019 (arXiv 1905.03871), theorem 1.

    >>> round(joint_noise_multiplier(sum_noise_multiplier=5.0, count_noise=1.875), 12)
    3.0
    """
    sum_noise_multiplier = require_noise("sum_noise_multiplier", sum_noise_multiplier)
    count_noise = require_noise("count_noise", count_noise)
    if min(sum_noise_multiplier, count_noise) == 0:
        return 0.0
    return 1 / math.hypot(1 / sum_noise_multiplier, 1 / (2 * count_noise))


def sum_noise_multiplier(*, joint_noise_multiplier: float, count_noise: float) -> float:
    """σ_g that the sum needs, so that it and the count together are a Gaussian of multiplier σ.

    Args:
        joint_noise_multiplier: σ >= 0; 0 asks for none.
        count_noise: σ_b > σ/2.

    Raises:
        ValueError: as above, or σ_b is at most σ/2, where the count alone costs more than both may.

    Source: as for `joint_noise_multiplier`.

    >>> round(sum_noise_multiplier(joint_noise_multiplier=3.0, count_noise=1.875), 12)
    5.0
    """
    sigma = require_noise("joint_noise_multiplier", joint_noise_multiplier)
    count_noise = require_noise("count_noise", count_noise)
    if sigma == 0:
        return 0.0
    if 2 * count_noise <= sigma:
        raise ValueError(
            f"count_noise={count_noise} is at most half of joint_noise_multiplier={sigma}, so the "
            "count alone spends the budget; raise count_noise"
        )
    return sigma / math.sqrt(1 - (sigma / (2 * count_noise)) ** 2)


@dataclass(frozen=True, kw_only=True)
class Gaussian(AnyEvent):
    """One release of a clipped sum with Gaussian noise: `sum + N(0, (noise_multiplier·C)²)`.

    Args:
        noise_multiplier: σ, the standard deviation of the noise divided by the clipping norm C
            (dimensionless). 0 means that nothing protects the sum: its ε is infinite.

    Raises:
        ValueError: σ is negative, NaN or infinite.

    Source: Dwork & Roth, The Algorithmic Foundations of Differential Privacy, appendix A.

    >>> Gaussian(noise_multiplier=1.1)
    Gaussian(noise_multiplier=1.1)
    """

    noise_multiplier: float

    def __post_init__(self) -> None:
        _keep_noise(self, "noise_multiplier")


@dataclass(frozen=True, kw_only=True)
class AdaptivelyClipped(AnyEvent):
    """One release of a clipped sum, and of how many norms lay below C, from the same batch.

    The count is Σ (b_i − ½), b_i telling whether norm i is below C. Together they are one Gaussian.

    Args:
        noise_multiplier: σ_g, the standard deviation of the noise on the sum divided by C.
        count_noise: σ_b, the standard deviation of the noise on the count.

    Raises:
        ValueError: either is negative, NaN or infinite.

    Source: Andrew, Thakkar, McMahan & Ramaswamy 2019 (arXiv 1905.03871), theorem 1.

    >>> round(AdaptivelyClipped(noise_multiplier=5.0, count_noise=1.875).joint_noise_multiplier, 6)
    3.0
    """

    noise_multiplier: float
    count_noise: float

    def __post_init__(self) -> None:
        _keep_noise(self, "noise_multiplier")
        _keep_noise(self, "count_noise")

    @property
    def joint_noise_multiplier(self) -> float:
        """σ = (σ_g⁻² + (2σ_b)⁻²)^(−1/2), of the one Gaussian that both releases are."""
        return joint_noise_multiplier(
            sum_noise_multiplier=self.noise_multiplier, count_noise=self.count_noise
        )


@dataclass(frozen=True, kw_only=True)
class MixtureOfGaussians(AnyEvent):
    """One release of a sum that a unit moves by a random amount, with Gaussian noise.

    With chance `weights[i]` the unit moves the sum by up to `sensitivities[i]`·C, in any direction;
    the draw does not depend on the data, and nobody but the mechanism sees it. A Poisson sample is
    the case of 0 and 1. Under replace-one adjacency the draw counts as seen: safe, not tight.

    Args:
        noise_multiplier: σ, the standard deviation of the noise divided by the clipping norm C.
        weights: the chance of each amount, >= 0; they add up to 1 and are divided by their sum.
        sensitivities: the amounts over C, finite and >= 0.

    Raises:
        ValueError: a number is out of range, or there are not as many amounts as weights.

    Source: Choquette-Choo, Ganesh, Steinke & Thakurta 2023 (arXiv 2310.15526).

    >>> MixtureOfGaussians(noise_multiplier=1, weights=(0.5, 0.5), sensitivities=(0, 2)).amounts
    {2.0: 0.5}
    """

    noise_multiplier: float
    weights: tuple[float, ...]
    sensitivities: tuple[float, ...]

    def __post_init__(self) -> None:
        _keep_noise(self, "noise_multiplier")
        for name in ("weights", "sensitivities"):
            numbers = tuple(real(n, name=name) for n in listed(getattr(self, name), name=name))
            if not all(0 <= number < math.inf for number in numbers):
                raise ValueError(f"{name}={numbers} are not all finite numbers >= 0")
            object.__setattr__(self, name, numbers)
        if len(self.weights) != len(self.sensitivities):
            raise ValueError(
                f"MixtureOfGaussians has {len(self.weights)} weights for "
                f"{len(self.sensitivities)} sensitivities; give each amount its chance"
            )
        if not abs(math.fsum(self.weights) - 1) <= 1e-9:
            raise ValueError(
                f"weights={self.weights} do not add up to 1; for a unit that may be left out, add "
                "a sensitivity of 0 with the chance that is missing"
            )

    @property
    def amounts(self) -> dict[float, float]:
        """Every amount above 0 that may come, ascending, and how likely it is."""
        total = math.fsum(self.weights)
        found: dict[float, float] = {}
        for size, weight in sorted(zip(self.sensitivities, self.weights, strict=True)):
            if size > 0 and weight > 0:
                found[size] = min(found.get(size, 0.0) + weight / total, 1.0)
        return found


ClippedSum = AdaptivelyClipped | MixtureOfGaussians


def _keep_noise(event: Gaussian | ClippedSum, name: str) -> None:
    sigma = real(getattr(event, name), name=name)
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(
            f"{name}={sigma} is not a finite number >= 0; give the standard deviation of the "
            "noise divided by the clipping norm (of a count: as it is), such as 1.0"
        )
    object.__setattr__(event, name, sigma)
