"""Client-level privacy with a trusted server: clipped updates, summed and noised once a round."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from dpacc_accounting import Adjacency, Gaussian, Ledger, PoissonSampled
from dpacc_accounting.guarantee import Note, stated_notes

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.averaging import Aggregate
from dpacc.federated.updates.layout import Arrays, flat, unflat
from dpacc.randomness.gaussian_noise import standard_normals
from dpacc.randomness.run_secret import RunSecret


@dataclass(frozen=True, kw_only=True)
class ClientPrivacy:
    """What is promised to each client as a whole, against whoever sees the released models.

    Each round draws every client by a secret coin of chance p, clips each update Δᵢ to norm C, and
    releases θ + (Σ Δᵢ·min(1, C/‖Δᵢ‖) + N(0, (σC)²))/(p·n) (DP-FedAvg, arXiv 1710.06963).

    Args:
        noise_multiplier: σ.
        clipping_norm: C.
        delta: δ at which ε is stated.
        unit: what a client is.
    """

    noise_multiplier: float
    clipping_norm: float
    delta: float
    unit: str = "client"

    def __post_init__(self) -> None:
        for name in ("noise_multiplier", "clipping_norm"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigurationError(f"{name}={value} must be a finite number above 0")
        if not 0 < self.delta < 1:
            raise ConfigurationError(f"delta={self.delta} must lie strictly between 0 and 1")

    @property
    def stated(self) -> dict[str, Any]:
        """The settings as a ledger's plan holds them, with all that a price needs."""
        neighbours = {"adjacency": str(Adjacency.ADD_OR_REMOVE), "target_delta": self.delta}
        return asdict(self) | neighbours

    def federation(self, *, sampling_rate: float, rounds: int) -> dict[str, Any]:
        """What `dpacc compose` reads, after so many charged rounds."""
        return {
            "level": "client",
            "delta": self.delta,
            "unit": self.unit,
            "sampling": "poisson" if sampling_rate < 1 else "none",
            **({"sampling_rate": sampling_rate} if sampling_rate < 1 else {}),
            "noise": "central",
            "noise_multiplier": self.noise_multiplier,
            "denominator": "fixed",
            "rounds": rounds,
        }


class CentralNoise:
    """The server's only way from updates to the next adapter; charged before it is taken.

    Args:
        privacy: σ and C.
        clients: n, a public number that nobody's presence changes.
        sampling_rate: p.
        ledger: the server's.
        secret: keys the noise; lives in memory only, so a restarted server has another.
    """

    def __init__(
        self,
        *,
        privacy: ClientPrivacy,
        clients: int,
        sampling_rate: float,
        ledger: Path,
        secret: RunSecret | None = None,
    ) -> None:
        self._privacy = privacy
        self._sampling_rate = sampling_rate
        self._denominator = clients * sampling_rate
        self._secret = secret or RunSecret.generate()
        noise = Gaussian(noise_multiplier=privacy.noise_multiplier)
        self._event = (
            noise if sampling_rate == 1 else PoissonSampled(probability=sampling_rate, event=noise)
        )
        plan = privacy.stated | {"clients": clients, "sampling_rate": sampling_rate}
        self._ledger = Ledger.open(path=ledger, plan=plan)
        if self._secret.fixed_seed is not None:
            text = f"the noise came from the fixed seed {self._secret.fixed_seed}"
            if Note("fixed-seed", text) not in self._ledger.notes:
                self._ledger.note(subject="fixed-seed", text=text)

    def __call__(self, start: Arrays, updates: Mapping[str, Arrays]) -> Aggregate:
        """One round's release. A round in which nobody was drawn is noised and charged like any.

        Raises:
            LedgerError: the charge could not be written; nothing is released.
        """
        before = flat(start)
        total = np.zeros_like(before)
        for update in updates.values():
            total += self._clipped(flat(update) - before)
        step = self._next_step
        self._ledger.charge(step=step, event=self._event)
        noise = standard_normals(secret=self._secret, step=step, count=len(total))
        total += self._privacy.noise_multiplier * self._privacy.clipping_norm * noise
        return Aggregate(arrays=unflat(before + total / self._denominator, like=start))

    @property
    def rounds_charged(self) -> int:
        """How many rounds the server's ledger holds."""
        return self._ledger.steps_charged

    def federation(self) -> dict[str, Any]:
        """What `dpacc compose` reads, from the rounds and notes that the ledger holds."""
        rounds = self._privacy.federation(
            sampling_rate=self._sampling_rate, rounds=self.rounds_charged
        )
        return rounds | said_beside(self._ledger.notes)

    def close(self) -> None:
        """Let go of the ledger."""
        self._ledger.close()

    @property
    def _next_step(self) -> int:
        last = self._ledger.last_step
        return 0 if last is None else last + 1

    def _clipped(self, moved: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
        length = float(np.linalg.norm(moved))
        return moved * min(1.0, self._privacy.clipping_norm / length) if length else moved


def said_beside(notes: Iterable[Note]) -> dict[str, list[str]]:
    """What a server's ledger says beside its rounds, as `dpacc compose` reads it.

    >>> said_beside([Note("fixed-seed", "the noise came from the fixed seed 5")])
    {'void_because': ['the noise came from the fixed seed 5']}
    """
    return {name: texts for name, texts in stated_notes(notes).items() if texts}


def require_central(*, aggregation: str, defended: bool) -> None:
    """Refuse what central noise cannot be priced with.

    Raises:
        ConfigurationError: with the reason and the remedy.
    """
    if defended:
        raise ConfigurationError(
            "client_privacy with a defence: one client could change whom Krum keeps or what a "
            "median is by more than the clipping norm, and the noise would not hide it; clipping "
            "bounds hostile clients, so leave the defence out, or take privacy_budget"
        )
    if aggregation != "ffa":
        raise ConfigurationError(
            f"client_privacy with aggregation={aggregation!r}: the noise is sized for the sum of "
            "clipped updates; take aggregation='ffa'"
        )
