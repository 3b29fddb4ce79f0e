"""The books of a training run: every release is on the disk before it leaves the process.

:class:`Ledger` writes them, :func:`read_ledger` reads them back;
:mod:`dpacc_accounting.ledger.record` says how their lines are chained.
"""

import json
import operator
import os
import warnings
import weakref
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from dpacc_accounting.events.documents import event_to_json
from dpacc_accounting.events.event import Event
from dpacc_accounting.guarantee import Note
from dpacc_accounting.ledger.disk import sync_file, sync_folder
from dpacc_accounting.ledger.locks import lock_alone
from dpacc_accounting.ledger.plan_settings import PRICED, missing_settings
from dpacc_accounting.ledger.record import (
    START,
    VERSION,
    LedgerError,
    LedgerRecord,
    Release,
    is_torn_opening,
    parse,
    read_ledger,
    seal,
)

__all__ = ["Ledger", "LedgerError", "LedgerRecord", "Note", "Release", "read_ledger"]

_HOW = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)


class Ledger:
    """The one writer of a ledger file; use it as a context manager, or call :meth:`close`.

    >>> import tempfile
    >>> from dpacc_accounting.events.event import Gaussian
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name) / "ledger.jsonl"
    >>> plan = {"steps": 2, "unit": "example", "adjacency": "add-or-remove", "target_delta": 1e-5}
    >>> with Ledger.open(path=path, plan=plan) as ledger:
    ...     ledger.charge(step=1, event=Gaussian(noise_multiplier=2.0))
    ...     ledger.charge(step=2, event=Gaussian(noise_multiplier=2.0))
    >>> read_ledger(path=path).event
    Repeated(event=Gaussian(noise_multiplier=2.0), times=2)
    >>> folder.cleanup()
    """

    def __init__(self, *, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._close = weakref.finalize(self, os.close, descriptor)
        self._size = 0
        self._head, self._run = START, ""
        self._steps_charged = 0
        self._next_step = 0
        self._notes: list[Note] = []
        self._saved: Mapping[str, str] | None = None
        self._session_due = False

    @classmethod
    def open(cls, *, path: Path | str, plan: Mapping[str, Any]) -> Self:
        """Create the ledger at ``path``, or reopen it when it was opened for the same ``plan``.

        The file is made with mode 0600 and stays locked until :meth:`close`; a last line torn by
        a crash is cut away. The first line written after a reopening follows a session line, a
        random number by which copies that went on are told apart.

        Warns:
            UserWarning: a new ledger's plan lacks what a price needs, ``adjacency``, ``unit`` or
                ``target_delta``; its first line cannot be changed later.

        Raises:
            LedgerError: somebody else writes to it, it is damaged, it was opened for another
                plan, or the disk refuses.
        """
        path = Path(path)
        document = _plain_plan(plan=plan)
        _warn_of_missing_settings(document, path=path)
        try:
            _make_folder(path.parent)
            descriptor = os.open(path, _HOW, 0o600)
            with ExitStack() as on_failure:
                ledger = cls(path=path, descriptor=descriptor)
                on_failure.callback(ledger.close)
                ledger._take_over(document)
                on_failure.pop_all()
        except OSError as failure:
            raise LedgerError(f"cannot open ledger {path}: {failure.strerror}") from failure
        return ledger

    def charge(self, *, step: int, event: Event) -> None:
        """Record that ``step`` releases ``event``; once this returns, the line is on the disk.

        Raises:
            LedgerError: ``step`` does not follow the last charged one, or the line could not be
                stored, in which case the ledger is as it was before and nothing may be released.
        """
        step, first = operator.index(step), self._next_step
        if step < first:
            raise LedgerError(
                f"step={step} is before the next free step={first}: "
                "each step is charged once, in order"
            )
        self._append({"event": event_to_json(event=event), "kind": "release", "step": step})
        self._next_step = step + 1
        self._steps_charged += 1

    def note(self, *, subject: str, text: str) -> None:
        """Record a fact that voids or qualifies the guarantee, such as a fixed seed.

        Raises:
            LedgerError: the line could not be stored.
        """
        self._append({"kind": "note", "subject": subject, "text": text})
        self._notes.append(Note(subject, text))

    def saved(self, *, files: Mapping[str, str]) -> None:
        """Record what was saved from the releases up to here, unless the last record says so.

        Args:
            files: the SHA-256 of each file, by its name.

        Raises:
            LedgerError: the line could not be stored.
        """
        if self._saved != dict(files):
            self._append({"files": dict(files), "kind": "saved"})
            self._saved = dict(files)

    def granted(self, *, budget: str, head: str) -> None:
        """Record that a budget is about to grant this run, which that budget then refers to.

        Args:
            budget: its number.
            head: the hash of its last line.

        Raises:
            LedgerError: the line could not be stored.
        """
        self._append({"budget": budget, "head": head, "kind": "granted"})

    @property
    def notes(self) -> tuple[Note, ...]:
        """What voids or qualifies the guarantee, notes of earlier processes included."""
        return tuple(self._notes)

    @property
    def steps_charged(self) -> int:
        """How many releases the ledger holds, those of earlier processes included."""
        return self._steps_charged

    @property
    def run(self) -> str:
        """The random number in its first line."""
        return self._run

    @property
    def head(self) -> str:
        """The hash of the last line."""
        return self._head

    @property
    def last_step(self) -> int | None:
        """The last charged step, or None before the first charge."""
        return self._next_step - 1 if self._steps_charged else None

    def close(self) -> None:
        """Let go of the file and its lock; closing twice does nothing."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _take_over(self, plan: dict[str, Any]) -> None:
        lock_alone(self._descriptor, path=self.path)
        data = _read_all(self._descriptor)
        if is_torn_opening(data):
            os.ftruncate(self._descriptor, 0)
            self._run = uuid4().hex
            self._append({"kind": "opened", "plan": plan, "run": self._run, "version": VERSION})
            sync_folder(self.path.parent)
            return
        record, size = parse(data, path=self.path)
        _refuse_other_plan(plan, record=record, path=self.path)
        self._head, self._run = record.head, record.run
        self._steps_charged = len(record.releases)
        self._next_step = 0 if record.last_step is None else record.last_step + 1
        self._notes, self._session_due = [*record.notes], True
        self._saved = record.saved[-1] if record.saved else None
        self._mend(data[:size])

    def _mend(self, whole: bytes) -> None:
        os.ftruncate(self._descriptor, len(whole))
        self._size = len(whole)
        if not whole.endswith(b"\n"):
            self._store(b"\n")

    def _append(self, body: Mapping[str, Any]) -> None:
        due = [{"kind": "session", "session": uuid4().hex}] if self._session_due else []
        lines, head = b"", self._head
        for each in (*due, body):
            line, head = seal(each, previous=head)
            lines += line
        self._store(lines)
        self._head, self._session_due = head, False

    def _store(self, data: bytes) -> None:
        self._refuse_foreign_change()
        try:
            write_all(self._descriptor, data)
            sync_file(self._descriptor)
        except BaseException as failure:
            self._roll_back()
            if isinstance(failure, OSError):
                raise LedgerError(
                    f"cannot write ledger {self.path}: {failure.strerror}; nothing was charged, "
                    "so release nothing; free the disk and charge again"
                ) from failure
            raise
        self._size += len(data)

    def _roll_back(self) -> None:
        # Where even this fails, the size no longer matches and every later charge is refused.
        with suppress(OSError):
            os.ftruncate(self._descriptor, self._size)
            sync_file(self._descriptor)

    def _refuse_foreign_change(self) -> None:
        if not self._close.alive:
            raise LedgerError(f"ledger {self.path} is closed: open it again to charge to it")
        found = os.fstat(self._descriptor)
        if found.st_nlink == 0 or found.st_size != self._size:
            raise LedgerError(
                f"ledger {self.path} was deleted, replaced or changed while it was being written; "
                "stop the run and restore the file"
            )


def _warn_of_missing_settings(plan: Mapping[str, Any], *, path: Path) -> None:
    if PRICED - plan.keys() and not path.exists():
        warnings.warn(
            f"the plan of the new ledger {path} lacks {', '.join(missing_settings(plan=plan))}; "
            f"without {', '.join(sorted(PRICED))} it has no price, and without the rest no "
            "statement: add them now, for a ledger's first line cannot be changed",
            stacklevel=3,
        )


def _plain_plan(plan: Mapping[str, Any]) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(json.dumps(dict(plan), allow_nan=False))
    except (TypeError, ValueError) as failure:
        raise LedgerError(f"a ledger cannot hold this plan: {failure}") from failure
    return document


def _refuse_other_plan(plan: Mapping[str, Any], *, record: LedgerRecord, path: Path) -> None:
    changes = [
        f"{key} {record.plan.get(key, 'absent')} -> {plan.get(key, 'absent')}"
        for key in sorted(plan.keys() | record.plan.keys())
        if record.plan.get(key, "absent") != plan.get(key, "absent")
    ]
    if changes:
        raise LedgerError(
            f"ledger {path} was opened for another plan ({', '.join(changes)}): "
            "resume with that plan, or give this run a ledger of its own"
        )


def _read_all(descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        return file.read()


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


def write_all(descriptor: int, data: bytes) -> None:
    """Write to the last byte, or raise an OSError: a full disk may take some and say so later."""
    while data:
        data = data[os.write(descriptor, data) :]


def _make_folder(folder: Path) -> None:
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)
