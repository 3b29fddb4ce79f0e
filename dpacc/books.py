"""A run's ledger, as the ranks share it: rank 0 writes, all know how many steps are charged."""

from __future__ import annotations

from pathlib import Path

from accelerate import Accelerator
from dpacc_accounting import Ledger, read_ledger

from dpacc import ranks
from dpacc.errors import ConfigurationError
from dpacc.plan import PrivacyPlan
from dpacc.settings import require_local


class Books:
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

    def open(self, *, fixed_seed: int | None) -> None:
        """Open the ledger on the main process, and note a fixed seed in it.

        Raises:
            LedgerError: it holds another plan, is damaged, or is in use.
        """
        ranks.on_main_process(self._accelerator, lambda: self._open_here(fixed_seed))
        self.steps_charged = ranks.share_from_main(self.steps_charged)

    def require_started(self) -> None:
        """Refuse to resume what was never begun.

        Raises:
            ConfigurationError: there is no ledger.
        """
        if not ranks.share_from_main(self.path.exists()):
            raise ConfigurationError(
                f"{self.path} does not exist, so there is no run to resume; check the folder"
            )

    def charge(self, index: int) -> None:
        """Write step `index` to disk on the main process, and count it on every rank.

        Raises:
            LedgerError: it could not be written; other ranks stop with a `DpaccError`.
        """
        ranks.on_main_process(self._accelerator, lambda: self._write(index))
        self.steps_charged = index + 1

    def note(self, *, subject: str, text: str) -> None:
        """Write a fact beside the releases, once, on the main process; the ledger must be open."""
        ranks.on_main_process(self._accelerator, lambda: self._note_once(subject, text))

    def close(self) -> None:
        """Let the next run open the ledger."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    @property
    def run(self) -> str:
        """The ledger's own name, drawn when it was made; for the main process alone."""
        return read_ledger(path=self.path).run

    def _write(self, index: int) -> None:
        assert self._ledger is not None
        self._ledger.charge(step=index, event=self._plan.step_event)

    def _open_here(self, fixed_seed: int | None) -> None:
        if self._ledger is not None:
            return
        self._ledger = Ledger.open(path=self.path, plan=self._plan.to_json())
        self.steps_charged = self._ledger.steps_charged
        if fixed_seed is not None:
            self._note("fixed-seed", f"sampling and noise came from the fixed seed {fixed_seed}")

    def _note_once(self, subject: str, text: str) -> None:
        held = {(note.subject, note.text) for note in read_ledger(path=self.path).notes}
        if (subject, text) not in held:
            self._note(subject, text)

    def _note(self, subject: str, text: str) -> None:
        assert self._ledger is not None
        self._ledger.note(subject=subject, text=text)
