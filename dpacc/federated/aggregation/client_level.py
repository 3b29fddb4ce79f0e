"""What is promised to a client as a whole, and what a trusted server's noise allows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from dpacc_accounting import (
    Adjacency,
    Event,
    Gaussian,
    PoissonSampled,
    calibrate_separated_noise,
)
from dpacc_accounting.calibration.separated_noise import Correlation
from dpacc_accounting.federation.rounds import CorrelatedRounds
from dpacc_accounting.guarantee import Note, stated_notes

from dpacc.errors import ConfigurationError
from dpacc.federated.setting_limits import require_positive, require_words
from dpacc.federated.settings import LoraSettings


@dataclass(frozen=True, kw_only=True)
class ClientPrivacy:
    """What is promised to each client as a whole, against whoever sees the released models.

    Each round draws every client by a secret coin of chance p, clips each update Δᵢ to norm C, and
    releases θ + (Σ Δᵢ·min(1, C/‖Δᵢ‖) + N(0, (σC)²))/(p·n) (DP-FedAvg, arXiv 1710.06963).

    With `correlated`, nobody is drawn: who took part waits before it may again, and the noise of a
    round takes a part of earlier rounds' back (DP-FTRL, arXiv 2306.08153). `calibrate` makes one.

    Args:
        noise_multiplier: σ.
        clipping_norm: C.
        delta: δ at which ε is stated.
        unit: what a client is.
        correlated: how noise is correlated between rounds, and how long clients wait.
    """

    noise_multiplier: float
    clipping_norm: float
    delta: float
    unit: str = "client"
    # What a server keeps of runs without it stays as it was.
    correlated: CorrelatedRounds | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("noise_multiplier", "clipping_norm", "delta"):
            require_positive(name, getattr(self, name))
        if not self.delta < 1:
            raise ConfigurationError(f"delta={self.delta} must lie strictly between 0 and 1")
        require_words("unit", self.unit)
        if self.correlated is not None:
            try:
                self.event(after=0)
            except ValueError as error:
                raise ConfigurationError(f"correlated: {error}") from error

    @classmethod
    def calibrate(
        cls,
        *,
        rounds: int,
        min_separation: int,
        epsilon: float,
        delta: float,
        clipping_norm: float,
        correlation: Correlation = "banded",
        unit: str = "client",
    ) -> ClientPrivacy:
        """The noise of a federation without sampling, correlated between its rounds.

        Args:
            rounds: R; no client is in more than ⌈R/b⌉ of them.
            min_separation: b: who took part in round t may again from round t + b on.
            epsilon: the target for all R rounds; a round that a crash repeats is one more.
            delta: δ at which it is stated.
            clipping_norm: C.
            correlation: "banded" keeps up to b − 1 vectors as long as the adapter in the server's
                memory, "buffers" two; "independent" none.
            unit: what a client is.

        Raises:
            ConfigurationError: a number is out of range.

        Source: Choquette-Choo et al. 2023 (arXiv 2306.08153); McMahan et al. 2024
        (arXiv 2404.16706).

        >>> privacy = ClientPrivacy.calibrate(rounds=50, min_separation=10, epsilon=8.0,
        ...                                   delta=1e-6, clipping_norm=0.5)
        >>> privacy.noise_multiplier, privacy.min_separation
        (1.45999, 10)
        """
        try:
            found = calibrate_separated_noise(
                rounds=rounds,
                min_separation=min_separation,
                epsilon=epsilon,
                delta=delta,
                correlation=correlation,
                unit=unit,
            )
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
        return cls(
            noise_multiplier=found.noise_multiplier,
            clipping_norm=clipping_norm,
            delta=delta,
            unit=unit,
            correlated=CorrelatedRounds(min_separation=min_separation, column=found.column),
        )

    @property
    def min_separation(self) -> int:
        """b; 1 where clients need not wait."""
        return 1 if self.correlated is None else self.correlated.min_separation

    @property
    def own(self) -> dict[str, Any]:
        """σ, C, δ and unit, which is all that noise without correlation has."""
        return {name: value for name, value in asdict(self).items() if name != "correlated"}

    @property
    def stated_correlation(self) -> dict[str, Any]:
        """How noise is correlated, as a ledger's plan and `dpacc compose` read it; else nothing."""
        if self.correlated is None:
            return {}
        lists = {name: [*values] for name, values in asdict(self.correlated.column).items()}
        return {"correlated": {"min_separation": self.min_separation, **lists}}

    def event(self, *, after: int, sampling_rate: float = 1.0) -> Event:
        """What the round after so many others releases.

        >>> ClientPrivacy(noise_multiplier=2.0, clipping_norm=1.0, delta=1e-6).event(after=3)
        Gaussian(noise_multiplier=2.0)
        """
        if self.correlated is not None:
            return self.correlated.column.event(
                noise_multiplier=self.noise_multiplier,
                separation=self.min_separation,
                rounds=1,
                after=after,
            )
        noise = Gaussian(noise_multiplier=self.noise_multiplier)
        if sampling_rate == 1:
            return noise
        return PoissonSampled(probability=sampling_rate, event=noise)

    @property
    def stated(self) -> dict[str, Any]:
        """The settings as a ledger's plan holds them, with all that a price needs."""
        neighbours = {"adjacency": str(Adjacency.ADD_OR_REMOVE), "target_delta": self.delta}
        return self.own | self.stated_correlation | neighbours

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
            **self.stated_correlation,
        }


def said_beside(notes: Iterable[Note]) -> dict[str, list[str]]:
    """What a server's ledger says beside its rounds, as `dpacc compose` reads it.

    >>> said_beside([Note("fixed-seed", "the noise came from the fixed seed 5")])
    {'void_because': ['the noise came from the fixed seed 5']}
    """
    return {name: texts for name, texts in stated_notes(notes).items() if texts}


def require_central(
    *,
    privacy: ClientPrivacy,
    aggregation: str,
    lora: LoraSettings,
    defended: bool,
    sampled: bool,
) -> None:
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
    if sampled and privacy.correlated is not None:
        raise ConfigurationError(
            "client_sampling_rate below 1 with correlated noise: who is drawn afresh could take "
            "part again too soon, and no amplification is claimed; ask everybody whose turn it "
            "is, client_sampling_rate=1"
        )
    if aggregation != "ffa" and lora.method != "dylora":
        raise ConfigurationError(
            f"client_privacy with aggregation={aggregation!r}: the noise is sized for the sum of "
            "clipped updates; take aggregation='ffa'"
        )
