"""A run's report after its first page, section by section."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from dpacc_accounting.events.descriptions import described
from dpacc_accounting.events.event import Selected
from dpacc_accounting.events.fields import nested_events
from dpacc_accounting.guarantee import Adjacency, Guarantee, rounded_up
from dpacc_accounting.ledger.limits import limits
from dpacc_accounting.ledger.mechanism import PHASE_COLUMNS, each_step, phase_rows

from dpacc.artifacts.attack_chart import as_percent
from dpacc.artifacts.document.content import (
    Block,
    Commands,
    Heading,
    Paragraph,
    Points,
    Table,
)
from dpacc.artifacts.document.content import (
    facts as table_of,
)
from dpacc.cli.guarantee_table import method_and_slack
from dpacc.cli.report.agreement import Opinion
from dpacc.cli.report.audits import AuditFacts, audit_table
from dpacc.cli.report.figures import attack_figure, course_figure
from dpacc.cli.report.gathered import Priced, RunFacts
from dpacc.cli.report.words import recognised

_NEIGHBOURS = {
    Adjacency.ADD_OR_REMOVE: "data sets that differ by adding or removing one {unit}",
    Adjacency.REPLACE_ONE: "data sets of equal size that differ by replacing one {unit}",
    Adjacency.ZERO_OUT: "data sets of equal size that differ by replacing one {unit} by a null one",
}


def promise(facts: RunFacts) -> list[Block]:
    """Unit, neighbours, ε, δ, method and slack."""
    if facts.void:
        return [
            Heading(level=2, words="The promise"),
            Paragraph(words="No ε may be claimed for this run, because:"),
            Points(points=tuple(("", why) for why in facts.void)),
            *_notes(facts),
        ]
    rows = promised(facts.claim)
    if facts.budget is not None:
        rows.append(("planned budget", f"ε = {facts.budget:g}"))
    if facts.known_samples is not None:
        rows.append(
            (
                "against who knows each sample",
                f"ε = {rounded_up(facts.known_samples)} at the same δ: the stated ε counts that "
                "nobody learns who was drawn",
            )
        )
    return [
        Heading(level=2, words="The promise"),
        table_of("What is promised", rows),
        *_notes(facts),
    ]


def promised(claim: Guarantee) -> list[tuple[str, str]]:
    """(ε, δ) with all that it assumes, as rows of a table."""
    neighbours = _NEIGHBOURS[claim.adjacency].format(unit=claim.unit)
    return [
        ("privacy unit", f"one {claim.unit}"),
        ("adjacency", f"{claim.adjacency}: {neighbours}"),
        ("ε, an upper bound", rounded_up(claim.epsilon, digits=6)),
        ("δ", rounded_up(claim.delta)),
        *method_and_slack(claim),
    ]


def mechanism(facts: RunFacts) -> list[Block]:
    """Sampling, clipping, noise and update, and the numbers that they depend on."""
    plan, record = facts.plan, facts.record
    drawn = "row" if plan["sampling"] == "examples" else facts.claim.unit
    searched = any(isinstance(each, Selected) for each in nested_events(record.event))
    done = f"{len(record.releases)} of {plan['steps']} planned"
    rows = [
        (f"{drawn}s in the training data, N", f"{plan['dataset_size']}"),
        ("steps charged", "all trials of a search, at once" if searched else done),
        ("clipping norm C", f"{plan['max_grad_norm']}"),
        ("clipping", f"{plan['clipping']}"),
        ("sampling", f"{plan['sampling']}"),
        ("noise", f"{plan.get('noise', 'gaussian')}"),
    ]
    phases = phase_rows(plan=plan)
    if not phases:
        batch, size = plan["expected_batch_size"], plan["dataset_size"]
        rows[1:1] = [
            ("expected batch size B", f"{batch}"),
            ("B/N", f"{batch / size:.6g}"),
            ("noise multiplier σ", f"{plan['noise_multiplier']}"),
        ]
    whole = described(event=record.event, unit=facts.claim.unit)
    return [
        Heading(level=2, words="How it was done: sampling, clipping, noise"),
        Paragraph(
            words="Differentially private stochastic gradient descent (DP-SGD, arXiv 1607.00133). "
            + ("Each trial of the search makes steps; in each:" if searched else "In each step:")
        ),
        Points(points=tuple((s.subject, s.words) for s in each_step(plan=plan)), numbered=True),
        table_of("The numbers that ε follows from", rows),
        *(
            [Table(caption="Phases, fixed beforehand", columns=PHASE_COLUMNS, rows=tuple(phases))]
            if phases
            else []
        ),
        Paragraph(words=f"What the ledger charges, and ε is the price of: {whole}."),
    ]


def second_opinion(facts: Priced) -> list[Block]:
    """The same ε from code that shares nothing with what priced it."""
    head = Heading(level=2, words="The same ε from independent code")
    if facts.agreement is None:
        return [head, Paragraph(words=f"None: {facts.silence}.")]
    claim = facts.agreement.comparisons[0].claim
    rows = [
        _opinion(claim, "the claim"),
        *(_opinion(each.other, each.verdict) for each in facts.agreement.comparisons),
    ]
    words = (
        "All agree: the intervals overlap, and no upper bound lies below the claim's lower one."
        if facts.agreement.holds
        else "They DISAGREE: do not rely on this ε."
    )
    silent = [
        Paragraph(words=f"{each.accountant} has no answer: {each.reason}.")
        for each in facts.agreement.silences
    ]
    return [
        head,
        Paragraph(words=words),
        Table(
            caption=f"ε at δ = {rounded_up(facts.claim.delta)}, by each accountant",
            columns=("accountant", "at least", "at most", "beside the claim"),
            rows=tuple(rows),
        ),
        *silent,
    ]


def attackers(facts: Priced) -> list[Block]:
    """What an attacker can gain, in a picture and three sentences."""
    found = facts.spoken_of
    head = Heading(level=2, words="What an attacker can gain")
    if found is None:
        return [head, Paragraph(words="Nothing bounds it, for nothing is promised.")]
    gained = rounded_up(as_percent(found.advantage), digits=3)
    return [
        head,
        attack_figure(facts),
        Paragraph(
            words="Let an attacker know every detail of the run and all data but one "
            f"{facts.claim.unit}'s, and guess from the result whether that one was used. "
            f"{recognised(found, facts.claim.unit)} Whatever share of others is accused, the share "
            f"recognised is at most {gained} percentage points above it."
        ),
        Paragraph(
            words="These bounds hold for every attack, known or not. They follow from what was "
            f"released, and not from experiments.{_from_the_pair(facts)}"
        ),
    ]


def _from_the_pair(facts: Priced) -> str:
    if not facts.from_pair:
        return ""
    return (
        " Only ε and δ are known here, and not the whole trade-off curve: the pair alone allows "
        "attackers more than what was released may."
    )


def quality(facts: RunFacts) -> list[Block]:
    """Held-out quality, and the course of ε beside it."""
    head = Heading(level=2, words="What the privacy bought: quality and the course of ε")
    measured = facts.recorded.measured
    figure = course_figure(facts)
    drawn = [] if figure is None else [figure]
    if not measured:
        words = "The run's folder holds no measurement on held-out data."
        return [head, Paragraph(words=words), *drawn]
    shown = [measured[0], measured[-1]] if len(measured) > 1 else [*measured]
    rows = [(f"after step {each.step}", each.shown) for each in shown]
    better = "lower is better" if measured[0].metric == "perplexity" else "higher is better"
    return [
        head,
        table_of(f"Held-out {measured[0].metric} ({better})", rows),
        Paragraph(words="The held-out data is not protected by the promise."),
        *drawn,
    ]


def audited(facts: Priced, audits: Sequence[AuditFacts]) -> list[Block]:
    """What audits proved beside what is claimed."""
    head = Heading(level=2, words="Audits beside the claim")
    if not audits:
        words = (
            "None was handed in. An audit plants canaries and bounds ε from below: it can refute a "
            "claim, and never prove one. Run one with dpacc audit."
        )
        return [head, Paragraph(words=words)]
    return [
        head,
        Paragraph(
            words="An audit plants canaries, each in or out by a coin, and bounds ε from below by "
            "how many of the coins can be guessed. It can refute a claim, and never prove one."
        ),
        audit_table(audits=audits, claim=facts.claim),
    ]


def not_covered(facts: RunFacts) -> list[Block]:
    """The limits that apply to this run, and who is trusted."""
    return [
        Heading(level=2, words="What is not covered, and who is trusted"),
        Points(points=(*limits_of(facts), *_trusted(facts))),
    ]


def limits_of(facts: RunFacts) -> tuple[tuple[str, str], ...]:
    """What a run's ε says nothing of."""
    return tuple(
        (each.subject.rstrip("."), each.words.lstrip(", "))
        for each in limits(plan=facts.plan, event=facts.record.event)
    )


def _trusted(facts: RunFacts) -> list[tuple[str, str]]:
    found = [
        (
            "Trusted: the machines' owners",
            "who administers them reads data, gradients and the run's secret in memory. Ranks of "
            "one launch trust one another, and the network between them carries sums that have no "
            "noise yet.",
        ),
        (
            "Trusted: the training program",
            "that it fed in the examples that were drawn. The ledger says what was charged, not "
            "what a changed program did.",
        ),
        (
            "The ledger is not signed",
            "its chain shows changed and lost lines, but whoever rewrites all of it can rewrite "
            "the chain. Keep the last hash elsewhere.",
        ),
    ]
    if facts.plan.get("noise", "gaussian") == "gaussian":
        found.append(
            (
                "Floating point",
                "sum and noise are rounded to 32 bits. Attacks on the rounding of single outputs "
                "are known (arXiv 2107.10138); discrete noise leaves no such trace.",
            )
        )
    return found


def record_of(facts: RunFacts) -> list[Block]:
    """Settings, versions and hashes."""
    hashes = [
        ("run", facts.record.run),
        ("ledger, hash of its last line", facts.record.head),
        *((f"{name}, SHA-256", sum_) for name, sum_ in facts.checksums.items()),
    ]
    if facts.record.torn:
        hashes.append(
            ("ledger, end", "a crash tore its last line; what that announced was never released")
        )
    compared = [(each.subject, each.words) for each in facts.findings]
    blocks: list[Block] = [
        Heading(level=2, words="Settings, versions and hashes"),
        table_of("What this report is about", hashes),
    ]
    if compared:
        blocks.append(table_of("The folder, compared with its ledger", compared))
    recorded = facts.recorded
    if recorded.settings:
        blocks.append(table_of("Settings of the training", _spelled(recorded.settings)))
    if recorded.versions:
        blocks.append(table_of("Versions that trained", _spelled(recorded.versions)))
    if not recorded.settings:
        blocks.append(
            Paragraph(words="The folder has no run.json, so other settings are not known here.")
        )
    return blocks


def checks(facts: RunFacts) -> list[Block]:
    """How to check all of it."""
    place = shlex.quote(facts.name)
    lines = [
        ("price the ledger anew", f"dpacc spend {place}"),
        ("ask independent accountants", f"dpacc verify {place}"),
        ("read the full statement", f"dpacc explain {place}"),
        ("compare proof, card and adapter with the ledger", f"dpacc doctor {place}"),
        ("test the claim with canaries", f"dpacc audit {place}/ledger.jsonl"),
        *((f"the checksum of {name}", f"sha256sum {place}/{name}") for name in facts.checksums),
    ]
    return [
        Heading(level=2, words="How to check all of it"),
        Paragraph(
            words="In the folder that holds the run's, with dpacc installed "
            "(pip install 'dpacc[report]'). The first five read the ledger alone, or what lies "
            "beside it; none needs the training data."
        ),
        Commands(lines=tuple(lines)),
    ]


def _notes(facts: Priced) -> list[Block]:
    if not facts.claim.qualified_by:
        return []
    return [
        Heading(level=3, words="What qualifies it"),
        Paragraph(words="What follows is not in ε, or ε rests on it:"),
        Points(points=tuple(("", text) for text in facts.claim.qualified_by)),
    ]


def _opinion(each: Opinion, words: str) -> tuple[str, ...]:
    low = f"{each.low:.6g}" if each.low else "–"
    return (each.accountant, low, rounded_up(each.high, digits=6), words)


def _spelled(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (name, ", ".join(map(str, value)) if isinstance(value, list) else _said(value))
        for name, value in values.items()
    ]


def _said(value: Any) -> str:
    return "not set" if value is None else str(value)
