"""A run's ledger, as the ranks share it: rank 0 writes, all know how many steps are charged."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

from accelerate import Accelerator
from dpacc_accounting import Budget, Ledger, LedgerError, LedgerRecord, read_ledger
from dpacc_accounting.guarantee import Note
from dpacc_accounting.ledger.writer import record_saved

from dpacc.errors import ConfigurationError, require_local
from dpacc.plan import PrivacyPlan
from dpacc.ranks import collectives


class RunLedger:
    """Opens the ledger once, charges steps, and counts them on every rank.

    Args:
        accelerator: the launch's Accelerator.
        plan: what each charge is for.
        path: the ledger's file.
        budget: that of the data set, if it has one: the whole plan is reserved of it when the
            ledger is opened, and what was spent is committed when a run that took all its steps
            closes it.

    Raises:
        ConfigurationError: the path is an address of another place.
    """

    def __init__(
        self,
        *,
        accelerator: Accelerator,
        plan: PrivacyPlan,
        path: Path | str,
        budget: Path | str | None = None,
    ) -> None:
        require_local(path, name="ledger")
        self._accelerator = accelerator
        self._plan = plan
        self._budget = None if budget is None else Budget(path=budget)
        self.path = Path(path)
        self._ledger: Ledger | None = None
        self.steps_charged = 0
        self.notes: tuple[Note, ...] = ()

    def open(self, *, fixed_seed: int | None) -> None:
        """Open the ledger on the main process, and note a fixed seed in it.

        Raises:
            LedgerError: it holds another plan, is damaged, or is in use; or the data set's budget
                refuses the run.
        """
        collectives.on_main_process(self._accelerator, lambda: self._open_here(fixed_seed))
        self.steps_charged, self.notes = collectives.share_from_main(
            (self.steps_charged, self.notes)
        )

    def require_started(self) -> None:
        """Refuse to resume what was never begun.

        Raises:
            ConfigurationError: there is no ledger.
        """
        if not collectives.share_from_main(self.path.exists()):
            raise ConfigurationError(
                f"{self.path} does not exist, so there is no run to resume; check the folder"
            )

    def charge(self, index: int) -> str:
        """Write step `index` to disk on the main process, and count it on every rank.

        Returns:
            The hash of its line, on the main process; nothing on the others.

        Raises:
            LedgerError: it could not be written; other ranks stop with a `DpaccError`.
        """
        collectives.on_main_process(self._accelerator, lambda: self._write(index))
        self.steps_charged = index + 1
        return self._ledger.head if self._ledger is not None else ""

    def note(self, *, subject: str, text: str) -> None:
        """Write a fact beside the releases, on the main process; the ledger must be open.

        A fact that the ledger holds already is not written again.
        """
        collectives.on_main_process(self._accelerator, lambda: self._note(subject, text))
        self.notes = collectives.share_from_main(self.notes)

    def record_saved(self, *, files: Mapping[str, str]) -> None:
        """Write down what was saved, also after the ledger was closed; for the main process alone.

        Args:
            files: the SHA-256 of each file, by its name.

        Raises:
            LedgerError: it could not be written.
        """
        if self._ledger is not None:
            self._ledger.saved(files=files)
        else:
            record_saved(ledger=self.path, files=files)

    def close(self) -> None:
        """Let the next run open the ledger."""
        if self._ledger is None:
            return
        self._ledger.close()
        self._ledger = None
        if self._budget is not None and self.steps_charged >= self._plan.steps:
            self._commit(self._budget)

    def read(self) -> LedgerRecord:
        """All that the ledger holds; for the main process alone."""
        return read_ledger(path=self.path)

    def _write(self, index: int) -> None:
        assert self._ledger is not None
        self._ledger.charge(step=index, event=self._plan.charge(index))

    def _open_here(self, fixed_seed: int | None) -> None:
        if self._ledger is not None:
            return
        seeded = f"sampling and noise came from the fixed seed {fixed_seed}"
        voids = () if fixed_seed is None else (Note("fixed-seed", seeded),)
        if self._budget is None or self._is_through():
            self._ledger = Ledger.open(path=self.path, plan=self._plan.to_json())
        else:
            self._ledger = self._budget.open_ledger(
                path=self.path, plan=self._plan.to_json(), planned=self._plan.event(), notes=voids
            )
        self.steps_charged = self._next_step(self._ledger.last_step)
        self.notes = self._ledger.notes
        for note in voids:
            self._note(*note)

    def _is_through(self) -> bool:
        """Whether no step is left to take, so that nothing more is asked of a budget."""
        if not self.path.exists():
            return False
        try:
            return self._next_step(self.read().last_step) >= self._plan.steps
        except LedgerError:  # of a first line that was torn, say: whoever opens it sees to that
            return False

    def _next_step(self, last: int | None) -> int:
        # This process has a secret of its own, which may only begin where all had their turn.
        return self._plan.next_start(steps_charged=0 if last is None else last + 1)

    def _commit(self, budget: Budget) -> None:
        try:
            budget.commit(ledgers=[self.path])
        except LedgerError as refusal:
            warnings.warn(
                f"{refusal}; until 'dpacc budget commit {budget.path} {self.path}' this run counts "
                "with its whole plan",
                stacklevel=3,
            )

    def _note(self, subject: str, text: str) -> None:
        assert self._ledger is not None
        if Note(subject, text) not in self._ledger.notes:
            self._ledger.note(subject=subject, text=text)
        self.notes = self._ledger.notes
