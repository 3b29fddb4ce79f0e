"""A client's own rank: from public facts for nothing, or from its data for a little of its ε."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Context, Decimal
from fractions import Fraction
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt
from dpacc_accounting import Adjacency, ExponentialMechanism, Ledger

from dpacc.artifacts.run_folder import write_file
from dpacc.errors import ConfigurationError
from dpacc.federated.setting_limits import require_count, require_positive
from dpacc.federated.settings import DPSettings
from dpacc.federated.updates.compressed_updates import payload_bytes
from dpacc.federated.updates.compression import Compression

ADAPTIVE_SHARE = 0.05
"""What `rank="adaptive"` takes of a client's ε."""

_COPIES = 6
"""fp32 numbers for each trained one: itself, AdamW's two, and three of the sum, as planned."""

_FARTHEST = 200
"""Log-odds beyond which a choice is no less likely still."""

_DIGITS = Context(prec=150)
_WHOLE = 10**140

Losses = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PublicRank:
    """The largest rank that fits what is known of the machine and its line: costs no privacy.

    Args:
        memory_bytes: for the trained part: adapter, optimizer, sums and per-example gradients; the
            base and its activations are not counted.
        upload_bytes: that one round's update may take, without the frame of its message.
        gradients_kept: per-example gradients in memory at once.
    """

    memory_bytes: float | None = None
    upload_bytes: float | None = None
    gradients_kept: int = 8

    def __post_init__(self) -> None:
        for name in ("memory_bytes", "upload_bytes"):
            if getattr(self, name) is not None:
                require_positive(name, getattr(self, name))
        require_count("gradients_kept", self.gradients_kept)

    def largest(
        self,
        *,
        shared: int,
        outputs: int,
        others: int = 0,
        compression: Compression | None = None,
    ) -> int:
        """r, at most the shared one.

        Rank r trains r·outputs + others numbers, of which memory holds 6 + gradients_kept copies in
        fp32.

        Args:
            shared: the shared adapter's rank.
            outputs: of all adapted layers together; A is frozen.
            others: trained numbers that no rank changes, such as a head's.
            compression: of what is sent.

        Raises:
            ConfigurationError: not even rank 1 fits.

        >>> PublicRank(upload_bytes=40_000).largest(shared=16, outputs=1000)
        10
        >>> PublicRank(upload_bytes=40_000).largest(
        ...     shared=64, outputs=1000, compression=Compression(bits=8))
        39
        """
        for rank in range(shared, 0, -1):
            count = rank * outputs + others
            memory = 4 * count * (_COPIES + self.gradients_kept)
            sent = payload_bytes(compression, count=count)
            if memory <= (self.memory_bytes or memory) and sent <= (self.upload_bytes or sent):
                return rank
        raise ConfigurationError(
            f"rank 1 needs {memory:,} bytes of memory and sends {sent:,}; memory_bytes="
            f"{self.memory_bytes} and upload_bytes={self.upload_bytes} allow less"
        )


@dataclass(frozen=True, kw_only=True)
class PrivateRank:
    """The rank that most of a client's examples are content with, by an exponential mechanism.

    Before its second round a client tries each candidate r on the adapter that the server sent, of
    which it keeps the first r columns of B. An example votes for the smallest rank that brings
    `enough` of the most that any brings it: ℓ₀ − ℓ_r ≥ enough·max(ℓ₀ − ℓ_r′). A rank is then drawn
    with chance ∝ e^(ε·votes).

    One example more adds one vote, to one rank: log-odds move by ε at most and in one direction, so
    the choice is an exponential mechanism of range ε (Dong, Durfee & Rogers, arXiv 1909.13830).
    Examples are tried one by one, so that none changes how another's loss is rounded.

    Args:
        epsilon: ε of the choice, taken from the client's own before its noise is sized.
        candidates: ranks; by default the shared one, and its half, quarter and eighth.
        enough: of the most that an example gains.
        voters: how many examples vote on average, by secret coins; no credit is taken for them.
    """

    epsilon: float
    candidates: tuple[int, ...] | None = None
    enough: float = 0.9
    voters: int = 512

    def __post_init__(self) -> None:
        require_positive("epsilon", self.epsilon)
        require_positive("enough", self.enough, at_most=1)
        require_count("voters", self.voters)
        for rank in self.candidates or ():
            require_count("candidates", rank)

    def ranks(self, shared: int) -> tuple[int, ...]:
        """The candidates, in rising order.

        >>> PrivateRank(epsilon=0.1).ranks(16)
        (2, 4, 8, 16)
        """
        found = self.candidates or tuple(shared // part for part in (8, 4, 2, 1) if shared >= part)
        if not all(1 <= rank <= shared for rank in found):
            raise ConfigurationError(f"candidates={found} must lie from 1 to the shared {shared}")
        return tuple(sorted(set(found)))


RankChoice = int | PublicRank | PrivateRank


def votes(without: Losses, losses: Mapping[int, Losses], *, enough: float) -> dict[int, int]:
    """How many units vote for each rank.

    Args:
        without: each unit's loss without adapter.
        losses: each unit's loss at every candidate rank.
        enough: the share of its best gain with which a unit is content.

    >>> votes(np.array([3.0, 3.0]), {1: np.array([2.9, 2.0]), 2: np.array([2.0, 1.95])}, enough=0.9)
    {1: 1, 2: 1}
    """
    ranks = sorted(losses)
    with np.errstate(invalid="ignore"):
        gains = np.stack([without - losses[rank] for rank in ranks])
    gains = np.where(np.isfinite(gains), gains, -np.inf)
    best = gains.max(axis=0, initial=0.0)
    # Whoever gains nothing is content with the smallest.
    content = (gains >= enough * best) | (best <= 0)
    counted = np.bincount(content.argmax(axis=0), minlength=len(ranks))
    return {rank: int(count) for rank, count in zip(ranks, counted, strict=True)}


def weights_of(counts: Mapping[int, int], *, epsilon: float) -> dict[int, int]:
    """Whole numbers of up to 140 digits, in proportion to e^(ε·votes).

    None is below e^−200 of the largest: floating point would make some chances 0, which no ε
    describes.
    """
    most, weights = max(counts.values()), {}
    for rank in sorted(counts):
        behind = min(Fraction(epsilon) * (most - counts[rank]), Fraction(_FARTHEST))
        exponent = _DIGITS.divide(Decimal(-behind.numerator), Decimal(behind.denominator))
        weights[rank] = int(_DIGITS.multiply(_DIGITS.exp(exponent), Decimal(_WHOLE)))
    return weights


def draw_rank(counts: Mapping[int, int], *, epsilon: float, coins: Random) -> int:
    """One of the ranks, with a chance exactly in proportion to its weight."""
    weights = weights_of(counts, epsilon=epsilon)
    place = coins.randrange(sum(weights.values()))
    for rank, weight in weights.items():
        if place < weight:
            return rank
        place -= weight
    raise AssertionError("a place below the sum lies in one of its parts")


class RankLedger:
    """The ledger of one choice, and the choice.

    It is a ledger of its own, `rank_ledger.jsonl`; `dpacc merge-ledgers` adds it to that of the
    training. A choice that was charged and then lost is not made again.

    Args:
        setting: how the rank is chosen.
        folder: the client's.
        shared: the shared adapter's rank.
        dp: the client's privacy, in whose δ and unit the choice is stated.
    """

    def __init__(self, *, setting: PrivateRank, folder: Path, shared: int, dp: DPSettings) -> None:
        self._setting = setting
        self._stated = {
            "target_delta": dp.delta,
            "unit": dp.unit_field or "example",
            "adjacency": str(Adjacency.ADD_OR_REMOVE),
        }
        self._ranks = setting.ranks(shared)
        self._shared = shared
        self._ledger = folder / "rank_ledger.jsonl"
        self._choice = folder / "rank.json"

    @property
    def ranks(self) -> Sequence[int]:
        """The candidates."""
        return self._ranks

    @property
    def charged(self) -> bool:
        """Whether the choice was paid for."""
        return self._ledger.exists() and self._open(charge=False)

    @property
    def rank(self) -> int:
        """What was chosen; the shared rank before, and where the choice was lost."""
        if not self._choice.exists():
            return self._shared
        return int(json.loads(self._choice.read_text())["rank"])

    def choose(self, counts: Mapping[int, int], *, fixed_seed: int | None = None) -> int:
        """Charge the choice, then make it, then keep it.

        Raises:
            LedgerError: the charge could not be written; nothing is chosen.
        """
        self._open(charge=True, fixed_seed=fixed_seed)
        coins = secrets.SystemRandom() if fixed_seed is None else Random(fixed_seed)
        rank = draw_rank(counts, epsilon=self._setting.epsilon, coins=coins)
        write_file(path=self._choice, content=json.dumps({"rank": rank}).encode())
        return rank

    def _open(self, *, charge: bool, fixed_seed: int | None = None) -> bool:
        choice = {"choice": "rank", **asdict(self._setting), "candidates": list(self._ranks)}
        plan = choice | self._stated
        with Ledger.open(path=self._ledger, plan=plan) as ledger:
            if fixed_seed is not None:
                ledger.note(
                    subject="fixed-seed", text=f"the choice came from the fixed seed {fixed_seed}"
                )
            if charge:
                event = ExponentialMechanism(epsilon=self._setting.epsilon)
                ledger.charge(step=0, event=event)
            return ledger.steps_charged > 0
