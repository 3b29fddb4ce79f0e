"""Hidden rounds of very many clients: Rényi bounds on the mixture of joining and not joining.

One round that a client joins with chance c is dominated by `c·PLD^E + (1 − c)·identity`. The Rényi
divergence of that mixture is known exactly,

    D_α(round) = ln(1 − c + c·e^((α − 1)·E·D_α(step))) / (α − 1),

so that thousands of clients take no longer than their steps' divergences, at whole orders α. It is
looser than composing the mixture's losses, which `epsilon` does for a few.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from dpacc_accounting.events.flattening import Release
from dpacc_accounting.federation.rounds import LocalRounds
from dpacc_accounting.guarantee import Adjacency, Guarantee
from dpacc_accounting.pld.dominating_pairs import Array

_ORDERS = np.unique(np.append(np.arange(2.0, 33.0), np.round(np.geomspace(32, 400, 20))))
_CHUNK = 2000

Steps = Mapping[tuple[float, float], Array]


def hidden_epsilons(
    *,
    schedules: Sequence[Sequence[LocalRounds]],
    delta: float,
    adjacency: Adjacency,
    unit: str = "example",
) -> list[Guarantee]:
    """An upper bound on ε of each of `schedules`, for whoever sees only the released models.

    Args:
        schedules: a client's rounds, each with its own participation and positive noise.
        delta: δ in (0, 1).
        adjacency: which datasets are neighbours.
        unit: whose data one unit is, for the record.

    Source: joint convexity, Balle, Barthe & Gaboardi 2018 (arXiv 1807.01647); the conversion is
    Canonne, Kamath & Steinke 2020 (arXiv 2004.00010), proposition 12.

    >>> part = LocalRounds(rounds=100, local_steps=20, sampling_probability=0.1,
    ...                    noise_multiplier=1.0, participation=0.05)
    >>> (found,) = hidden_epsilons(schedules=[[part]], delta=1e-5,
    ...                            adjacency=Adjacency.ADD_OR_REMOVE)
    >>> round(found.epsilon, 1)
    10.8
    """
    steps = _steps((part for parts in schedules for part in parts), adjacency)
    offset = np.log1p(-1 / _ORDERS) - (math.log(delta) + np.log(_ORDERS)) / (_ORDERS - 1)
    found = []
    for parts in schedules:
        total = offset.copy()
        for part in parts:
            total += _rounds(part, steps)
        spent = max(float(total.min()), 0.0)
        found.append(
            Guarantee(
                epsilon=spent,
                delta=delta,
                adjacency=adjacency,
                unit=unit,
                method="rdp",
                slack=spent,
            )
        )
    return found


def _rounds(part: LocalRounds, steps: Steps) -> Array:
    """Divergences of all rounds of `part` at `_ORDERS`."""
    chance, step = part.participation, steps[part.sampling_probability, part.noise_multiplier]
    if chance == 1:
        return part.rounds * part.local_steps * step
    exponent = (_ORDERS - 1) * part.local_steps * step
    small = np.log1p(chance * np.expm1(np.minimum(exponent, 1.0)))
    large = np.logaddexp(math.log1p(-chance), math.log(chance) + exponent)
    return np.asarray(part.rounds * np.where(exponent < 1, small, large) / (_ORDERS - 1))


def _steps(parts: Iterable[LocalRounds], adjacency: Adjacency) -> Steps:
    """Divergences of every different step."""
    kinds = [*dict.fromkeys((p.sampling_probability, p.noise_multiplier) for p in parts)]
    if adjacency is Adjacency.REPLACE_ONE:
        return {kind: _replaced(*kind) for kind in kinds}
    chunks = [np.array(kinds[at : at + _CHUNK]).T for at in range(0, len(kinds), _CHUNK)]
    rows = [row for q, sigma in chunks for row in _sampled(q, sigma)]
    return dict(zip(kinds, rows, strict=True))


def _replaced(q: float, sigma: float) -> Array:
    from dpacc_accounting.renyi.sampled_gaussian import renyi_divergence

    if q == 0:
        return np.zeros_like(_ORDERS)
    kind, adjacency = Release(q, sigma), Adjacency.REPLACE_ONE
    return np.array([renyi_divergence(release=kind, adjacency=adjacency, order=a) for a in _ORDERS])


def _sampled(q: Array, sigma: Array) -> Array:
    """`ln Σ_k C(α, k)(1 − q)^(α − k) q^k e^(k(k − 1)/2σ²) / (α − 1)`, a row for each step.

    Source: Mironov, Talwar & Zhang 2019 (arXiv 1908.10530), for add-or-remove adjacency.
    """
    found = np.empty((len(q), len(_ORDERS)))
    with np.errstate(divide="ignore"):
        log_in, log_out = np.log(q)[:, None], np.log1p(-q)[:, None]
    for at, order in enumerate(_ORDERS):
        k = np.arange(2.0, order + 1)
        log_choose = np.cumsum(np.log((order - k + 1) / k)) + math.log(order)
        growth = k * (k - 1) / (2 * sigma[:, None] ** 2)
        # Less 1 in all, so that a moment close to 1 keeps its digits; 0·ln 0 = 0 at k = α, q = 1.
        with np.errstate(invalid="ignore"):
            stay = np.where(order > k, (order - k) * log_out, 0.0)
            terms = log_choose + stay + k * log_in + growth + np.log(-np.expm1(-growth))
            peak = terms.max(axis=1, keepdims=True)
            log_sum = (peak + np.log(np.exp(terms - peak).sum(axis=1, keepdims=True)))[:, 0]
        log_sum = np.where(q > 0, log_sum, -np.inf)
        found[:, at] = np.logaddexp(0.0, log_sum) / (order - 1)
    return found
