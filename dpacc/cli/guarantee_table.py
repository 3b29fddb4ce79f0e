"""A guarantee as the rows of a table, with everything that must be said beside ε."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from dpacc_accounting import Guarantee
from dpacc_accounting.guarantee import METHOD_NAMES, rounded_up

# Its module prices federations, and would load scipy for every recipe's `--help`.
if TYPE_CHECKING:
    from dpacc_accounting import FederatedGuarantee


def guarantee_rows(guarantee: Guarantee) -> list[tuple[str, str]]:
    """ε at its δ with all that it assumes, and what voids or qualifies it."""
    if guarantee.void_because:
        return [("NOT private", "; ".join(guarantee.void_because))]
    return [
        ("ε", f"{rounded_up(guarantee.epsilon, digits=6)} at δ = {rounded_up(guarantee.delta)}"),
        ("adjacency", str(guarantee.adjacency)),
        ("privacy unit", guarantee.unit),
        *method_and_slack(guarantee),
        *([("qualified", "; ".join(guarantee.qualified_by))] if guarantee.qualified_by else []),
    ]


def method_and_slack(guarantee: Guarantee) -> list[tuple[str, str]]:
    """How ε was found, and how much less it may be."""
    bounded_below = guarantee.slack < guarantee.epsilon
    return [
        ("method", METHOD_NAMES.get(guarantee.method, guarantee.method)),
        (
            "slack in ε",
            f"at most {rounded_up(guarantee.slack)}"
            if bounded_below
            else "unknown: this method has no lower bound",
        ),
    ]


def federation_rows(
    guarantee: FederatedGuarantee, *, folder: Path, seconds: float
) -> list[tuple[str, str]]:
    """What a federation promises to whom, priced anew from what was done, and where its books are.

    Args:
        guarantee: its history's.
        folder: of its run.
        seconds: that it took.
    """
    worst = guarantee.worst_server
    return [
        ("largest ε of a client", worst.name),
        *guarantee_rows(worst.server),
        *(("of clients", note.text) for note in guarantee.told),
        ("ledgers", str(folder / "<client>" / "ledger.jsonl")),
        ("priced again by", f"dpacc compose {folder / 'rounds.yaml'}"),
        ("wall time", f"{math.ceil(seconds / 60)} min"),
        ("saved in", str(folder)),
    ]
