"""A data set's budget beside a run: its total, what is spent and held, and by whom.

Composed as `dpacc budget show` composes it: all losses of all runs add up in one distribution.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from dpacc_accounting import BudgetRecord, Guarantee, read_budget
from dpacc_accounting.budget.grants import held_together
from dpacc_accounting.budget.record import Share
from dpacc_accounting.guarantee import METHOD_NAMES, rounded_down, rounded_up
from dpacc_accounting.ledger.claims import void_because

from dpacc.artifacts.document.content import Block, Document, Heading, Paragraph, Table
from dpacc.artifacts.document.content import facts as table_of

ASSUMED = "no run's noise, sampling or length was chosen by what earlier ones released"
"""Exact composition is no filter for plans that are chosen by looking (arXiv 2602.06756)."""
SHARE_COLUMNS = ("run", "ε alone", "state", "ledger")
_SHORT = 8
"""Digits of a run's number that are shown."""


@dataclass(frozen=True, kw_only=True)
class BudgetFacts:
    """What a data set's budget says, priced.

    Args:
        record: the budget.
        held: what all its runs hold together, whole plans of those that have not ended included.
        spent: what those runs cost together that are committed.
        alone: each share, and its price by itself.
    """

    record: BudgetRecord
    held: Guarantee
    spent: Guarantee
    alone: tuple[tuple[Share, Guarantee], ...]

    @property
    def within(self) -> bool:
        """Whether what is held is no more than the total."""
        return self.held.epsilon <= self.record.epsilon

    @property
    def left(self) -> float:
        """The total ε less what is held, and never below 0; one more run is composed, not added."""
        return max(self.record.epsilon - self.held.epsilon, 0.0)


def gather_budget(*, path: Path) -> BudgetFacts:
    """Read a budget, and price what its runs hold.

    Raises:
        BudgetError: it or its key is missing, damaged, shortened or another's.
    """
    record = read_budget(path=path)
    return BudgetFacts(
        record=record,
        held=held_together(record=record),
        spent=held_together(record=record, shares=record.holding("committed")),
        alone=tuple(
            (share, held_together(record=record, shares=[share]))
            for share in record.shares.values()
        ),
    )


def with_budget(*, document: Document, facts: BudgetFacts, run: str | None = None) -> Document:
    """A report with its data set's budget at the end, and on the first page what is amiss with it.

    Args:
        document: the report.
        facts: the budget.
        run: the number in the first line of the reported run's ledger.
    """
    amiss = []
    if not facts.within:
        amiss.append(f"the runs on {facts.record.name} hold more together than its budget allows")
    if run is not None and run not in facts.record.shares:
        amiss.append(f"the budget of {facts.record.name} does not count this run")
    verdict = document.verdict
    if amiss:
        standing = "qualified" if verdict.standing == "holds" else verdict.standing
        verdict = replace(verdict, standing=standing, reasons=(*verdict.reasons, *amiss))
    section = budget_section(facts=facts, run=run)
    return replace(document, verdict=verdict, body=(*document.body, *section))


def budget_section(*, facts: BudgetFacts, run: str | None = None) -> list[Block]:
    """The total and who holds what of it, and whether one run is among them.

    Args:
        facts: the budget.
        run: the number in the first line of the reported run's ledger.
    """
    return [
        Heading(level=2, words="The data set's budget"),
        *([] if run is None else [Paragraph(words=_place_of(facts, run))]),
        *budget_blocks(facts=facts),
    ]


def budget_blocks(*, facts: BudgetFacts) -> list[Block]:
    """The same without the heading."""
    record = facts.record
    rows = tuple(share_row(share, alone) for share, alone in facts.alone)
    held_by = Table(
        caption="Who holds what, ε of each run by itself, upper bounds",
        columns=SHARE_COLUMNS,
        rows=rows,
    )
    torn = [("end", "a crash tore its last line, by which nobody was granted anything")]
    return [
        table_of(
            f"Budget of {record.name}",
            [
                ("total", f"ε = {record.epsilon:g} at δ = {record.delta:g}"),
                ("spent, by runs that are committed", epsilon_of(facts.spent)),
                ("held, with whole plans of runs that have not ended", epsilon_of(facts.held)),
                ("left, the total less what is held", left_of(facts)),
                ("adjacency", f"{record.adjacency}"),
                ("privacy unit", f"one {record.unit}"),
                ("method", METHOD_NAMES.get(facts.held.method, facts.held.method)),
                ("holds if", ASSUMED),
                ("head", record.head),
                *(torn if record.torn else []),
            ],
        ),
        held_by if rows else Paragraph(words="No run has asked for any of it."),
    ]


def epsilon_of(found: Guarantee) -> str:
    """ε, or why there is none."""
    if found.void_because:
        return f"none may be claimed: {'; '.join(found.void_because)}"
    return f"ε = {rounded_up(found.epsilon, digits=6)}"


def left_of(facts: BudgetFacts) -> str:
    """What is left, rounded down; what one more run costs beside the others decides."""
    if not facts.within:
        return "nothing: the total is EXCEEDED, and no run is granted anything"
    left = rounded_down(facts.left, digits=6)
    return f"ε = {left}; what fits is composed exactly with what is held, and not added to it"


def share_row(share: Share, alone: Guarantee) -> tuple[str, ...]:
    """A run's share, and its price by itself, under `SHARE_COLUMNS`."""
    epsilon = "void" if void_because(alone) else rounded_up(alone.epsilon)
    said = f" ({share.said})" if share.said else ""
    return (share.run[:_SHORT], epsilon, share.state + said, ", ".join(share.ledgers))


def _place_of(facts: BudgetFacts, run: str) -> str:
    share = facts.record.shares.get(run)
    if share is None:
        return (
            "This run holds nothing of this budget: what it cost comes on top of all that follows."
        )
    return f"This run is among those that hold it: {run[:_SHORT]}, {share.state}."
