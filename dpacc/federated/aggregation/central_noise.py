"""A trusted server's rounds: clipped updates, summed and noised once a round."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from dpacc_accounting import Ledger
from dpacc_accounting.guarantee import Note

from dpacc.errors import ConfigurationError, PrivacyError
from dpacc.federated.aggregation.averaging import Aggregate
from dpacc.federated.aggregation.client_level import ClientPrivacy, said_beside
from dpacc.federated.aggregation.exact_sum import MOST_TERMS, ExactSum
from dpacc.federated.aggregation.listed_clients import UNLISTED, ListedClients
from dpacc.federated.aggregation.turns import Turns
from dpacc.federated.updates.layout import Arrays, flat, unflat
from dpacc.randomness.buffered_noise import BufferedNoise
from dpacc.randomness.correlated_noise import CorrelatedNoise
from dpacc.randomness.run_secret import RunSecret

Doubles: TypeAlias = npt.NDArray[np.float64]


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
