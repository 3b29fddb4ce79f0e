"""Adaptive clipping's two releases from one batch, as one Gaussian.

The clipping norm follows a quantile of the gradients' norms. Each step releases, from the same
batch, the clipped sum with noise of standard deviation σ_g·C, and Σ (b_i − ½), b_i telling whether
norm i is below C, with noise σ_b. One unit moves the first by C and the second by ½ (replacing it:
2C and 1). Divided by their noises they are one vector that moves by `√(σ_g⁻² + (2σ_b)⁻²)`: one
Gaussian of noise multiplier

    σ = (σ_g⁻² + (2σ_b)⁻²)^(−1/2)

Source: Andrew, Thakkar, McMahan & Ramaswamy 2019 (arXiv 1905.03871), theorem 1.
"""

from __future__ import annotations

import math

from dpacc_accounting.arguments import require_noise


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
