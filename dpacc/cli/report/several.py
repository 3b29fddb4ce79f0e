"""The report of several runs: side by side, and what they cost whoever's data all of them used."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dpacc_accounting import LedgerRecord, merge_ledgers
from dpacc_accounting.guarantee import METHOD_NAMES, Guarantee, rounded_up
from dpacc_accounting.ledger.record import LedgerError

from dpacc.artifacts.document.content import (
    Block,
    Commands,
    Document,
    Heading,
    Paragraph,
    Points,
    Table,
    Verdict,
)
from dpacc.artifacts.document.content import facts as table_of
from dpacc.cli.report import sections
from dpacc.cli.report.gathered import Priced, RunFacts, gather, priced
from dpacc.cli.report.words import (
    TERMS,
    conditions_of,
    disagreements,
    how_strongly,
    most_found,
    promise_of,
    verdict_of,
    warned,
    weak,
)
from dpacc.cli.sources import read_record
from dpacc.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class SeveralFacts:
    """Runs, and their releases together.

    Args:
        runs: each by a name of its own, at one δ.
        total: all releases composed; None where no guarantee covers them all.
        alone: why none does.
        remarks: what a reader should check, such as copies of one run.
    """

    runs: tuple[RunFacts, ...]
    total: Priced | None
    alone: str
    remarks: tuple[str, ...]


def gather_several(
    *, ledgers: Sequence[Path], delta: float | None = None, settings: Path | None = None
) -> SeveralFacts:
    """Read several runs, and price each and all of them together, at one δ.

    Args:
        ledgers: of each run, in its folder.
        delta: δ at which every ε is stated; the smallest of the plans' when left out.
        settings: of a file with what the ledgers' own plans lack.

    Raises:
        LedgerError: a ledger is missing or damaged.
        ConfigurationError: one is named twice.
        ValueError: a plan lacks what a price needs.
    """
    if len({path.resolve() for path in ledgers}) < len(ledgers):
        raise ConfigurationError("the same run is named twice; name each once")
    read = [_record(path, settings) for path in ledgers]
    records = dict(zip(_names(ledgers), read, strict=True))
    stated = delta if delta is not None else min(r.plan["target_delta"] for r in records.values())
    runs = tuple(
        gather(ledger=path, delta=stated, name=name, settings=settings)
        for name, path in zip(records, ledgers, strict=True)
    )
    try:
        merged = merge_ledgers(records=records, delta=stated)
    except LedgerError as strangers:
        return SeveralFacts(runs=runs, total=None, alone=str(strangers), remarks=())
    if merged.together is None:
        why = "; ".join(merged.faults) or "no finite ε holds for all of them together"
        return SeveralFacts(runs=runs, total=None, alone=why, remarks=merged.remarks)
    total = priced(event=merged.event, claim=merged.together)
    return SeveralFacts(runs=runs, total=total, alone="", remarks=merged.remarks)


def _record(path: Path, settings: Path | None) -> LedgerRecord:
    record = read_record(path=path, settings=settings)
    if "target_delta" not in record.plan:
        raise ConfigurationError(f"the plan of {path} names no target_delta; give --delta")
    return record


def _names(ledgers: Sequence[Path]) -> list[str]:
    """Each run's folder; with the folder above it where two bear one name."""
    folders = [path.resolve().parent for path in ledgers]
    often = Counter(folder.name for folder in folders)
    named = [
        folder.name if often[folder.name] == 1 else f"{folder.parent.name}/{folder.name}"
        for folder in folders
    ]
    return named if len({*named}) == len(named) else [str(path) for path in folders]


def report_of_several(*, facts: SeveralFacts) -> Document:
    """All that is to be said of several runs, in order."""
    verdict = _verdict(facts)
    return Document(
        title="Privacy report",
        subtitle=", ".join(each.name for each in facts.runs),
        verdict=verdict,
        first_page=(_first_page(facts, verdict), *_side_by_side(facts)),
        body=(
            Heading(level=2, words="Words used here"),
            TERMS,
            *warned(verdict),
            *_together(facts),
            *(block for each in facts.runs for block in _one(each)),
            *sections.not_covered(facts.runs[0]),
            *_checks(facts),
        ),
        claims=(
            *((each.name, each.claim) for each in facts.runs),
            *([("together", facts.total.claim)] if facts.total else []),
        ),
    )


def _verdict(facts: SeveralFacts) -> Verdict:
    """Of all of them together: never of one for the others."""
    each = {run.name: verdict_of(run) for run in facts.runs}
    broken = [name for name, verdict in each.items() if verdict.standing == "broken"]
    beside = [f"{name}: {why}" for name, verdict in each.items() for why in verdict.reasons]
    contradicted = [] if facts.total is None else disagreements(facts.total)
    if broken or contradicted:
        named = ", ".join(broken) or "their total"
        return Verdict(
            standing="broken",
            headline=f"Do not rely on these runs' ε: something is wrong with {named}.",
            reasons=(*contradicted, *beside),
        )
    if facts.total is None:
        return Verdict(
            standing="unclaimed",
            headline="No one promise covers these runs together: each has its own, below.",
            reasons=(facts.alone, *beside),
        )
    reasons = (*facts.remarks, *weak(facts.total), *beside)
    return Verdict(
        standing="qualified" if reasons else "holds",
        headline=f"Together these {len(facts.runs)} runs keep {promise_of(facts.total.claim)} "
        f"whose data all of them used.",
        conditions=f"{conditions_of(facts.total.claim)} Who is in the data of one run alone "
        "has that run's ε, in the table below.",
        reasons=reasons,
    )


def _first_page(facts: SeveralFacts, verdict: Verdict) -> Points:
    units = " or ".join(dict.fromkeys(each.claim.unit for each in facts.runs))
    strongly = "Not at all together." if facts.total is None else how_strongly(facts.total, verdict)
    return Points(
        points=(
            (
                "What was to be protected",
                f"each {units} of the data that these runs were trained on. Whether they used the "
                "same data is not known here, so the total is for whoever's data all of them used.",
            ),
            (
                "From whom",
                "everybody who gets the adapters, cards, ledgers or this report of all these runs, "
                "and who puts together what they say. Not from whoever runs the machines.",
            ),
            ("How strongly, together", strongly),
            (
                "What is not protected",
                "what choosing among these runs by their results gave away, unless a ledger "
                "charges for it; a later run's noise or length, if it was chosen by what an "
                "earlier one released (the total is for runs that were fixed beforehand, arXiv "
                "2602.06756); other runs than these on the same data; and all that is listed "
                "further on.",
            ),
        )
    )


def _side_by_side(facts: SeveralFacts) -> list[Block]:
    delta = rounded_up(facts.runs[0].claim.delta)
    return [
        Table(
            caption=f"Each run by itself: ε at δ = {delta}",
            columns=(
                "run",
                "ε alone",
                "unit, adjacency",
                "found at 1% false alarms",
                "held-out quality",
            ),
            rows=tuple(_row(each) for each in facts.runs),
        ),
        Table(
            caption="Settings of each run",
            columns=("run", "steps charged", "sampling, B/N", "σ", "method"),
            rows=tuple(_settings(each) for each in facts.runs),
        ),
    ]


def _row(run: RunFacts) -> tuple[str, ...]:
    found, measured = run.spoken_of, run.recorded.measured
    return (
        run.name,
        "NOT private" if run.void else _with_notes(run.claim),
        f"{run.claim.unit}, {run.claim.adjacency}",
        "–" if found is None else f"at most {most_found(found)}%",
        f"{measured[-1].metric} {measured[-1].shown}" if measured else "not measured",
    )


def _with_notes(claim: Guarantee) -> str:
    return rounded_up(claim.epsilon) + (", qualified" if claim.qualified_by else "")


def _settings(run: RunFacts) -> tuple[str, ...]:
    plan = run.plan
    phased = bool(plan.get("phases"))
    drawn = "by phase" if phased else f"{plan['expected_batch_size'] / plan['dataset_size']:.4g}"
    return (
        run.name,
        f"{len(run.record.releases)} of {plan['steps']}",
        f"{plan['sampling']}, {drawn}",
        "by phase" if phased else f"{plan['noise_multiplier']}",
        METHOD_NAMES.get(run.claim.method, run.claim.method),
    )


def _together(facts: SeveralFacts) -> Iterator[Block]:
    yield Heading(level=2, words="All runs together, if they used the same data")
    if facts.total is None:
        yield Paragraph(words=f"No one promise covers them: {facts.alone}.")
        return
    epsilon = rounded_up(sum(each.claim.epsilon for each in facts.runs))
    delta = rounded_up(sum(each.claim.delta for each in facts.runs))
    rows = [
        *sections.promised(facts.total.claim),
        # δ adds up, too: no sum of the runs' ε holds at the δ of each.
        ("the runs' own added up", f"ε = {epsilon} at δ = {delta}, by basic composition"),
    ]
    yield table_of("The total", rows)
    if facts.remarks:
        yield Points(points=tuple(("", remark) for remark in facts.remarks))
    yield from _lowered(sections.second_opinion(facts.total))
    yield from _lowered(sections.attackers(facts.total))


def _one(run: RunFacts) -> Iterator[Block]:
    yield Heading(level=2, words=f"Run: {run.name}")
    parts = (
        sections.promise,
        sections.mechanism,
        sections.second_opinion,
        sections.quality,
        sections.record_of,
    )
    for part in parts:
        yield from _lowered(part(run))


def _lowered(blocks: Iterable[Block]) -> Iterator[Block]:
    """The same, a section's part."""
    return (each.lowered if isinstance(each, Heading) else each for each in blocks)


def _checks(facts: SeveralFacts) -> list[Block]:
    places = [shlex.quote(each.name) for each in facts.runs]
    lines = [("price them together", f"dpacc merge-ledgers {' '.join(places)}")]
    for place in places:
        lines += [
            (f"price {place} anew", f"dpacc spend {place}"),
            (f"ask independent accountants of {place}", f"dpacc verify {place}"),
            (f"compare {place} with its ledger", f"dpacc doctor {place}"),
        ]
    return [Heading(level=2, words="How to check all of it"), Commands(lines=tuple(lines))]
