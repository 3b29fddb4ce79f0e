"""An audit in words: what was claimed, what was measured, and how sure that is."""

from __future__ import annotations

from dpacc_accounting.guarantee import rounded_down, rounded_up

from dpacc.audit.verdict import Audit


def audit_rows(audit: Audit) -> list[tuple[str, str]]:
    """The claim, the lower bounds and the verdict, as the rows of a table."""
    claim = audit.claim
    rows = [
        (
            "claimed ε",
            f"{rounded_up(claim.epsilon)} at δ = {claim.delta:g}, {claim.adjacency}, {claim.unit}",
        ),
        (
            "guesses",
            f"{audit.guesses.correct} right of {audit.guesses.made}, about "
            f"{audit.guesses.canaries} canaries",
        ),
    ]
    rows[1:1] = [
        ("NOT private" if note.voids else "qualified", f"the ledger notes: {note.text}")
        for note in dict.fromkeys(audit.notes)
    ]
    rows += [(f"ε at least, {words}", rounded_down(value)) for words, value in bounds_of(audit)]
    return [
        *rows,
        ("confidence", f"{audit.confidence:.10g}"),
        ("verdict", verdict_of(audit)),
    ]


def bounds_of(audit: Audit) -> list[tuple[str, float]]:
    """What each lower bound on ε assumes, and the bound."""
    bounds = [
        ("whatever the mechanism", audit.epsilon),
        ("if it is Gaussian", audit.gaussian_epsilon),
    ]
    if audit.independent_epsilon is not None:
        bounds.append(("if scores are independent", audit.independent_epsilon))
    return bounds


def verdict_of(audit: Audit) -> str:
    """One sentence."""
    if audit.refuted:
        return "REFUTED: so many right guesses are too improbable under the claim"
    return "not refuted (which does not prove it)"
