"""Whether a budget and a run's ledger go together, and what the ledger says was spent."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from dpacc_accounting.budget.key_file import BudgetError
from dpacc_accounting.budget.record import BudgetRecord, Share
from dpacc_accounting.events.event import Event
from dpacc_accounting.events.participation import NOTHING
from dpacc_accounting.ledger.merging import merge_ledgers
from dpacc_accounting.ledger.record import LedgerError, LedgerRecord, read_ledger


def require_known_to_each_other(
    record: BudgetRecord,
    share: Share | None,
    ledgers: Mapping[str, LedgerRecord],
    *,
    path: Path,
) -> None:
    """Refuse a ledger, or copies of it, that lack what the budget saw, or a budget that forgot.

    Args:
        record: the budget.
        share: what it says of this run, if anything.
        ledgers: the run's, by their names.
        path: the budget's file.

    Raises:
        BudgetError: which of them lacks lines of the other.
    """
    _refuse_copies(share, ledgers)
    lines = {line for books in ledgers.values() for line in books.chain}
    if share is not None and not lines.issuperset(share.anchors):
        raise BudgetError(
            f"{' and '.join(ledgers)} of run {share.run} lacks lines that this run's ledger "
            "had when the budget last saw it: it was shortened, or is a copy of one that went "
            "on; use that one, or name all copies together to commit them"
        )
    grants = [(g, b) for b in ledgers.values() for g in b.grants if g.budget == record.budget]
    unknown = any(grant.head not in record.chain for grant, _ in grants)
    forgotten = any(len(books.releases) > grant.releases for grant, books in grants)
    if unknown or (share is None and forgotten):
        raise BudgetError(
            f"budget {path} lacks what it granted to {' and '.join(ledgers)}: it was "
            "shortened, or restored from an older copy; use the one that has it"
        )


def _refuse_copies(share: Share | None, ledgers: Mapping[str, LedgerRecord]) -> None:
    """Where a run's ledger still is where it was, another file of the same run is a copy of it."""
    if share is None:
        return
    for known in share.ledgers:
        if _is_ledger_of(share.run, known) and not any(map(Path(known).samefile, ledgers)):
            raise BudgetError(
                f"{' and '.join(ledgers)} is a copy: the ledger of run {share.run} is {known}, "
                "and may be going on; use that one, or commit both together"
            )


def _is_ledger_of(run: str, path: str) -> bool:
    with suppress(LedgerError):  # gone, moved, or another file by now
        return read_ledger(path=path).run == run
    return False


def require_unspent(share: Share, books: LedgerRecord, path: Path) -> None:
    """Refuse to give back what a ledger says was spent, or what another's ledger says.

    Raises:
        BudgetError: the ledger holds a charge, or is another run's.
    """
    if books.run != share.run:
        raise BudgetError(f"{path} is the ledger of run {books.run}, not of {share.run}")
    if books.releases:
        raise BudgetError(
            f"{path} holds {len(books.releases)} releases, which cannot be given back: commit it"
        )


def require_same_promise(record: BudgetRecord, books: LedgerRecord) -> None:
    """Refuse a run whose guarantee speaks of others than the budget's.

    Raises:
        BudgetError: its unit or adjacency is another.
    """
    for name, value in (("unit", record.unit), ("adjacency", str(record.adjacency))):
        if books.plan.get(name) != value:
            raise BudgetError(
                f"budget {record.name!r} counts {name} {value!r}, and the run's plan says "
                f"{books.plan.get(name)!r}: ε of one says nothing of the other; plan the run for "
                f"{value!r}, or name a budget of its kind"
            )


def require_no_void(books: LedgerRecord) -> None:
    """Refuse a run of which no ε may be claimed.

    Raises:
        BudgetError: why.
    """
    if voids := [note.text for note in books.notes if note.voids]:
        raise BudgetError(f"a run that is not private has no budget: {'; '.join(voids)}")


def spent_by(records: Mapping[str, LedgerRecord], *, delta: float) -> Event:
    """What one run's ledgers released: common lines of copies once, and each copy's own."""
    released = {path: books for path, books in records.items() if books.releases}
    if len(released) <= 1:
        return next((books.event for books in released.values()), NOTHING)
    return merge_ledgers(records=released, delta=delta).event
