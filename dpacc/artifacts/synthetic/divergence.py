"""How far apart two sets of texts lie, by the embeddings of both: MAUVE."""

from __future__ import annotations

import warnings
from statistics import mean

import numpy as np
import numpy.typing as npt
from scipy.cluster.vq import kmeans2

Vectors = npt.NDArray[np.float64]

# Of the paper: how steep, and how much of the variance is looked at.
_SCALE = 5.0
_VARIANCE = 0.9
_MIXTURES = 1_000
_CLUSTERINGS = 5


def mauve(ours: Vectors, theirs: Vectors) -> float:
    """1 for two sets of embeddings that lie alike, near 0 for two that lie apart.

    Both are put into k-means clusters of them together, a tenth as many as the smaller set has
    texts, and the histograms compared by
    [`frontier_area`][dpacc.artifacts.synthetic.divergence.frontier_area]. It grows with fewer
    texts in fewer clusters, so that two figures compare only for equally many texts.

    Args:
        ours: [n, d], one embedding a text.
        theirs: [m, d].

    Returns:
        The mean over five clusterings, from public seeds.

    Source: Pillutla et al. 2021 (arXiv 2102.01454), section 3 and appendix.

    >>> import numpy as np
    >>> here = np.random.default_rng(0).normal(size=(40, 2)) + [9.0, 0.0]
    >>> mauve(here, here), mauve(here, here[:, ::-1]) < 0.01
    (1.0, True)
    """
    together = _main_directions(np.concatenate([ours, theirs]))
    size = max(2, round(min(len(ours), len(theirs)) / 10))
    size = min(size, len(np.unique(together, axis=0)))
    found = []
    for seed in range(_CLUSTERINGS):
        with warnings.catch_warnings(action="ignore"):  # that a cluster lost all of its texts
            _, places = kmeans2(together, size, minit="++", seed=seed)
        shares = [
            np.bincount(part, minlength=size) / len(part)
            for part in (places[: len(ours)], places[len(ours) :])
        ]
        found.append(frontier_area(shares[0], shares[1]))
    return min(1.0, mean(found))  # of equal texts rounding says a little more


def frontier_area(p: Vectors, q: Vectors, *, scale: float = _SCALE) -> float:
    """The area under (exp(−c·KL(q‖r)), exp(−c·KL(p‖r))) over all mixtures r = λp + (1−λ)q.

    Args:
        p: [k], shares that add up to 1.
        q: [k].
        scale: c.

    >>> import numpy as np
    >>> round(frontier_area(np.array([1.0, 0.0]), np.array([0.0, 1.0])) * 252, 3)
    1.0
    """
    points = [(0.0, 1.0), (1.0, 0.0)]
    # Denser at both ends, where the curve falls.
    for at in (1 - np.cos(np.linspace(0, np.pi, _MIXTURES + 2)[1:-1])) / 2:
        mixture = at * p + (1 - at) * q
        points.append((_nearness(q, mixture, scale), _nearness(p, mixture, scale)))
    along, up = np.array(sorted(points, key=lambda point: (point[0], -point[1]))).T
    return float(np.trapezoid(up, along))


def _nearness(p: Vectors, mixture: Vectors, scale: float) -> float:
    there = p > 0
    return float(np.exp(-scale * np.sum(p[there] * np.log(p[there] / mixture[there]))))


def _main_directions(vectors: Vectors) -> Vectors:
    """Of length 1, in as many principal directions as hold nine tenths of the variance."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    centred = unit - unit.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    held = np.cumsum(sizes**2) / max(float(np.sum(sizes**2)), 1e-300)
    kept = int(np.searchsorted(held, _VARIANCE)) + 1
    # Texts that are the same stay the same.
    directions: Vectors = np.round(left[:, :kept] * sizes[:kept], 9)
    return directions
