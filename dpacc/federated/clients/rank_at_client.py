"""Which rank a client trains at now, and what it paid to choose it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from dpacc_accounting import Composed, ExponentialMechanism, Guarantee, epsilon

from dpacc.errors import ConfigurationError
from dpacc.federated.clients.local_training import LocalTraining
from dpacc.federated.ranks.rank_choice import (
    ADAPTIVE_SHARE,
    PrivateRank,
    PublicRank,
    RankLedger,
    votes,
)
from dpacc.federated.setting_limits import require_count
from dpacc.federated.settings import DPSettings, LoraSettings
from dpacc.federated.updates.layout import Arrays
from dpacc.randomness.run_secret import RunSecret


class OwnRank:
    """A client's rank, fixed, fitted or chosen.

    Args:
        rank: as `DPLoRAClient` takes it.
        lora: the shared adapter.
        dp: the client's budget, of which a private choice takes its part.
        folder: the client's.
        fixed_seed: for tests.

    Raises:
        ConfigurationError: a rank to choose with a trained A, any beside one a round for all, or a
            choice that costs all there is.
    """

    def __init__(
        self,
        rank: int | PublicRank | PrivateRank | Literal["adaptive"] | None,
        *,
        lora: LoraSettings,
        dp: DPSettings,
        folder: Path,
        fixed_seed: int | None,
    ) -> None:
        if rank == "adaptive":
            rank = PrivateRank(epsilon=ADAPTIVE_SHARE * dp.epsilon)
        if isinstance(rank, str):
            raise ConfigurationError(
                f"rank={rank!r} must be a number, 'adaptive', a PublicRank or a PrivateRank"
            )
        if rank is not None and not isinstance(rank, PublicRank | PrivateRank):
            require_count("rank", rank)
            if rank > lora.rank:
                raise ConfigurationError(
                    f"rank={rank} is above the shared adapter's, {lora.rank}; take at most that"
                )
        if rank is not None and lora.method == "dylora":
            raise ConfigurationError(
                f"rank={rank} with method='dylora', where all train at one rank a round: leave "
                "rank out, or take method='ffa' for ranks of their own"
            )
        if isinstance(rank, PublicRank | PrivateRank) and lora.method != "ffa":
            raise ConfigurationError(
                f"rank={rank} with method={lora.method!r}: a client's own rank needs method='ffa', "
                "which keeps A the same for all"
            )
        self._given, self._ledger = rank, None
        self._fixed_seed = fixed_seed
        if isinstance(rank, PrivateRank):
            if dp.budget is not None:
                raise ConfigurationError(
                    f"rank={rank} with budget={dp.budget}: the choice has a ledger of its own, of "
                    "which the data's budget knows nothing; give a number or a PublicRank"
                )
            if rank.epsilon >= dp.epsilon:
                raise ConfigurationError(
                    f"the choice of a rank costs epsilon={rank.epsilon} and the client has "
                    f"{dp.epsilon} for everything; lower the choice's"
                )
            self._ledger = RankLedger(setting=rank, folder=folder, shared=lora.rank, dp=dp)

    @property
    def now(self) -> int | PublicRank | None:
        """The rank to train at, or what it must fit."""
        if isinstance(self._given, PrivateRank):
            assert self._ledger is not None
            return self._ledger.rank
        return self._given

    @property
    def set_aside(self) -> float:
        """ε of the client's that noise must leave for the choice: they add up to its own."""
        return self._given.epsilon if isinstance(self._given, PrivateRank) else 0.0

    @property
    def charged(self) -> float:
        """ε of the choice, once it was paid for."""
        return self.set_aside if self._ledger is not None and self._ledger.charged else 0.0

    def settle(self, training: LocalTraining, start: Arrays) -> bool:
        """Choose the rank, once, as soon as there is an adapter to try; whether it changed."""
        ledger, setting = self._ledger, self._given
        if ledger is None or not isinstance(setting, PrivateRank) or not _trained(start):
            return False
        if ledger.charged or training.steps_charged >= training.plan.steps:
            return False
        secret = (
            RunSecret.generate()
            if self._fixed_seed is None
            else RunSecret.from_fixed_seed(self._fixed_seed)
        )
        losses = training.unit_losses(
            start, ranks=[0, *ledger.ranks], voters=setting.voters, secret=secret
        )
        counts = votes(losses.pop(0), losses, enough=setting.enough)
        before = ledger.rank
        rank = ledger.choose(counts, fixed_seed=self._fixed_seed)
        training.note(
            subject="rank-choice",
            text=f"a rank was chosen from the data by an exponential mechanism of range "
            f"{setting.epsilon:g}, which this ledger does not count: merge rank_ledger.jsonl",
        )
        return rank != before

    def spent(self, training: LocalTraining) -> Guarantee:
        """What all charged steps and the choice promise together."""
        if not self.charged:
            return training.spent
        plan = training.plan
        steps = plan.event(steps=training.steps_charged)
        return epsilon(
            event=Composed(events=(steps, ExponentialMechanism(epsilon=self.charged))),
            delta=plan.target_delta,
            adjacency=plan.adjacency,
            unit=plan.unit,
        ).noted(training.spent.notes)


def _trained(start: Arrays) -> bool:
    """Whether any B moved from zero, as all are before the first round."""
    return any(values.any() for name, values in start.items() if ".lora_B." in name)
