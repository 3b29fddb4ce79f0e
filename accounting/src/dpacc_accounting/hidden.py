"""Rounds that a client joins by a hidden coin, with several sampled local steps in each.

One round is dominated by the mixture `c·PLD^E + (1 − c)·identity`: by joint convexity of the
hockey-stick divergence, showing the coin to the adversary can only help it. The Rényi divergence
of that mixture is known exactly,

    D_α(round) = ln(1 − c + c·e^((α − 1)·E·D_α(step))) / (α − 1),

so that it is priced here by Rényi divergence; ε is an upper bound without a lower one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from dpacc_accounting.composition import Release
from dpacc_accounting.guarantee import Adjacency, Guarantee
from dpacc_accounting.pairs import Array
from dpacc_accounting.rounds import LocalRounds

# Fractional orders while they are cheap, whole ones beyond, where moments are finite sums.
_ORDERS: Array = np.unique(
    np.concatenate([1 + np.geomspace(0.02, 19, 40), np.round(np.geomspace(20, 2000, 60))])
)


def hidden_epsilon(
    *, rounds: Sequence[LocalRounds], delta: float, adjacency: Adjacency, unit: str = "example"
) -> Guarantee:
    """ε of `rounds`, all of them composed, for whoever sees only the released models.

    Args:
        rounds: each with its own participation; 1 means that the rounds are known to be joined.
        delta: δ in (0, 1).
        adjacency: which datasets are neighbours.
        unit: whose data one unit is, for the record.

    Source: joint convexity, Balle, Barthe & Gaboardi 2018 (arXiv 1807.01647); the conversion is
    Canonne, Kamath & Steinke 2020 (arXiv 2004.00010), proposition 12.

    >>> part = LocalRounds(rounds=100, local_steps=20, sampling_probability=0.1,
    ...                    noise_multiplier=1.0, participation=0.05)
    >>> found = hidden_epsilon(rounds=[part], delta=1e-5, adjacency=Adjacency.ADD_OR_REMOVE)
    >>> round(found.epsilon, 1)
    9.8
    """
    total = np.zeros_like(_ORDERS)
    for part in rounds:
        if part.rounds and part.local_steps and part.sampling_probability:
            total += part.rounds * _round(part, adjacency)
    bounds = total + np.log1p(-1 / _ORDERS) - (math.log(delta) + np.log(_ORDERS)) / (_ORDERS - 1)
    spent = max(float(bounds.min()), 0.0)
    return Guarantee(
        epsilon=spent, delta=delta, adjacency=adjacency, unit=unit, method="rdp", slack=spent
    )


def _round(part: LocalRounds, adjacency: Adjacency) -> Array:
    """Divergences of one round at `_ORDERS`."""
    if part.noise_multiplier == 0:
        return np.full_like(_ORDERS, math.inf)
    step = _step(part.sampling_probability, part.noise_multiplier, adjacency)
    exponent = (_ORDERS - 1) * part.local_steps * step
    chance = part.participation
    if chance == 1:
        return part.local_steps * step
    small = np.log1p(chance * np.expm1(np.minimum(exponent, 1.0)))
    large = np.logaddexp(math.log1p(-chance), math.log(chance) + exponent)
    return np.where(exponent < 1, small, large) / (_ORDERS - 1)


@lru_cache(maxsize=4096)
def _step(q: float, sigma: float, adjacency: Adjacency) -> Array:
    from dpacc_accounting.rdp import renyi_divergence

    release = Release(q, sigma)
    return np.array(
        [renyi_divergence(release=release, adjacency=adjacency, order=a) for a in _ORDERS]
    )
