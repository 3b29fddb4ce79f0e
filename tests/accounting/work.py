"""How much arithmetic an answer takes, whatever else the machine does meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
from dpacc_accounting.calibration.noise import _solved


@dataclass
class Work:
    """What was done so far.

    Args:
        points: numbers that went through Fourier transforms, and products in direct convolutions.
    """

    points: int = 0


@contextmanager
def counted_work() -> Iterator[Work]:
    """Count the work of every composition while it lasts, as if no noise had been asked for yet."""
    _solved.cache_clear()
    work = Work()
    rfft, irfft, convolve = np.fft.rfft, np.fft.irfft, np.convolve

    def forward(values: Any, *more: Any, **named: Any) -> Any:
        work.points += np.size(values)
        return rfft(values, *more, **named)

    def backward(values: Any, *more: Any, **named: Any) -> Any:
        found = irfft(values, *more, **named)
        work.points += np.size(found)
        return found

    def direct(one: Any, other: Any, *more: Any, **named: Any) -> Any:
        work.points += np.size(one) * np.size(other)
        return convolve(one, other, *more, **named)

    with (
        mock.patch.object(np.fft, "rfft", forward),
        mock.patch.object(np.fft, "irfft", backward),
        mock.patch.object(np, "convolve", direct),
    ):
        yield work
