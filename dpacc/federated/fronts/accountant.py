"""An accountant of one mechanism, whose steps need no words."""

from __future__ import annotations

from dpacc_accounting import (
    Accountant,
    Gaussian,
    Guarantee,
    PoissonSampled,
    Repeated,
    epsilon,
)

from dpacc.errors import ConfigurationError, names_what_is_unknown
from dpacc.federated.setting_limits import require_count, require_positive


class PrivacyAccountant:
    """Counts steps of one DP-SGD: a Gaussian sum over a Poisson sample, the same each time.

    In memory alone: a client's own books are its ledger, which reaches the disk first.

    Args:
        noise_multiplier: σ.
        sampling_rate: q, the chance of each example in a step.
        mechanism: "gaussian".

    Raises:
        ConfigurationError: another mechanism, or a number out of range.

    >>> accountant = PrivacyAccountant(sampling_rate=0.01, noise_multiplier=1.1)
    >>> for _ in range(100):
    ...     accountant.step()
    >>> round(accountant.get_epsilon(delta=1e-5), 3)
    0.55
    """

    @names_what_is_unknown(of="PrivacyAccountant")
    def __init__(
        self, *, noise_multiplier: float, sampling_rate: float, mechanism: str = "gaussian"
    ) -> None:
        if mechanism != "gaussian":
            raise ConfigurationError(
                f"mechanism={mechanism!r}: this one counts 'gaussian' steps; others are events of "
                "dpacc_accounting.Accountant, which takes any: accountant.compose(event=...)"
            )
        require_positive("noise_multiplier", noise_multiplier)
        require_positive("sampling_rate", sampling_rate, at_most=1)
        noise = Gaussian(noise_multiplier=noise_multiplier)
        self._step = PoissonSampled(probability=sampling_rate, event=noise)
        self._books = Accountant()

    def step(self) -> None:
        """Count one step."""
        self._books.compose(event=self._step)

    def get_epsilon(self, *, delta: float) -> float:
        """ε of all steps so far at `delta`, an upper bound; `guarantee` has what belongs to it."""
        return self._books.get_epsilon(delta=delta)

    def guarantee(self, *, delta: float) -> Guarantee:
        """ε of all steps so far, with adjacency, unit, method and slack."""
        return self._books.guarantee(delta=delta)

    def compute_epsilon(
        self, *, num_compositions: int, delta: float, method: str = "optimal"
    ) -> float:
        """ε of so many steps, whatever was counted.

        Args:
            num_compositions: T.
            delta: δ, without which there is no ε.
            method: "optimal", "pld": privacy loss distributions with a certified error; "rdp" is
                looser.

        Raises:
            ConfigurationError: another method, or a number out of range.
        """
        require_count("num_compositions", num_compositions)
        chosen = {"optimal": "pld", "pld": "pld", "rdp": "rdp"}.get(method)
        if chosen is None:
            raise ConfigurationError(f"method={method!r} must be one of optimal, pld, rdp")
        run = Repeated(event=self._step, times=num_compositions)
        return epsilon(event=run, delta=delta, method=chosen).epsilon
