"""Going on with a run that died: its last checkpoint, then its journal, then new steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from accelerate import Accelerator
from dpacc_accounting import LedgerRecord
from torch import nn

from dpacc.errors import ConfigurationError
from dpacc.layers.subspace import Subspace
from dpacc.plan import PrivacyPlan
from dpacc.ranks import collectives
from dpacc.ranks.backends import Backend
from dpacc.step.accumulation import AdaptiveBound
from dpacc.step.checkpoint import Checkpoint, Checkpoints, JournalEntry, adopt
from dpacc.step.run_ledger import RunLedger
from dpacc.step.update_rule import Schedule, SchedulePace, require_same_rule


class Resumption:
    """Saves and restores everything a run's future depends on but its secret, which is new.

    Args:
        accelerator: the launch's Accelerator.
        backend: keeps the optimizer's state, and replays journalled gradients.
        checkpoints: where the state is kept.
        run_ledger: which run it is, and what was charged.
        plan: what the run promised.
        adapters: name and trainable parameter.
        scheduler: its state is kept, if there is one; it is stepped once a replayed update.
        rule: how updates are made; a resume must have the same.
        bound: the clipping norm, which may have adapted.
        subspace: what its directions are found by, if the run goes on in one.
    """

    def __init__(
        self,
        *,
        accelerator: Accelerator,
        backend: Backend,
        checkpoints: Checkpoints,
        run_ledger: RunLedger,
        plan: PrivacyPlan,
        adapters: Mapping[str, nn.Parameter],
        scheduler: Schedule | None,
        rule: Mapping[str, Any],
        bound: AdaptiveBound,
        subspace: Subspace | None = None,
    ) -> None:
        self._accelerator = accelerator
        self._backend = backend
        self._checkpoints = checkpoints
        self._run_ledger = run_ledger
        self._plan = plan
        self._adapters = adapters
        self._scheduler = scheduler
        self._pace = SchedulePace(scheduler)
        self._rule = rule
        self._bound = bound
        self._subspace = subspace

    def save(self, step: int) -> None:
        """Write a checkpoint that holds the effects of the steps before `step`.

        Where the optimizer's state is cut over ranks, each keeps its part; the checkpoint appears
        when all of them have.

        Raises:
            ConfigurationError: the scheduler was not stepped once an update.
        """
        self._pace.require(step)
        parts = self._keep_parts() if self._backend.cuts_optimizer else []
        with self._backend.whole_adapters():
            collectives.on_main_process(self._accelerator, lambda: self._save_here(step, parts))

    def restore(self) -> None:
        """Load the last checkpoint on every rank and replay the journal after it.

        A run that died before its first checkpoint has charged nothing, and starts as it is.
        """
        begun = collectives.share_from_main(self._checkpoints.begun)
        if not begun and self._run_ledger.steps_charged == 0:
            return
        checkpoint, entries = self._read_on_main()
        state = checkpoint.state["optimizer"]
        if self._backend.cuts_optimizer:
            rank = self._accelerator.process_index
            state = collectives.together(lambda: self._checkpoints.part(checkpoint, rank=rank))
        with self._backend.whole_adapters(changed=True):
            adopt(self._adapters, checkpoint.state["adapters"])
        self._backend.restore_optimizer(state)
        if self._scheduler is not None:
            self._scheduler.load_state_dict(checkpoint.state["scheduler"])
        self._bound.value = checkpoint.state["bound"]
        if self._subspace is not None:
            self._subspace.load(checkpoint.state["subspace"])
        for entry in entries:
            self._replay(entry)

    def _keep_parts(self) -> list[str]:
        """The checksums of what each rank kept, in the order of ranks."""
        collectives.on_main_process(self._accelerator, self._checkpoints.make_room_for_parts)
        rank, state = self._accelerator.process_index, self._backend.optimizer_state()
        kept = collectives.together(lambda: self._checkpoints.keep_part(rank=rank, state=state))
        return collectives.tell_all(kept)

    def _save_here(self, step: int, parts: Sequence[str]) -> None:
        state: dict[str, Any] = {
            "adapters": dict(self._adapters),
            "optimizer": None if parts else self._backend.optimizer_state(),
            "scheduler": self._scheduler.state_dict() if self._scheduler else None,
            "bound": self._bound.value,
        }
        if self._subspace is not None:
            state["subspace"] = self._subspace.state()
        self._checkpoints.save(step=step, facts=self._facts(), state=state, parts=parts)

    def _facts(self) -> dict[str, Any]:
        record = self._run_ledger.read()
        return {
            "run": record.run,
            "ledger": record.head,
            "plan": self._plan.fingerprint,
            "optimizer": self._backend.placement,
            "update rule": dict(self._rule),
        }

    def _read_on_main(self) -> tuple[Checkpoint, list[JournalEntry]]:
        found: list[tuple[Checkpoint, list[JournalEntry]]] = []
        collectives.on_main_process(self._accelerator, lambda: found.append(self._read_here()))
        shared: tuple[Checkpoint, list[JournalEntry]] = collectives.share_from_main(
            found[0] if found else None
        )
        return shared

    def _read_here(self) -> tuple[Checkpoint, list[JournalEntry]]:
        checkpoint = self._checkpoints.latest()
        facts = checkpoint.facts
        placement = facts.get("optimizer")
        if placement != self._backend.placement:
            raise ConfigurationError(
                f"the checkpoint's optimizer state is {placement}, and this launch's "
                f"{self._backend.placement}; resume with the launch configuration and the number "
                "of processes that the run was started with"
            )
        record = self._run_ledger.read()
        if (facts.get("run"), facts.get("plan")) != (record.run, self._plan.fingerprint):
            raise ConfigurationError(
                f"the checkpoints belong to another run than {self._run_ledger.path}; resume with "
                "the folder and the settings that the run was started with"
            )
        require_same_rule(started=facts.get("update rule", {}), resumed=self._rule)
        entries = list(self._checkpoints.journalled(since=checkpoint.step))
        done = checkpoint.step + len(entries)
        if done > self._run_ledger.steps_charged:
            raise ConfigurationError(
                f"{done} steps were released and {self._run_ledger.path} holds only "
                f"{self._run_ledger.steps_charged}: the ledger was cut or replaced; restore it"
            )
        self._require_same_branch(record, facts, entries)
        return checkpoint, entries

    def _require_same_branch(
        self, record: LedgerRecord, facts: Mapping[str, Any], entries: Sequence[JournalEntry]
    ) -> None:
        """Refuse a ledger that does not hold the very lines under which the steps were released.

        Raises:
            ConfigurationError: a copy or a backup of the ledger went on in its place.
        """
        lines = {facts.get("ledger", record.head), *(entry.charge for entry in entries)}
        if not lines <= {*record.chain, ""}:
            raise ConfigurationError(
                f"{self._run_ledger.path} does not hold the lines under which the checkpointed "
                "steps were released: a copy or a backup of it went on in its place; restore the "
                "ledger that was written beside these checkpoints, and merge both for what they "
                "cost"
            )

    def _replay(self, entry: JournalEntry) -> None:
        gradient = entry.gradient.to(self._accelerator.device)
        if self._subspace is not None:
            self._subspace.follow(entry.step, gradient)
        self._backend.update(list(self._adapters.values()), gradient)
        if self._scheduler is not None:
            self._scheduler.step()
        self._bound.value = entry.bound
