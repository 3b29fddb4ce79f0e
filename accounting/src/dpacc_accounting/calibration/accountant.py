"""Accounting as it goes: an object that is told of each release, and σ for a sample rate alone.

The names are those that users of other accountants look for; the prices are this package's.
"""

from __future__ import annotations

from collections import Counter

from dpacc_accounting.calibration.noise import noise_at_rate
from dpacc_accounting.events.event import Composed, Event, Gaussian, PoissonSampled, Repeated
from dpacc_accounting.guarantee import Adjacency, Guarantee
from dpacc_accounting.pricing.price import delta as delta_of
from dpacc_accounting.pricing.price import epsilon as epsilon_of


class Accountant:
    """What was released so far, whatever it was, priced whenever it is asked for.

    It lives in memory only: a run's own books are its `Ledger`, which reaches the disk first.

    Args:
        adjacency: which datasets are neighbours.
        unit: whose data one unit is, for the record.
        method: "pld", "rdp" or "gaussian".

    >>> accountant = Accountant()
    >>> for _ in range(1000):
    ...     accountant.step(noise_multiplier=1.0, sample_rate=0.01)
    >>> round(accountant.get_epsilon(delta=1e-5), 3), len(accountant)
    (1.828, 1000)
    """

    def __init__(
        self,
        *,
        adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
        unit: str = "example",
        method: str = "pld",
    ) -> None:
        self.adjacency = Adjacency(adjacency)
        self.unit = unit
        self.method = method
        self._released: Counter[Event] = Counter()

    def __len__(self) -> int:
        """How many releases."""
        return self._released.total()

    def step(self, *, noise_multiplier: float, sample_rate: float) -> None:
        """Count one step of DP-SGD: a Gaussian sum over a Poisson sample.

        Args:
            noise_multiplier: σ of this step.
            sample_rate: q of this step, in [0, 1].

        Raises:
            ValueError: either is out of range.
        """
        noise = Gaussian(noise_multiplier=noise_multiplier)
        self.compose(event=PoissonSampled(probability=sample_rate, event=noise))

    def compose(self, *, event: Event, times: int = 1) -> None:
        """Count any event, so many times."""
        run = Repeated(event=event, times=times)
        self._released[run.event] += run.times

    @property
    def event(self) -> Event:
        """All of it, as one event."""
        parts = (Repeated(event=part, times=n) for part, n in self._released.items())
        return Composed(events=tuple(parts))

    def guarantee(self, *, delta: float) -> Guarantee:
        """ε at `delta`, with all that makes it a claim: adjacency, unit, method and slack."""
        return epsilon_of(
            event=self.event,
            delta=delta,
            adjacency=self.adjacency,
            unit=self.unit,
            method=self.method,
        )

    def get_epsilon(self, delta: float) -> float:
        """ε at `delta`, from above."""
        return self.guarantee(delta=delta).epsilon

    def get_delta(self, epsilon: float) -> float:
        """δ at `epsilon`, from above."""
        return delta_of(
            event=self.event,
            epsilon=epsilon,
            adjacency=self.adjacency,
            unit=self.unit,
            method=self.method,
        ).delta


def get_noise_multiplier(
    *,
    target_epsilon: float,
    target_delta: float,
    sample_rate: float,
    epochs: float | None = None,
    steps: int | None = None,
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
    method: str = "pld",
) -> float:
    """The least σ for T Poisson-sampled steps at rate q; see `calibrate_noise` for its guarantee.

    Args:
        target_epsilon: ε.
        target_delta: δ, to be well below 1/N.
        sample_rate: q, batch size / dataset size.
        epochs: T = ⌈epochs / q⌉. Or give `steps`.
        steps: T itself.
        adjacency: which datasets are neighbours.
        method: "pld", "rdp" or "gaussian".

    Raises:
        ValueError: an argument is out of range.

    Source: Abadi et al. 2016 (arXiv 1607.00133) for the mechanism.

    >>> get_noise_multiplier(target_epsilon=8.0, target_delta=1e-5, sample_rate=0.01, epochs=3)
    0.513831
    """
    return noise_at_rate(
        epsilon=target_epsilon,
        delta=target_delta,
        sample_rate=sample_rate,
        epochs=epochs,
        steps=steps,
        adjacency=adjacency,
        method=method,
    ).noise_multiplier
