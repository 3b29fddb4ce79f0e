"""Gaussian noise of which later steps take a part back: C⁻¹z, row after row.

For a lower triangular Toeplitz C with first column c of b numbers, w = C⁻¹z solves

    c_0·w_t = z_t − Σ_{0 < j < b} c_j·w_{t−j}

so that each step needs the b − 1 rows before it and nothing else (Choquette-Choo et al. 2023,
arXiv 2306.08153). They stay in memory, like the secret that they are drawn from: who knew them
could take this step's noise away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dpacc.errors import PrivacyError
from dpacc.randomness.gaussian_noise import standard_normals
from dpacc.randomness.run_secret import RunSecret, draw_in_chunks

_CHUNK = 1 << 18

Row = npt.NDArray[np.float32]


class CorrelatedNoise:
    """The rows of C⁻¹z in the order of steps, the same on every rank.

    Args:
        secret: keys z: row t of it is `standard_normals` of step t.
        coefficients: c; (1,) gives z itself.

    >>> noise = CorrelatedNoise(secret=RunSecret.from_fixed_seed(0), coefficients=(0.8, 0.6))
    >>> first, second = (noise.row(step=t, count=4).astype(float) for t in range(2))
    >>> z = standard_normals(secret=RunSecret.from_fixed_seed(0), step=1, count=4)
    >>> bool(np.allclose(0.8 * second + 0.6 * first, z, atol=1e-6))
    True
    """

    def __init__(self, *, secret: RunSecret, coefficients: Sequence[float]) -> None:
        self._secret = secret
        self._first, *self._others = coefficients
        self._earlier: deque[Row] = deque(maxlen=len(self._others))
        self._last: tuple[int, Row] | None = None

    def row(self, *, step: int, count: int, threads: int = 1) -> Row:
        """Row `step`, of `count` numbers; the next one of a run, or the last one again.

        Args:
            step: a run's steps follow each other, from any first one.
            count: how many numbers, the same for all rows.
            threads: how many cores draw; no effect on the result.

        Raises:
            PrivacyError: another step comes between, whose row is not known.
        """
        if not self._others:
            return standard_normals(secret=self._secret, step=step, count=count, threads=threads)
        if self._last is None or step == self._last[0] + 1:
            if self._last is not None:
                self._earlier.appendleft(self._last[1])
            self._last = (step, self._next(step, count, threads))
        if step != self._last[0]:
            raise PrivacyError(
                f"correlated noise of step {step} was asked for after that of step "
                f"{self._last[0]}; take steps in order, and after an interruption resume the run"
            )
        # Whoever gets it scales it in place, and the row itself is needed again.
        return self._last[1].copy()

    def _next(self, step: int, count: int, threads: int) -> Row:
        row = standard_normals(secret=self._secret, step=step, count=count, threads=threads)

        def take_back(start: int) -> None:
            here = slice(start, start + _CHUNK)
            left = row[here].astype(np.float64)
            for coefficient, earlier in zip(self._others, self._earlier, strict=False):
                left -= coefficient * earlier[here]
            row[here] = left / self._first

        draw_in_chunks(take_back, range(0, count, _CHUNK), threads=threads)
        return row
