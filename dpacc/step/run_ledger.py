"""A run's ledger, as the ranks share it: rank 0 writes, all know how many steps are charged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from accelerate import Accelerator
from dpacc_accounting import Ledger, LedgerRecord, read_ledger
from dpacc_accounting.guarantee import Note

from dpacc.errors import ConfigurationError, require_local
from dpacc.plan import PrivacyPlan
from dpacc.ranks import collectives


class RunLedger:
    """Opens the ledger once, charges steps, and counts them on every rank.

    Args:
        accelerator: the launch's Accelerator.
        plan: what each charge is for.
        path: the ledger's file.

    Raises:
        ConfigurationError: the path is an address of another place.
    """

    def __init__(self, *, accelerator: Accelerator, plan: PrivacyPlan, path: Path) -> None:
        require_local(path, name="ledger")
        self._accelerator = accelerator
        self._plan = plan
        self.path = path
        self._ledger: Ledger | None = None
        self.steps_charged = 0
        self.notes: tuple[Note, ...] = ()

    def open(self, *, fixed_seed: int | None) -> None:
        """Open the ledger on the main process, and note a fixed seed in it.

        Raises:
            LedgerError: it holds another plan, is damaged, or is in use.
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
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    def read(self) -> LedgerRecord:
        """All that the ledger holds; for the main process alone."""
        return read_ledger(path=self.path)

    def _write(self, index: int) -> None:
        assert self._ledger is not None
        self._ledger.charge(step=index, event=self._plan.charge(index))

    def _open_here(self, fixed_seed: int | None) -> None:
        if self._ledger is not None:
            return
        self._ledger = Ledger.open(path=self.path, plan=self._plan.to_json())
        last = self._ledger.last_step
        begun = 0 if last is None else last + 1
        # This process has a secret of its own, which may only begin where all had their turn.
        self.steps_charged = self._plan.next_start(steps_charged=begun)
        self.notes = self._ledger.notes
        if fixed_seed is not None:
            self._note("fixed-seed", f"sampling and noise came from the fixed seed {fixed_seed}")

    def _note(self, subject: str, text: str) -> None:
        assert self._ledger is not None
        if Note(subject, text) not in self._ledger.notes:
            self._ledger.note(subject=subject, text=text)
        self.notes = self._ledger.notes


def record_saved(*, ledger: Path, files: Mapping[str, str]) -> None:
    """Write into a ledger that nobody has open what was saved from it.

    Args:
        ledger: its file.
        files: the SHA-256 of each file, by its name.

    Raises:
        LedgerError: it is damaged, in use, or cannot be written.
    """
    with Ledger.open(path=ledger, plan=read_ledger(path=ledger).plan) as opened:
        opened.saved(files=files)
