"""Client-level privacy without a trusted server: every client adds its share of the noise.

A client clips its update to norm C, rounds it to whole multiples of C·γ, and adds discrete
Gaussian noise of scale s ≥ σ/(γ√h) in those units, h being the honest clients that are in every
sum that is opened. So the sum of any t clients holds noise of at least σC from honest clients
(arXiv 2102.06387); where more survive, it holds more, and that is what is charged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from dpacc_accounting import Event, Gaussian, Ledger, read_ledger

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.client_level import ClientPrivacy, said_beside
from dpacc.federated.secure_sum.fixed_point import Doubles, FixedPoint, Integers, OutOfRange
from dpacc.federated.secure_sum.neighbourhoods import SECURITY_BITS
from dpacc.federated.secure_sum.rounds_summed import MOST_DRAWS
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.randomness.discrete_gaussian import LARGEST_SCALE, discrete_gaussians
from dpacc.randomness.run_secret import RunSecret

_TAIL = 40
"""Standard deviations for which the grid has room: noise exceeds them with chance below e⁻⁸⁰⁰."""
_SMOOTHING = 8
UNSIGNED = "unsigned keys"
"""The subject of the ledger's note on whom the noise relies."""
DRAWN = "drawn neighbours"
"""The subject of its note on sums that few may part by chance."""


@dataclass(frozen=True, kw_only=True)
class SharedNoise:
    """The noise of one federation: its grid, each client's share, and what a sum of them hides.

    Args:
        privacy: σ, C and δ.
        settings: n, t and how many collude.
        dimension: d, how many numbers an update has.
    """

    privacy: ClientPrivacy
    settings: SecureSum
    dimension: int

    @property
    def grid(self) -> FixedPoint:
        """Whole multiples of γ = 2⁻ᶠ, in units of C."""
        spread = self.privacy.noise_multiplier / math.sqrt(self.settings.honest)
        return FixedPoint.fitting(clients=self.settings.clients, reach=2 + _TAIL * spread)

    @property
    def scale(self) -> int:
        """s, the least whole number with s²·h ≥ (σ/γ)²."""
        wanted = (Fraction(self.privacy.noise_multiplier) * 2**self.grid.fraction_bits) ** 2
        return math.isqrt(math.ceil(wanted / self.settings.honest) - 1) + 1

    @property
    def sensitivity(self) -> float:
        """The largest norm of a rounded update, in grid units: 1/γ + √d."""
        return 2.0**self.grid.fraction_bits + math.sqrt(self.dimension)

    def multiplier(self, *, survivors: int) -> float:
        """σ of the Gaussian noise that the sum of so many survivors hides no less than.

        √(s²·m − 8)/Δ, m being the honest among them: a sum of m discrete Gaussians of scale s is
        one of scale s√m but for factors within 1 ± 10·m·e^(−π²s²) a coordinate (arXiv 2102.06387),
        which for s ≥ 16 are within 1 ± 10⁻¹⁰⁹⁰, and that one is a random rounding of the Gaussian
        mechanism's output (`dpacc.step.integer_sum.whole_scale`).
        """
        honest = survivors - self.settings.colluding
        return math.sqrt(self.scale**2 * honest - _SMOOTHING) / self.sensitivity

    def event(self, *, survivors: int) -> Gaussian:
        """What opening such a sum costs any one client."""
        return Gaussian(noise_multiplier=self.multiplier(survivors=survivors))

    def share(self, moved: Doubles, *, secret: RunSecret, step: int) -> Integers:
        """One client's whole numbers: clipped, rounded, and noised.

        An update that is not finite counts as zeros; that it failed must not show.

        Raises:
            OutOfRange: noise beyond 40 standard deviations, which never happens.
        """
        rounded = self._clipped(moved)
        noise = discrete_gaussians(
            secret=secret,
            step=step,
            purpose="noise share",
            scale=self.scale,
            count=self.dimension,
        )
        return self.grid.within(rounded + noise)

    def values(self, total: Integers) -> Doubles:
        """The sum of updates that such whole numbers stand for."""
        return self.grid.values(total) * self.privacy.clipping_norm

    def require_sound(self) -> None:
        """Refuse a grid or noise too coarse for its own proof.

        Raises:
            ConfigurationError: with both values and the remedy.
        """
        if not 16 <= self.scale <= LARGEST_SCALE or self.dimension >= 4.0**self.grid.fraction_bits:
            raise ConfigurationError(
                f"noise_multiplier={self.privacy.noise_multiplier} for {self.settings.clients} "
                f"clients leaves noise of {self.scale} grid points, 2^-{self.grid.fraction_bits} "
                "apart, which is too coarse; take fewer clients or another noise multiplier"
            )

    @property
    def alone(self) -> float:
        """σ of what one client's own noise hides, should the server have invented all others."""
        return math.sqrt(self.scale**2 - _SMOOTHING) / self.sensitivity

    @property
    def beside(self) -> dict[str, str]:
        """What a ledger says beside the price, by its subject."""
        said: dict[str, str] = {}
        if not self.settings.signed:
            said[UNSIGNED] = (
                "nobody but the server vouches for the clients' keys, so against it this holds "
                f"only while {self.settings.honest} of those in each sum are clients in truth, and "
                "all are told the same; one that invents all others sees each update under noise "
                f"of multiplier {self.alone:.6g} alone, a sum"
            )
        if self.settings.neighbourhood is not None:
            who = "the server" if self.settings.signed else "a server that follows the protocol"
            said[DRAWN] = (
                f"each client shares its secrets with {self.settings.neighbourhood.neighbours} "
                f"others that it draws, which by a chance of at most 2^-{SECURITY_BITS} for each "
                f"sum that is begun lets {who} tell some clients' sum from the others'; a client "
                f"draws {MOST_DRAWS} times at most before its numbers leave; delta holds none of "
                "that"
            )
        return said

    def plan(self) -> dict[str, Any]:
        """What a ledger is opened for."""
        return {
            **self.privacy.stated,
            "secure_sum": self.settings.stated,
            "dimension": self.dimension,
        }

    def federation(self, *, survivors: list[int]) -> dict[str, Any]:
        """What `dpacc compose` reads, after rounds that so many survived."""
        return {
            "level": "client",
            "delta": self.privacy.delta,
            "unit": self.privacy.unit,
            "sampling": "none",
            "noise": "discrete-gaussian",
            "noise_multiplier": self.privacy.noise_multiplier,
            "denominator": "fixed",
            "secure_aggregation": {
                "clients": self.settings.clients,
                "threshold": self.settings.fewest,
                "colluding": self.settings.colluding,
                **({"signed": True} if self.settings.signed else {}),
            },
            "discretization": {
                "dimension": self.dimension,
                "granularity": self.grid.spacing,
                "rounding_bias": 0.0,
            },
            "schedule": [
                {"rounds": len(list(same)), "survivors": count}
                for count, same in groupby(survivors)
            ]
            or [{"rounds": 0}],
        }

    def _clipped(self, moved: Doubles) -> Integers:
        """The update's whole numbers, whose norm is checked after every rounding before it."""
        length = float(np.linalg.norm(moved))
        if not math.isfinite(length):
            return np.zeros(self.dimension, dtype=np.int64)
        within = moved * min(1.0, self.privacy.clipping_norm / length) if length else moved
        whole = self.grid.rounded(within / self.privacy.clipping_norm)
        if float(np.linalg.norm(whole.astype(np.float64))) > self.sensitivity * (1 - 2.0**-40):
            raise OutOfRange("a clipped update is longer than what the noise is sized for")
        return whole


class SharedNoiseLedger:
    """One ledger of the sums that hold an update: the server's, or a client's own.

    Args:
        noise: what each sum hides.
        path: the ledger.
    """

    def __init__(self, *, noise: SharedNoise, path: Path) -> None:
        noise.require_sound()
        self.noise = noise
        self._ledger = Ledger.open(path=path, plan=noise.plan())
        known = {note.subject for note in read_ledger(path=path).notes}
        for subject, text in noise.beside.items():
            if subject not in known:
                self._ledger.note(subject=subject, text=text)

    def charge(self, *, survivors: int) -> int:
        """Write down the next sum before it can be opened; its number.

        Raises:
            LedgerError: the charge could not be written; nothing may be opened.
        """
        last = self._ledger.last_step
        step = 0 if last is None else last + 1
        self._ledger.charge(step=step, event=self.noise.event(survivors=survivors))
        return step

    @property
    def rounds_charged(self) -> int:
        """How many sums the ledger holds."""
        return self._ledger.steps_charged

    def federation(self) -> dict[str, Any]:
        """What `dpacc compose` reads, from the ledger alone."""
        settings = self.noise.settings
        counts = range(settings.fewest, settings.clients + 1)
        known: dict[Event, int] = {self.noise.event(survivors=count): count for count in counts}
        record = read_ledger(path=self._ledger.path)
        rounds = self.noise.federation(survivors=[known[each.event] for each in record.releases])
        return rounds | said_beside(record.notes)

    def close(self) -> None:
        """Let go of the ledger."""
        self._ledger.close()
