"""The output laws of one Gaussian sum that is moved by a random amount, as by a group of examples.

Of k examples, B ~ Binomial(k, q) take part, and together move the sum by at most B·C. In units of
the noise, with s = 1/σ, the worst case is that all pull the same way:

    removed:  P = Σ_b w_b·N(b·s, 1),  Q = N(0, 1)
    added:    P = N(0, 1),            Q = Σ_b w_b·N(−b·s, 1)

Raising B can only help the attacker, so that many values of B may be rounded up to a few. Any other
law of B >= 0, whole or not, has the same pairs.

Source: Ganesh 2024, Tight group-level DP guarantees for DP-SGD with sampling via mixture of
Gaussians mechanisms (arXiv 2401.10294); Choquette-Choo et al. 2023 (arXiv 2310.15526).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from dpacc_accounting.events.clipped_sums import MixtureOfGaussians
from dpacc_accounting.pld.dominating_pairs import Array, Pair, normal_cells

# More values of B than this are rounded up to so many.
_LEVELS = 64
# Values of B that are rarer than this are taken for the whole group.
_RARE = 1e-30
_NEWTON_STEPS = 60


@dataclass(frozen=True)
class GroupPair(Pair):
    """A dominating pair of one release, for a group.

    Args:
        numerator_weight: chance that any of the group takes part where P holds the group, else 0.
        denominator_weight: the same for Q.
        shift: the largest distance that the group can move the sum, k/σ.
        levels: the distances b·s, b > 0, ascending.
        weights: the chance of each.
    """

    levels: tuple[float, ...]
    weights: tuple[float, ...]

    def loss(self, z: Array) -> Array:
        """Privacy loss `ln dP/dQ` at output `z`."""
        return self._log_mixture(z) if self.numerator_weight else -self._log_mixture(-z)

    def output(self, loss: Array) -> Array:
        """The output whose privacy loss is `loss`; −inf or inf beyond the range of the loss."""
        return self._inverse(loss) if self.numerator_weight else -self._inverse(-loss)

    def numerator_density(self, z: Array) -> Array:
        """Density of P at `z`."""
        density = (1 - self.numerator_weight) * np.exp(-0.5 * z * z)
        if self.numerator_weight:
            for level, weight in zip(self.levels, self.weights, strict=True):
                density = density + weight * np.exp(-0.5 * (z - level) ** 2)
        return density / math.sqrt(2 * math.pi)

    def range_holding(self, *, outside: float) -> tuple[float, float]:
        """Outputs `(low, high)` with at most `outside` of P's mass beyond either."""
        reach = math.sqrt(2 * math.log(1 / outside))
        if not self.numerator_weight:
            return -reach, reach
        share = outside / (len(self.levels) + 1)
        tops = [math.sqrt(2 * math.log(1 / share))]
        left = share
        for level, weight in zip(self.levels[::-1], self.weights[::-1], strict=True):
            # The rarest levels together weigh less than their share, and need no room.
            if (left := left - weight) < 0:
                tops.append(level + math.sqrt(max(2 * math.log(weight / share), 0.0)))
        return -reach, max(tops)

    def cell_masses(self, edges: Array) -> tuple[Array, Array, Array]:
        """(P, Q, P − Q) masses of the cells between `edges`."""
        still = normal_cells(edges)
        sign = 1 if self.numerator_weight else -1
        change, mixed = np.zeros_like(still), (1 - self._some) * still
        for level, weight in zip(self.levels, self.weights, strict=True):
            moved = normal_cells(edges - sign * level)
            change = change + weight * (moved - still)
            mixed = mixed + weight * moved
        return (mixed, still, change) if sign > 0 else (still, mixed, -change)

    def delta(self, epsilon: float) -> float:
        """Hockey-stick divergence of a single release, from above."""
        z = float(self.output(np.array([epsilon]))[0])
        numerator, denominator, _ = (float(m[0]) for m in self.cell_masses(np.array([z, np.inf])))
        taken = math.exp(epsilon + math.log(denominator)) if denominator > 0 else 0.0
        return min(max(numerator - taken, 0.0) + 1e-13 * numerator, 1.0)

    def _log_mixture(self, z: Array) -> Array:
        """`ln(w_0 + Σ w_b·e^(b·s·z − (b·s)²/2))`, accurate where it is near 0."""
        exponents = [level * z - 0.5 * level**2 for level in self.levels]
        logs = [x + math.log(w) for x, w in zip(exponents, self.weights, strict=True)]
        if self._some < 1:
            logs.append(np.full_like(z, math.log1p(-self._some)))
        large = np.logaddexp.reduce(logs, axis=0)
        gain = sum(
            w * np.expm1(np.minimum(x, 30.0)) for x, w in zip(exponents, self.weights, strict=True)
        )
        far = (np.abs(large) > 1) | (np.max(exponents, axis=0) > 30)
        return np.where(far, large, np.log1p(np.maximum(gain, -0.9)))

    @property
    def _some(self) -> float:
        return self.numerator_weight or self.denominator_weight

    def _inverse(self, loss: Array) -> Array:
        """The z at which `_log_mixture` is `loss`: Newton's steps on a convex function."""
        some = self._some
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            gain = np.where(
                loss < -0.5, np.exp(loss) - (1 - some), np.expm1(np.minimum(loss, 1.0)) + some
            )
            target = np.where(
                (loss > 1) | (some == 1),
                loss + np.log1p((some - 1) * np.exp(-np.abs(loss))),
                np.log(np.maximum(gain, 0.0)),
            )
        known = np.isfinite(target)
        goal = target[known]
        terms = [
            (v, math.log(w) - 0.5 * v * v) for v, w in zip(self.levels, self.weights, strict=True)
        ]
        # Each component alone is below the sum: where it reaches the goal is right of the root.
        z = np.min([(goal - c) / v for v, c in terms], axis=0)
        for _ in range(_NEWTON_STEPS):
            logs = np.array([v * z + c for v, c in terms])
            peak = logs.max(axis=0)
            parts = np.exp(logs - peak)
            total = parts.sum(axis=0)
            slope = (parts * np.array(self.levels)[:, None]).sum(axis=0) / total
            step = (peak + np.log(total) - goal) / slope
            z = z - step
            if not (np.abs(step) > 1e-14 * (1 + np.abs(z))).any():
                break
        found = np.where(target > 0, np.inf, -np.inf)
        found[known] = z
        return found


def group_pairs(*, probability: float, noise_multiplier: float, size: int) -> tuple[Pair, Pair]:
    """Both pairs of one release when up to `size` examples are removed, or added.

    Args:
        probability: q in (0, 1], each example's own chance to take part.
        noise_multiplier: σ > 0.
        size: k >= 1.

    >>> removed, added = group_pairs(probability=0.5, noise_multiplier=2.0, size=2)
    >>> removed.levels, [round(w, 4) for w in removed.weights]
    ((0.5, 1.0), [0.5, 0.25])
    """
    reach = size / noise_multiplier
    if probability == 1:
        return Pair(1.0, 0.0, reach), Pair(0.0, 1.0, reach)
    if size == 1:
        return Pair(probability, 0.0, reach), Pair(0.0, probability, reach)
    some = -math.expm1(size * math.log1p(-probability))
    kept = _levels(size, probability)
    levels = tuple(level / noise_multiplier for level in kept)
    weights = tuple(kept.values())
    return (
        GroupPair(some, 0.0, reach, levels, weights),
        GroupPair(0.0, some, reach, levels, weights),
    )


def mixture_pairs(*, event: MixtureOfGaussians) -> tuple[Pair, Pair]:
    """Both pairs of a sum that a unit moves by a random amount, when the unit is removed, or added.

    Args:
        event: of at least two amounts above 0, and noise above 0.

    >>> removed, added = mixture_pairs(event=MixtureOfGaussians(
    ...     noise_multiplier=2.0, weights=(0.5, 0.3, 0.2), sensitivities=(0.0, 1.0, 3.0)))
    >>> removed.levels, removed.weights
    ((0.5, 1.5), (0.3, 0.2))
    """
    levels = tuple(size / event.noise_multiplier for size in event.amounts)
    weights = tuple(event.amounts.values())
    some = math.fsum(weights)
    # A chance of 1 but for rounding is 1: nothing is then left that reveals less.
    some = 1.0 if some > 1 - 1e-15 else some
    return (
        GroupPair(some, 0.0, levels[-1], levels, weights),
        GroupPair(0.0, some, levels[-1], levels, weights),
    )


def _levels(size: int, probability: float) -> dict[int, float]:
    """The chance of each value of B > 0, rare and neighbouring values rounded up."""
    exact = {b: _binomial(b, size, probability) for b in range(1, size + 1)}
    likely = [b for b, chance in exact.items() if chance > _RARE]
    tops = [*likely[:: -max(-(-len(likely) // _LEVELS), 1)][::-1], size]
    found = dict.fromkeys(sorted(set(tops)), 0.0)
    each = iter(found)
    top = next(each)
    for b, chance in exact.items():
        while b > top:
            top = next(each)
        found[top] += chance
    return {b: chance for b, chance in found.items() if chance > 0}


def _binomial(count: int, size: int, probability: float) -> float:
    ways = gammaln(size + 1) - gammaln(count + 1) - gammaln(size - count + 1)
    chances = count * math.log(probability) + (size - count) * math.log1p(-probability)
    return math.exp(float(ways) + chances)
