"""The report of one run."""

from __future__ import annotations

from collections.abc import Sequence

from dpacc.artifacts.document.content import Document, Heading
from dpacc.cli.report import sections
from dpacc.cli.report.audits import AuditFacts
from dpacc.cli.report.gathered import RunFacts
from dpacc.cli.report.words import TERMS, first_page, verdict_of, warned


def report_of_run(*, facts: RunFacts, audits: Sequence[AuditFacts] = ()) -> Document:
    """All that is to be said of one run, in order."""
    verdict = verdict_of(facts, audits)
    return Document(
        title="Privacy report",
        subtitle=facts.name,
        verdict=verdict,
        first_page=(first_page(facts, verdict), Heading(level=2, words="Words used here"), TERMS),
        body=(
            *warned(verdict),
            *sections.promise(facts),
            *sections.mechanism(facts),
            *sections.second_opinion(facts),
            *sections.attackers(facts),
            *sections.quality(facts),
            *sections.audited(facts, audits),
            *sections.not_covered(facts),
            *sections.record_of(facts),
            *sections.checks(facts),
        ),
        claims=((facts.name, facts.claim),),
    )
