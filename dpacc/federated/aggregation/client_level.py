"""Client-level privacy with a trusted server: clipped updates, summed and noised once a round."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from dpacc_accounting import (
    Adjacency,
    Event,
    Gaussian,
    Ledger,
    PoissonSampled,
    calibrate_separated_noise,
)
from dpacc_accounting.calibration.separated_noise import Correlation
from dpacc_accounting.federation.rounds import CorrelatedRounds
from dpacc_accounting.guarantee import Note, stated_notes

from dpacc.errors import ConfigurationError, PrivacyError
from dpacc.federated.aggregation.averaging import Aggregate
from dpacc.federated.aggregation.exact_sum import MOST_TERMS, ExactSum
from dpacc.federated.aggregation.listed_clients import UNLISTED, ListedClients
from dpacc.federated.aggregation.turns import Turns
from dpacc.federated.setting_limits import require_positive, require_words
from dpacc.federated.settings import LoraSettings
from dpacc.federated.updates.layout import Arrays, flat, unflat
from dpacc.randomness.buffered_noise import BufferedNoise
from dpacc.randomness.correlated_noise import CorrelatedNoise
from dpacc.randomness.run_secret import RunSecret

Doubles: TypeAlias = npt.NDArray[np.float64]


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


class CentralNoise:
    """The server's only way from updates to the next adapter; charged before it is taken.

    Args:
        privacy: σ and C.
        clients: n, a public number that nobody's presence changes.
        sampling_rate: p.
        ledger: the server's.
        secret: keys the noise; lives in memory only, so a restarted server has another, with which
            a new block of C begins.
        listed: who is who, where clients must wait; without it a client is whoever holds a
            registered key, and the ledger says so.

    Raises:
        ConfigurationError: who took part in rounds that the ledger holds is not known.
    """

    def __init__(
        self,
        *,
        privacy: ClientPrivacy,
        clients: int,
        sampling_rate: float,
        ledger: Path,
        secret: RunSecret | None = None,
        listed: ListedClients | None = None,
    ) -> None:
        self._privacy = privacy
        self._sampling_rate = sampling_rate
        self._denominator = clients * sampling_rate / privacy.min_separation
        self._secret = secret or RunSecret.generate()
        self._noise = _rows(privacy, self._secret)
        plan = privacy.stated | {"clients": clients, "sampling_rate": sampling_rate}
        self._ledger = Ledger.open(path=ledger, plan=plan)
        if self._secret.fixed_seed is not None:
            self._say(
                Note("fixed-seed", f"the noise came from the fixed seed {self._secret.fixed_seed}")
            )
        if privacy.correlated is not None and listed is None:
            self._say(UNLISTED)
        self.turns = self._turns(ledger.with_name("took_part.jsonl"), listed)

    def __call__(self, start: Arrays, updates: Mapping[str, Arrays]) -> Aggregate:
        """One round's release. A round in which nobody was drawn is noised and charged like any.

        Raises:
            LedgerError: the charge could not be written; nothing is released.
            PrivacyError: clients must wait, and whose the updates are is not known.
        """
        running = self.begin(start)
        for node, update in enumerate(updates.values()):
            running.add(node, update)
        return running.aggregate({})

    def begin(self, start: Arrays) -> ClippedSum:
        """One round's release, of updates as they come; charged once all have."""
        return ClippedSum(start=start, most=self._privacy.clipping_norm, release=self._released)

    def _released(self, before: Doubles, total: Doubles, updates: int) -> Doubles:
        """The next adapter's numbers, of so many clipped updates' sum."""
        step = self._next_step
        if self.turns is not None:
            self.turns.keep(number=step, updates=updates)
        event = self._privacy.event(after=step, sampling_rate=self._sampling_rate)
        self._ledger.charge(step=step, event=event)
        noise = self._noise.row(step=step, count=len(total))
        noised = total + self._privacy.noise_multiplier * self._privacy.clipping_norm * noise
        return np.asarray(before + noised / self._denominator)

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

    def _say(self, note: Note) -> None:
        """Write a note to the ledger, once."""
        if note not in self._ledger.notes:
            self._ledger.note(subject=note.subject, text=note.text)

    def _turns(self, path: Path, listed: ListedClients | None) -> Turns | None:
        """Who must wait, where clients do."""
        if self._privacy.correlated is None:
            return None
        try:
            return Turns(
                path=path,
                separation=self._privacy.min_separation,
                charged=self._next_step,
                listed=listed,
            )
        except ConfigurationError:
            self.close()
            raise


class ClippedSum:
    """The sum of one round's updates, each clipped as it comes; no update is kept.

    Args:
        start: the round's starting adapter.
        most: C, the norm to which each is clipped.
        release: charges the sum and noises it, for the next adapter's numbers.
    """

    def __init__(
        self, *, start: Arrays, most: float, release: Callable[[Doubles, Doubles, int], Doubles]
    ) -> None:
        self._start = start
        self._before = flat(start)
        self._most = most
        self._release = release
        self._sum = ExactSum(self._before.size)

    def add(self, node: int, update: Arrays) -> None:
        """Add one, in units of C.

        Raises:
            PrivacyError: there is no room for it; left out for others' sake, it would come in
                where one of them did not, who would so move the sum by 2C.
        """
        del node
        if self._sum.terms == MOST_TERMS:
            raise PrivacyError(
                f"more than {MOST_TERMS} updates came in one round, and none may be left out for "
                "another; nothing is released: ask fewer, by a lower client_sampling_rate"
            )
        moved = flat(update) - self._before
        length = float(np.linalg.norm(moved))
        if length:
            moved *= min(1 / self._most, 1 / length)
        self._sum.add(moved)

    def aggregate(self, names: Mapping[int, str]) -> Aggregate:
        """The round's release.

        Raises:
            LedgerError: the charge could not be written; nothing is released.
        """
        del names
        after = self._release(self._before, self._most * self._sum.total(), self._sum.terms)
        return Aggregate(arrays=unflat(after, like=self._start))


def _rows(privacy: ClientPrivacy, secret: RunSecret) -> CorrelatedNoise | BufferedNoise:
    """What draws the noise of one round after the other, over σC."""
    if privacy.correlated is None:
        return CorrelatedNoise(secret=secret, coefficients=(1.0,))
    column = privacy.correlated.column
    if not column.weights:
        return CorrelatedNoise(secret=secret, coefficients=column.coefficients)
    return BufferedNoise(
        secret=secret,
        first=column.coefficients[0],
        weights=column.weights,
        decays=column.decays,
    )


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
