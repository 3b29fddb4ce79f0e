"""What a run promises in plain words: the first page, and the terms that it uses.

Every number is rounded against the claim: ε, δ and what attackers may gain upwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from dpacc_accounting import Guarantee
from dpacc_accounting.guarantee import METHOD_NAMES, Adjacency, rounded_down, rounded_up
from dpacc_accounting.ledger.claims import AttackBounds

from dpacc.artifacts.attack_chart import as_percent
from dpacc.artifacts.document.content import Paragraph, Points, Verdict
from dpacc.cli.report.audits import AuditFacts, refuted_by
from dpacc.cli.report.gathered import Priced, RunFacts

_WEAK = 0.5
"""The advantage from which on a promise is called weak: half of all are recognised."""

_SAMPLINGS = {
    "poisson": "Poisson, each unit by a secret coin in each step",
    "cyclic-poisson": "Poisson in turns, each unit by secret coins",
    "allocated": "random allocation, each unit in one secret step of an epoch",
    "examples": "Poisson, each row by a secret coin in each step",
}

TERMS = Points(
    points=(
        (
            "Privacy unit",
            "whose presence is hidden: one example (a row of the training data), or one person or "
            "document with all of its rows.",
        ),
        (
            "Neighbours, adjacency",
            "two data sets that differ by one privacy unit: added or removed, or replaced by "
            "another.",
        ),
        (
            "ε (epsilon)",
            "whatever anybody concludes from the result is at most e^ε times as likely with one "
            "unit's data as without it. Smaller is stronger; 0 would hide everything.",
        ),
        (
            "δ (delta)",
            "a small probability by which that may be exceeded.",
        ),
        (
            "Clipping norm C",
            "the most that one unit can move a step.",
        ),
        (
            "Noise multiplier σ",
            "how large the random noise of a step is, as a multiple of C. Larger hides more.",
        ),
        (
            "Slack",
            "by how much the stated ε may be larger than the least one that holds.",
        ),
        (
            "Ledger",
            "the file in which every step was entered before it was released. Each line is chained "
            "to the one before by a hash, so that a changed or missing line shows, unless all that "
            "follow it are missing, too.",
        ),
    )
)


def verdict_of(facts: RunFacts, audits: Sequence[AuditFacts] = ()) -> Verdict:
    """What the first page says in large letters, and why."""
    if facts.void:
        return Verdict(
            standing="broken",
            headline="This run is NOT private: no ε may be claimed for it.",
            reasons=facts.void,
        )
    if wrong := _contradictions(facts, audits):
        return Verdict(
            standing="broken",
            headline="Do not rely on this run's ε: something contradicts it.",
            reasons=wrong,
        )
    beside = (*_weaknesses(facts), *facts.claim.qualified_by)
    return Verdict(
        standing="qualified" if beside else "holds",
        headline=f"This run keeps {promise_of(facts.claim)}.",
        conditions=conditions_of(facts.claim, sampling=facts.plan.get("sampling")),
        reasons=beside,
    )


def promise_of(claim: Guarantee) -> str:
    """(ε, δ) with its unit, in half a sentence."""
    return (
        f"(ε = {rounded_up(claim.epsilon)}, δ = {rounded_up(claim.delta)})-differential privacy "
        f"for one {claim.unit}"
    )


def conditions_of(claim: Guarantee, *, sampling: object = None) -> str:
    """Adjacency, sampling, method and slack, without which ε says little."""
    bounded = claim.slack < claim.epsilon
    slack = f"slack at most {rounded_up(claim.slack)}" if bounded else "slack unknown"
    drawn = "" if sampling is None else f" Sampling: {_SAMPLINGS.get(str(sampling), sampling)}."
    return (
        f"Neighbours: {claim.adjacency}.{drawn} Method: "
        f"{METHOD_NAMES.get(claim.method, claim.method)}, an upper bound, {slack}."
    )


def _contradictions(facts: RunFacts, audits: Sequence[AuditFacts]) -> tuple[str, ...]:
    """Whatever says that the stated ε cannot be right, or is not that of what lies here."""
    found = [each.words for each in facts.findings if not each.healthy]
    return (*found, *disagreements(facts), *refuted_by(audits=audits, claim=facts.claim))


def disagreements(facts: Priced) -> list[str]:
    """Which accountants cannot be right if the claim is."""
    if facts.agreement is None:
        return []
    return [
        f"{each.other.accountant} disagrees: it says ε between "
        f"{rounded_down(each.other.low, digits=4)} and {rounded_up(each.other.high)}"
        for each in facts.agreement.comparisons
        if not each.agrees
    ]


def _weaknesses(facts: RunFacts) -> list[str]:
    found: list[str] = []
    budget = facts.budget
    if budget is not None and facts.claim.epsilon > budget * (1 + 1e-9):
        found.append(
            f"ε = {rounded_up(facts.claim.epsilon)} is more than the planned budget of {budget:g}"
        )
    found += weak(facts)
    over, planned = (facts.record.last_step or 0) + 1, facts.plan["steps"]
    if over < planned and not facts.from_pair:
        found.append(
            f"the run stopped after {over} of {planned} planned steps: if it goes on, ε grows"
        )
    size = facts.plan.get("dataset_size")
    if isinstance(size, int) and facts.claim.delta * size >= 1:
        found.append(
            f"δ = {rounded_up(facts.claim.delta)} is no smaller than 1 in {size}, the number of "
            f"{facts.claim.unit}s, so that publishing one of them outright would be allowed"
        )
    return found


def weak(facts: Priced) -> list[str]:
    """Why a promise is weak; empty where it is not."""
    bounds = facts.spoken_of
    if bounds is None or bounds.advantage < _WEAK:
        return []
    known = "ε and δ alone do not rule" if facts.from_pair else "nothing rules"
    return [
        f"the promise is weak: {known} out an attacker who finds "
        f"{most_found(bounds)}% of those in the data with "
        "1% false accusations"
    ]


def first_page(facts: RunFacts, verdict: Verdict) -> Points:
    """What was protected, from whom, how strongly, and what not; as far as the verdict lets it."""
    return Points(
        points=(
            ("What was to be protected", _protected(facts)),
            ("From whom", _from_whom(facts)),
            ("How strongly", how_strongly(facts, verdict)),
            ("What is not protected", _not_protected(facts)),
        )
    )


def _protected(facts: RunFacts) -> str:
    unit, size = facts.claim.unit, facts.plan.get("dataset_size")
    many = f"{size} {unit}s" if size is not None else f"{unit}s"
    whose = (
        "An example is one row of the training data, whoever wrote it."
        if unit == "example"
        else f"A {unit} stands for all rows that the run was told are its own."
    )
    hidden = {
        Adjacency.ADD_OR_REMOVE: "whether it was in the training data at all",
        Adjacency.REPLACE_ONE: "which of two possible contents it had (that it was there is known)",
        Adjacency.ZERO_OUT: "whether it was in the training data, or an empty one was",
    }[facts.claim.adjacency]
    return f"Each of {many} of the training data: {hidden}. {whose}"


def _from_whom(facts: RunFacts) -> str:
    if facts.void:
        return "Nobody: the promise is void."
    return (
        "Everybody who gets the trained adapter, its card, the ledger or this report, or who "
        f"watched every update: by any method, with any computer, even knowing every other "
        f"{facts.claim.unit}. Not from whoever runs the machines on which it was trained: they "
        "hold the data itself."
    )


def how_strongly(facts: Priced, verdict: Verdict) -> str:
    """ε and δ, and what they mean, in three sentences; what is contradicted is not established."""
    if facts.void or facts.spoken_of is None:
        return "Not at all, as far as can be shown."
    claim, found = facts.claim, facts.spoken_of
    doubt = (
        "This is NOT established, for the reasons above. If nothing contradicted it, it would be: "
        if verdict.standing == "broken"
        else ""
    )
    return (
        f"{doubt}"
        f"ε = {rounded_up(claim.epsilon)} at δ = {rounded_up(claim.delta)}. {odds(claim)} "
        f"{recognised(found, claim.unit)}"
    )


def warned(verdict: Verdict) -> tuple[Paragraph, ...]:
    """What stands before the numbers of a report that must not be relied on."""
    if verdict.standing != "broken":
        return ()
    words = "Do not rely on the numbers that follow. The first page says why."
    return (Paragraph(words=words),)


def odds(claim: Guarantee) -> str:
    """e^ε in a sentence."""
    if claim.epsilon > math.log(1e6):
        return "The factor e^ε is beyond a million, so that by itself it says nothing."
    times = float(rounded_up(math.exp(claim.epsilon), digits=3))
    return (
        "Whatever somebody concludes from the result would be at most "
        f"{times:,g} times (e^ε) as likely with any one "
        f"{claim.unit}'s data as without, but for the probability δ."
    )


def recognised(found: AttackBounds, unit: str) -> str:
    """What an attacker gains, for somebody who knows no formula."""
    return (
        f"Of 100 {unit}s that were used, an attacker who wrongly accuses no more than 1 of 100 "
        f"that were not can on average recognise at most {most_found(found)}; guessing "
        "recognises 1."
    )


def most_found(found: AttackBounds) -> str:
    """True positives in percent, rounded up."""
    return rounded_up(as_percent(found.true_positives), digits=3)


def _not_protected(facts: RunFacts) -> str:
    if facts.void:
        return "Whatever was in the training data."
    unit = facts.claim.unit
    several = (
        "someone who wrote several rows (what they share is hidden less)"
        if unit == "example"
        else f"someone behind several {unit}s"
    )
    return (
        f"Facts that hold whether or not any one {unit} took part, which is what training learns; "
        f"{several}; the held-out data; what was read off the data before training; what the base "
        "model knew already; and whatever other runs on the same data give away, whose costs add "
        "up. All of it is listed further on."
    )
