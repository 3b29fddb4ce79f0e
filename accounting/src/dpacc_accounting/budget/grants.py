"""What is within a budget: all that runs hold of it, composed, and one run more."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from dpacc_accounting.budget.key_file import BudgetError
from dpacc_accounting.budget.record import BudgetRecord, Share
from dpacc_accounting.events.event import Composed, Event
from dpacc_accounting.guarantee import Guarantee, Note, rounded_up
from dpacc_accounting.ledger.record import LedgerError, LedgerRecord, read_ledger
from dpacc_accounting.pricing.price import epsilon

_RELEASE = b'"kind":"release"'


class BudgetExceeded(BudgetError):  # noqa: N818 - reads as what happened
    """One more run would bring a data set over its total."""


def held_together(
    *, record: BudgetRecord, shares: Iterable[Share] | None = None, planned: Event | None = None
) -> Guarantee:
    """(ε, δ) of what runs hold together, at the budget's δ, for whoever's data all of them use.

    Args:
        record: the budget.
        shares: whose to count; every run's when left out.
        planned: one run more.

    Returns:
        A guarantee of infinite ε where a run's ledger voids every claim.

    Raises:
        BudgetError: the runs' events have no price together.

    Source: composition as in `epsilon`: all losses of all runs add up, in one privacy loss
    distribution, which is tighter than adding the runs' ε. It holds for plans that are not chosen
    by what earlier runs released (arXiv 2602.06756).
    """
    counted = tuple(record.shares.values() if shares is None else shares)
    events = [share.event for share in counted] + ([] if planned is None else [planned])
    notes = [Note("not-private", f"run {s.run}: {why}") for s in counted for why in s.voids]
    try:
        found = epsilon(
            event=Composed(events=tuple(events)),
            delta=record.delta,
            adjacency=record.adjacency,
            unit=record.unit,
        )
    except ValueError as failure:
        raise BudgetError(
            f"budget {record.name!r}: its runs have no price together ({failure})"
        ) from failure
    return found.noted(notes)


def require_room(*, record: BudgetRecord, run: str, planned: Event) -> None:
    """Refuse a run that would bring the data set over its total.

    Args:
        record: the budget; what this very run holds of it is what `planned` takes the place of.
        run: its number.
        planned: all that it would release.

    Raises:
        BudgetExceeded: with what is held and by how many.
        BudgetError: an earlier run went on behind the budget's back, or events have no price.
    """
    others = [share for share in record.shares.values() if share.run != run]
    for share in others:
        require_no_more_spent(share)
    total = held_together(record=record, shares=others, planned=planned)
    if total.epsilon <= record.epsilon:
        return
    holding = [share for share in others if share.state != "released"]
    held = held_together(record=record, shares=others)
    if held.void_because:
        raise BudgetExceeded(f"budget {record.name!r}: {'; '.join(held.void_because)}")
    open_runs = sum(share.state == "reserved" for share in holding)
    raise BudgetExceeded(
        f"budget {record.name!r} allows ε = {record.epsilon:g} at δ = {record.delta:g}; "
        f"earlier runs ({len(holding)}, {open_runs} only reserved) hold "
        f"ε = {rounded_up(held.epsilon)}, and with this one all would cost "
        f"ε = {rounded_up(total.epsilon)}: plan it with less, or commit or release what is "
        "reserved and was not spent (dpacc budget show)"
    )


def require_no_more_spent(share: Share) -> None:
    """Refuse a share whose ledger, where it is still found, holds more than was committed.

    Raises:
        BudgetError: it went on without asking.
    """
    if share.state == "reserved":
        return
    for path, releases in share.ledgers.items():
        found = _releases_of(share.run, path, beyond=releases)
        if found > releases:
            raise BudgetError(
                f"run {share.run} went on after it was {share.state}: {path} holds {found} "
                f"releases, not {releases}; commit it again (dpacc budget commit)"
            )


def require_covered(*, record: BudgetRecord, books: LedgerRecord, planned: Event) -> None:
    """Refuse a plan that costs less than what its ledger holds already, as of a search.

    Raises:
        BudgetError: what it holds is to be committed, and the plan needs another ledger.
    """
    if not books.releases:
        return
    spent, allowed = (
        epsilon(event=event, delta=record.delta, adjacency=record.adjacency).epsilon
        for event in (books.event, planned)
    )
    if spent > allowed:
        raise BudgetError(
            f"the ledger of run {books.run} holds ε = {rounded_up(spent)} already, and its plan "
            f"would cost {rounded_up(allowed)}: commit it (dpacc budget commit), and give that "
            "plan a ledger of its own"
        )


def _releases_of(run: str, path: str, *, beyond: int) -> int:
    """How many releases of a run its ledger holds, read whole only if it seems to hold more."""
    with suppress(LedgerError, OSError):  # gone, or elsewhere: what was committed stands here
        if Path(path).read_bytes().count(_RELEASE) > beyond:
            found = read_ledger(path=path)
            return len(found.releases) if found.run == run else 0
    return 0
