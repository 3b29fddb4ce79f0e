"""Who may write a line into a budget: a run that begins, one that has ended, and its owner."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from dpacc_accounting.budget.fingerprint import data_fingerprint
from dpacc_accounting.budget.grants import require_covered, require_room
from dpacc_accounting.budget.key_file import BudgetError, held, read_key, remember_head
from dpacc_accounting.budget.matching import (
    require_known_to_each_other,
    require_no_void,
    require_same_promise,
    require_unspent,
    spent_by,
)
from dpacc_accounting.budget.record import (
    BudgetRecord,
    Share,
    bytes_of,
    parse,
    read_budget,
    require_remembered,
    share_to_json,
)
from dpacc_accounting.events.event import Event
from dpacc_accounting.events.participation import NOTHING
from dpacc_accounting.guarantee import Note
from dpacc_accounting.ledger.disk import sync_file
from dpacc_accounting.ledger.locks import lock_alone
from dpacc_accounting.ledger.record import LedgerError, LedgerRecord, read_ledger, seal
from dpacc_accounting.ledger.writer import Ledger, write_all

_NO_STEP = "the owner said that no step was taken; its ledger was not seen"


class Budget:
    """One data set's total, of which each run reserves its whole plan before its first step.

    What was granted never exceeds (ε, δ): the exact composition of what finished runs spent, of
    what open ones may still spend, and of the one that asks. Many processes may ask at once.

    Args:
        path: the registry's file.

    >>> import tempfile
    >>> from dpacc_accounting import Gaussian, create_budget
    >>> folder = tempfile.TemporaryDirectory()
    >>> here = Path(folder.name)
    >>> create_budget(path=here / "budget.jsonl", name="notes", epsilon=2.9, delta=1e-5)
    >>> budget = Budget(path=here / "budget.jsonl")
    >>> plan = {"unit": "example", "adjacency": "add-or-remove", "target_delta": 1e-5, "steps": 4}
    >>> planned = Gaussian(noise_multiplier=2.0)
    >>> with Ledger.open(path=here / "first.jsonl", plan=plan) as ledger:
    ...     budget.reserve(ledger=ledger, planned=planned)
    ...     ledger.charge(step=0, event=planned)
    >>> budget.commit(ledgers=[here / "first.jsonl"]).state
    'committed'
    >>> with Ledger.open(path=here / "second.jsonl", plan=plan) as ledger:
    ...     budget.reserve(ledger=ledger, planned=planned)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    dpacc_accounting.budget.grants.BudgetExceeded: budget 'notes' allows ε = 2.9 at δ = 1e-05; \
earlier runs (1, 0 only reserved) hold ε = 1.994, and with this one all would cost ε = 2.944...
    >>> folder.cleanup()
    """

    def __init__(self, *, path: Path | str) -> None:
        self.path = Path(path).expanduser()

    def read(self) -> BudgetRecord:
        """What it holds now; see `read_budget`."""
        return read_budget(path=self.path)

    def require_data(self, *, data: Path | str) -> None:
        """Refuse another data set than the budget's.

        Raises:
            BudgetError: its bytes are others.
            ValueError: it cannot be read.
        """
        record = self.read()
        if record.fingerprint is None:
            return
        found = data_fingerprint(key=read_key(path=record.key).secret, data=data)
        if found != record.fingerprint:
            raise BudgetError(
                f"{data} is not the data of budget {record.name!r}, whose fingerprint is another: "
                "name the budget of this data, or restore the file"
            )

    def reserve(self, *, ledger: Ledger, planned: Event) -> None:
        """Set aside all that a run may release, before its first step, and once however often it
        is resumed.

        Args:
            ledger: the run's, open; it gets a line that names this budget.
            planned: the whole plan, steps already charged included.

        Raises:
            BudgetExceeded: all runs together would cost more than the total.
            BudgetError: another unit or adjacency; a ledger that voids every claim, holds more than
                the plan, or is an older copy of one that went on; a budget that was shortened.
        """
        with self._held() as record:
            books = read_ledger(path=ledger.path)
            share = record.shares.get(books.run)
            require_same_promise(record, books)
            require_no_void(books)
            require_known_to_each_other(record, share, {str(ledger.path): books}, path=self.path)
            if share is not None and share.planned not in (None, planned):
                raise BudgetError(
                    f"run {books.run} reserved another plan: resume it with that one, or give "
                    "the new plan a ledger of its own"
                )
            if share is None or share.state != "reserved":
                require_covered(record=record, books=books, planned=planned)
                require_room(record=record, run=books.run, planned=planned)
            ledger.granted(budget=record.budget, head=record.head)
            self._append(
                record,
                Share(
                    run=books.run,
                    state="reserved",
                    event=planned,
                    planned=planned,
                    anchors=(ledger.head,),
                    ledgers={str(ledger.path.resolve()): len(books.releases)},
                ),
            )

    def open_ledger(
        self,
        *,
        path: Path | str,
        plan: Mapping[str, Any],
        planned: Event,
        notes: Iterable[Note] = (),
    ) -> Ledger:
        """Open a run's ledger within the budget; a new one that is refused leaves no file.

        Args:
            path: the ledger's file.
            plan: its first line's.
            planned: see `reserve`.
            notes: what voids or qualifies the run, if the ledger does not say so yet.

        Raises:
            LedgerError: see `Ledger.open`.
            BudgetError: see `reserve`.
        """
        path = Path(path)
        new = not path.exists()
        ledger = Ledger.open(path=path, plan=plan)
        try:
            for note in notes:
                if note not in ledger.notes:
                    ledger.note(subject=note.subject, text=note.text)
            self.reserve(ledger=ledger, planned=planned)
        except BaseException:
            ledger.close()
            if new:
                path.unlink()
            raise
        return ledger

    def commit(self, *, ledgers: Sequence[Path | str]) -> Share:
        """Set what a run holds to what it really spent, as its ledger says.

        The ledger of a run that never reserved is taken, too, over the total or not: what was
        spent was spent. A run that goes on later reserves again.

        Args:
            ledgers: the run's, closed; several where copies of it went on apart.

        Returns:
            What the run holds now.

        Raises:
            LedgerError: one is in use, damaged, or missing.
            BudgetError: they are of several runs, lack lines that this run's ledger had, or are
                of another unit or adjacency; a budget that was shortened.
        """
        if not ledgers:
            raise BudgetError("no ledger was given; name that of the run")
        with ExitStack() as locks:
            records = {str(Path(each).resolve()): _locked(Path(each), locks) for each in ledgers}
            books = next(iter(records.values()))
            if len({each.run for each in records.values()}) > 1:
                raise BudgetError("these ledgers are of several runs: commit one run at a time")
            with self._held() as record:
                share = record.shares.get(books.run)
                for each in records.values():
                    require_same_promise(record, each)
                require_known_to_each_other(record, share, records, path=self.path)
                voids = (n.text for each in records.values() for n in each.notes if n.voids)
                spent = Share(
                    run=books.run,
                    state="committed",
                    event=spent_by(records, delta=record.delta),
                    planned=None if share is None else share.planned,
                    anchors=tuple(each.head for each in records.values()),
                    ledgers={path: len(each.releases) for path, each in records.items()},
                    voids=tuple(dict.fromkeys(voids)),
                )
                self._append(record, spent)
        return spent

    def release(
        self, *, run: str, ledger: Path | str | None = None, no_step_was_taken: bool = False
    ) -> Share:
        """Give a reservation back of which nothing was spent.

        Args:
            run: its number, or the beginning of it.
            ledger: its ledger, if it is not where it was.
            no_step_was_taken: the owner's word, which is recorded, where the ledger is lost.

        Returns:
            What the run holds now.

        Raises:
            BudgetError: no such reservation; its ledger holds a charge, or is another's; or it is
                lost and nobody says that no step was taken.
            LedgerError: the ledger is in use, or damaged.
        """
        with ExitStack() as locks:
            share = _named(self.read(), run)
            path = Path(next(iter(share.ledgers)) if ledger is None else ledger)
            books = _locked(path, locks) if path.exists() else None
            with self._held() as record:
                share = _named(record, share.run)
                if books is None and not no_step_was_taken:
                    raise BudgetError(
                        f"the ledger {path} of run {share.run} is missing, so nobody knows what it "
                        "spent: name it with --ledger, or say --no-step-was-taken, which is "
                        "recorded"
                    )
                if books is not None:
                    require_unspent(share, books, path)
                    require_known_to_each_other(record, share, {str(path): books}, path=self.path)
                given_back = Share(
                    run=share.run,
                    state="released",
                    event=NOTHING,
                    planned=share.planned,
                    anchors=share.anchors,
                    ledgers={str(path.resolve()): 0},
                    said=_NO_STEP if books is None else None,
                )
                self._append(record, given_back)
        return given_back

    @contextmanager
    def _held(self) -> Iterator[BudgetRecord]:
        """What it holds, while nobody else changes it."""
        key_path = self.read().key
        with held(path=key_path):
            record, size = parse(bytes_of(self.path), path=self.path)
            require_remembered(record, key=read_key(path=key_path), path=self.path)
            self._mend(size)
            yield record

    def _mend(self, size: int) -> None:
        """Cut away what a crash tore, of which nobody was told."""
        with self._writing() as file:
            file.truncate(size)
            file.seek(size - 1)
            if file.read(1) != b"\n":
                file.write(b"\n")

    def _append(self, record: BudgetRecord, share: Share) -> None:
        line, head = seal(share_to_json(share), previous=record.head)
        with self._writing() as file:
            size = file.seek(0, os.SEEK_END)
            try:
                write_all(file.fileno(), line)
                sync_file(file.fileno())
            except BaseException:
                with suppress(OSError):
                    file.truncate(size)
                raise
            remember_head(path=record.key, head=head)

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        try:
            with self.path.open("r+b", buffering=0) as file:
                yield file
        except OSError as failure:
            raise BudgetError(f"cannot write budget {self.path}: {failure.strerror}") from failure


def _locked(path: Path, locks: ExitStack) -> LedgerRecord:
    """A ledger that nobody writes to, as long as the locks last."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError as failure:
        raise LedgerError(f"cannot read ledger {path}: {failure.strerror}") from failure
    locks.callback(os.close, descriptor)
    lock_alone(descriptor, path=path)
    return read_ledger(path=path)


def _named(record: BudgetRecord, run: str) -> Share:
    found = [each for each in record.holding("reserved") if run and each.run.startswith(run)]
    if len(found) != 1:
        raise BudgetError(
            f"budget {record.name!r} has {len(found)} open reservations of run {run!r}: name one "
            "that 'dpacc budget show' lists as reserved"
        )
    return found[0]
