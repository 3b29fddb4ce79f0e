"""Gaussian noise of which later rounds take a part back, made from a few buffers.

For C's first column c_0, Σ ωᵢ, Σ ωᵢλᵢ, Σ ωᵢλᵢ², … the rows w = C⁻¹z follow from

    c_0·w_t = z_t − Σ ωᵢ·sᵢ,  then sᵢ ← λᵢ·sᵢ + w_t

so that a vector for each buffer is all that is kept (McMahan et al. 2024, arXiv 2404.16706). They
stay in memory, like the secret: who knew them could take the next row's noise away.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dpacc.errors import PrivacyError
from dpacc.randomness.correlated_noise import Row
from dpacc.randomness.gaussian_noise import standard_normals
from dpacc.randomness.run_secret import RunSecret


class BufferedNoise:
    """The rows of C⁻¹z in the order of rounds.

    Args:
        secret: keys z: row t of it is `standard_normals` of step t.
        first: c_0.
        weights: ωᵢ.
        decays: λᵢ.

    >>> noise = BufferedNoise(secret=RunSecret.from_fixed_seed(0), first=0.8, weights=(0.6,),
    ...                       decays=(0.0,))
    >>> first, second = (noise.row(step=t, count=4).astype(float) for t in range(2))
    >>> z = standard_normals(secret=RunSecret.from_fixed_seed(0), step=1, count=4)
    >>> bool(np.allclose(0.8 * second + 0.6 * first, z, atol=1e-6))
    True
    """

    def __init__(
        self,
        *,
        secret: RunSecret,
        first: float,
        weights: Sequence[float],
        decays: Sequence[float],
    ) -> None:
        self._secret = secret
        self._first = first
        self._weights = np.asarray(weights)
        self._decays = np.asarray(decays)
        self._buffers: np.ndarray[tuple[int, int], np.dtype[np.float32]] | None = None
        self._next: int | None = None

    def row(self, *, step: int, count: int) -> Row:
        """Row `step`, of `count` numbers, the next one after the last.

        Args:
            step: rounds follow each other, from any first one.
            count: how many numbers, the same for all rows.

        Raises:
            PrivacyError: another step comes between, whose row is not known.
        """
        if self._next not in (None, step):
            raise PrivacyError(
                f"correlated noise of step {step} was asked for where that of step {self._next} "
                "is next; take steps in order, and after an interruption begin with a new secret"
            )
        if self._buffers is None:
            self._buffers = np.zeros((len(self._weights), count), np.float32)
        drawn = standard_normals(secret=self._secret, step=step, count=count)
        row = ((drawn - self._weights @ self._buffers) / self._first).astype(np.float32)
        self._buffers = (self._decays[:, None] * self._buffers + row).astype(np.float32)
        self._next = step + 1
        return row
