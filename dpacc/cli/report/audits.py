"""Audits and attacks that were run beside a training run, as `dpacc audit --json` wrote them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpacc_accounting import Guarantee
from dpacc_accounting.guarantee import rounded_down, rounded_up

from dpacc.artifacts.document.content import Table
from dpacc.cli.documents import read_document
from dpacc.errors import ConfigurationError

_CANARIES = ("canaries", "guesses", "correct", "confidence", "epsilon_at_least", "refuted", "claim")
_SAME = 1e-6


@dataclass(frozen=True, kw_only=True)
class AuditFacts:
    """What one audit by canaries found.

    Args:
        name: of its file.
        epsilon: what it was told is claimed; infinite for nothing.
        delta: likewise.
        at_least: the lower bound on ε that it proved.
        confidence: of the bound, and of the verdict.
        canaries: how many there were.
        guesses: how many of their coins were guessed.
        correct: how many of these rightly.
        refuted: whether the claim cannot be true.
    """

    name: str
    epsilon: float
    delta: float
    at_least: float
    confidence: float
    canaries: int
    guesses: int
    correct: int
    refuted: bool

    def is_of(self, claim: Guarantee) -> bool:
        """Whether what it tested is what is claimed here."""
        return math.isclose(self.epsilon, claim.epsilon, rel_tol=_SAME) and math.isclose(
            self.delta, claim.delta, rel_tol=_SAME
        )


def read_audit(*, path: Path) -> AuditFacts:
    """Read what `dpacc audit --json` printed.

    Raises:
        ConfigurationError: the file cannot be read, or holds something else.
    """
    document = read_document(path=path, wanted="what `dpacc audit --json` prints")
    if "membership" in document:
        raise ConfigurationError(
            f"{path} holds an attack's figures, computed from private texts without noise: they "
            "are no part of a document that is handed on; give what `dpacc audit --json` prints"
        )
    try:
        return _audit(path.name, document)
    except (KeyError, TypeError, ValueError):
        raise ConfigurationError(
            f"{path} is not an audit: write one with `dpacc audit LEDGER --json > audit.json`"
        ) from None


def _audit(name: str, said: Mapping[str, Any]) -> AuditFacts:
    missing = [each for each in _CANARIES if each not in said]
    if missing or not isinstance(said["refuted"], bool):
        raise ValueError(missing)
    found = AuditFacts(
        name=name,
        epsilon=float(said["claim"]["epsilon"]),
        delta=float(said["claim"]["delta"]),
        at_least=float(said["epsilon_at_least"]),
        confidence=float(said["confidence"]),
        canaries=int(said["canaries"]),
        guesses=int(said["guesses"]),
        correct=int(said["correct"]),
        refuted=said["refuted"],
    )
    if math.isnan(found.epsilon) or math.isnan(found.at_least):
        raise ValueError(name)
    return found


def refuted_by(*, audits: Sequence[AuditFacts], claim: Guarantee) -> list[str]:
    """Which audits say that a claim cannot be true.

    One that tested another claim counts, too, if it proved more than is claimed here: ε is no
    smaller at a smaller δ.
    """
    return [
        f"{each.name}: an audit REFUTES ε = "
        f"{rounded_up(each.epsilon if each.refuted else claim.epsilon)}: ε is at least "
        f"{rounded_down(each.at_least)} at confidence {each.confidence:.10g}, by "
        f"{each.correct} right guesses of {each.guesses}"
        for each in audits
        if each.refuted or (each.delta >= claim.delta and each.at_least > claim.epsilon)
    ]


def audit_table(*, audits: Sequence[AuditFacts], claim: Guarantee) -> Table:
    """What each audit proved beside what is claimed here."""
    return Table(
        caption="Audits beside the claim",
        columns=("audit", "it tested", "ε is at least", "guesses", "confidence", "verdict"),
        rows=tuple(
            (
                each.name,
                f"ε = {rounded_up(each.epsilon)} at δ = {rounded_up(each.delta)}"
                + ("" if each.is_of(claim) else ", which is NOT what is claimed here"),
                rounded_down(each.at_least),
                f"{each.correct} right of {each.guesses}, about {each.canaries} canaries",
                f"{each.confidence:.10g}",
                "REFUTED" if each.refuted else "not refuted, which proves nothing",
            )
            for each in audits
        ),
    )
