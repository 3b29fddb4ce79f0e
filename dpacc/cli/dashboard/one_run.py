"""One run: what it may claim, its course, its ledger, its noise, what an attacker can gain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dpacc_accounting import Guarantee, LedgerRecord, read_ledger, statement
from dpacc_accounting.events.descriptions import described
from dpacc_accounting.ledger.claims import attack_bounds, void_because
from dpacc_accounting.ledger.mechanism import PHASE_COLUMNS, each_step, phase_rows
from dpacc_accounting.ledger.plan_settings import require_statable
from dpacc_accounting.ledger.record import LedgerError

from dpacc.artifacts.document.content import Block, Paragraph, Points, Table, Verdict
from dpacc.artifacts.document.content import facts as table_of
from dpacc.artifacts.progress_chart import Measurement
from dpacc.cli.dashboard.first_sight import measurements, with_quality
from dpacc.cli.dashboard.listed_runs import ListedRun
from dpacc.cli.dashboard.prices import attack_curve, price_of, spent_by_step
from dpacc.cli.dashboard.run_state import WORDS
from dpacc.cli.guarantee_table import guarantee_rows
from dpacc.cli.report.words import conditions_of, most_found, promise_of

_LAST_LINES = 8


@dataclass(frozen=True, kw_only=True)
class RunView:
    """One run, its ledger checked and priced.

    Args:
        listed: as it stands in the list of all.
        record: its ledger.
        claim: what it spent; the same as `dpacc spend` states.
        course: (step, ε) after a few steps; empty where nothing is claimed.
        measured: held-out quality, in order of steps.
    """

    listed: ListedRun
    record: LedgerRecord
    claim: Guarantee
    course: tuple[tuple[int, float], ...]
    measured: tuple[Measurement, ...]

    @property
    def plan(self) -> Mapping[str, Any]:
        """What the ledger's first line holds."""
        return self.record.plan

    @property
    def attack(self) -> tuple[tuple[float, float], ...]:
        """(false positives, the most true positives); takes some prices, so it is asked late."""
        return attack_curve(event=self.record.event, claim=self.claim)


def run_view(listed: ListedRun) -> RunView | str:
    """Read, check and price one run, or say why that cannot be."""
    try:
        record = read_ledger(path=listed.ledger)
        claim = price_of(record)
        course = spent_by_step(record=record, claim=claim)
    except (LedgerError, ValueError) as refusal:
        return str(refusal)
    measured = with_quality(measurements(folder=listed.ledger.parent))
    return RunView(listed=listed, record=record, claim=claim, course=course, measured=measured)


def relisted(view: RunView, listed: ListedRun) -> RunView:
    """The same run, as it stands in the list by now."""
    return replace(view, listed=listed)


def verdict(view: RunView) -> Verdict:
    """What stands first: whether anything is claimed, and what voids or qualifies it."""
    claim, listed = view.claim, view.listed
    if void := void_because(claim):
        return Verdict(
            standing="broken",
            headline="This run is NOT private: no ε may be claimed for it.",
            reasons=tuple(void),
        )
    if listed.problem:
        return Verdict(
            standing="broken",
            headline="Do not rely on what this run's folder states.",
            conditions=f"Its ledger says: {promise_of(claim)}.",
            reasons=(listed.problem,),
        )
    beside = list(claim.qualified_by)
    if listed.budget is not None and claim.epsilon > listed.budget * (1 + 1e-9):
        beside.append(f"more is spent than its budget of ε = {listed.budget:g}")
    goes_on = listed.state != "finished"
    return Verdict(
        standing="qualified" if beside else "holds",
        headline=f"{'So far this' if goes_on else 'This'} run keeps {promise_of(claim)}.",
        conditions=conditions_of(claim, sampling=view.plan.get("sampling")),
        reasons=tuple(beside),
    )


def spent_rows(view: RunView) -> Table:
    """State, steps and ε, in the digits in which `dpacc spend` states it."""
    listed, claim = view.listed, view.claim
    planned = "" if listed.planned is None else f" of {listed.planned} planned"
    rows = [("state", WORDS[listed.state]), ("releases", f"{len(view.record.releases)}{planned}")]
    rows += guarantee_rows(claim)
    if listed.budget is not None:
        rows.append(("budget", f"ε = {listed.budget:g}"))
    if view.measured:
        first, last = view.measured[0], view.measured[-1]
        rows.append(
            (
                f"held-out {last.metric}",
                f"{last.shown} after step {last.step} ({first.shown} after step {first.step})",
            )
        )
    return table_of("Privacy spent", rows)


def ledger_blocks(view: RunView) -> list[Block]:
    """What its ledger holds: in words, in numbers, its notes and its last lines."""
    record = view.record
    rows = [
        ("what it charges", described(event=record.event, unit=view.claim.unit)),
        ("run", record.run),
        ("opened again", f"{len(record.sessions)} times"),
        ("saves recorded", f"{len(record.saved)}"),
        ("budgets that granted it", ", ".join({each.budget for each in record.grants}) or "none"),
        ("hash of its last line", record.head),
    ]
    if record.torn:
        rows.append(("end", "its last line is torn; what that announced was never released"))
    last = [
        (f"{release.step}", described(event=release.event, unit=view.claim.unit), digest[:16])
        for release, digest in zip(
            record.releases[-_LAST_LINES:], record.release_hashes[-_LAST_LINES:], strict=True
        )
    ]
    notes = tuple(("voids ε" if note.voids else "qualifies ε", note.text) for note in record.notes)
    return [
        table_of("The ledger", rows),
        *([Points(points=notes)] if notes else []),
        Table(caption="Its last releases", columns=("step", "charged", "hash"), rows=tuple(last)),
    ]


def noise_blocks(view: RunView) -> list[Block]:
    """How much noise a step adds, to what."""
    plan = view.plan
    try:
        require_statable(plan=plan, record=view.record)
    except ValueError as refusal:
        return [Paragraph(words=f"Its plan does not say: {refusal}.")]
    steps = Points(points=tuple((s.subject, s.words) for s in each_step(plan=plan)), numbered=True)
    if phases := phase_rows(plan=plan):
        return [steps, Table(caption="Phases", columns=PHASE_COLUMNS, rows=tuple(phases))]
    sigma, norm, batch = (
        float(plan[name]) for name in ("noise_multiplier", "max_grad_norm", "expected_batch_size")
    )
    rows = [
        ("noise multiplier σ", f"{sigma:g}"),
        ("clipping norm C", f"{norm:g} ({plan['clipping']})"),
        ("standard deviation on the sum, σC, each coordinate", f"{sigma * norm:g}"),
        ("on the mean, σC/B", f"{sigma * norm / batch:g}"),
        ("expected batch size B", f"{batch:g} of {plan['dataset_size']}"),
        ("kind", f"{plan.get('noise', 'gaussian')}, {plan.get('correlation', 'independent')}"),
    ]
    return [table_of("Noise in each step", rows), steps]


def attack_words(view: RunView) -> str:
    """The curve in a sentence."""
    found = attack_bounds(event=view.record.event, claim=view.claim)
    if found is None:
        return "Nothing bounds an attacker, for nothing is claimed."
    return (
        f"An attacker who wrongly accuses 1% of those that were not used recognises at most "
        f"{most_found(found)}% of those that were; guessing recognises 1%."
    )


def stated(view: RunView) -> str:
    """The privacy statement, as `dpacc explain` prints it, or why there is none."""
    try:
        return statement(plan=view.plan, record=view.record, guarantee=view.claim)
    except ValueError as refusal:
        return f"No statement can be made: {refusal}."
