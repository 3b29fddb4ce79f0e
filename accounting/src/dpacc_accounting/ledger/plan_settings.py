"""Which settings of a plan a price and a statement need, and what to do where some are missing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from dpacc_accounting.ledger.record import LedgerRecord

SCALES = {
    "flat": "by min(1, C / norm)",
    "automatic": "by C / (norm + 0.01)",
    "per-layer": "layer by layer, by min(1, C / (√K · norm)) for K layers",
    "adaptive": "by min(1, C / norm)",
}
"""The clippings that can be put in words, and their words."""

PRICED = frozenset({"adjacency", "unit", "target_delta"})
"""What a ledger's releases cannot be priced without."""

_NUMBERS = frozenset(
    {
        "dataset_size",
        "expected_batch_size",
        "steps",
        "noise_multiplier",
        "max_grad_norm",
        "target_delta",
    }
)
_WORDS = frozenset({"unit", "adjacency", "sampling", "clipping"})
_ALL = _NUMBERS | _WORDS


def missing_settings(*, plan: Mapping[str, Any]) -> list[str]:
    """What a statement needs and `plan` lacks.

    >>> missing_settings(plan={"steps": 2, "unit": "example", "adjacency": "add-or-remove"})
    ['clipping', 'dataset_size', 'expected_batch_size', 'max_grad_norm', 'noise_multiplier', \
'sampling', 'target_delta']
    """
    return sorted(_ALL - plan.keys())


def require_priceable(
    *, plan: Mapping[str, Any], record: LedgerRecord | None, delta: float | None
) -> None:
    """Refuse what has no price: a ledger needs few settings, a plan all.

    Raises:
        ValueError: naming what is missing or senseless.
    """
    if record is None:
        require_statable(plan=plan, record=None)
        return
    _require_there(plan, PRICED - ({"target_delta"} if delta is not None else set()), record)
    _require_numbers(plan)


def require_statable(*, plan: Mapping[str, Any], record: LedgerRecord | None) -> None:
    """Refuse what cannot be put in words.

    Raises:
        ValueError: naming what is missing or senseless.
    """
    _require_there(plan, _ALL, record)
    _require_numbers(plan)
    if plan["sampling"] != "poisson" or plan["clipping"] not in SCALES:
        raise ValueError(
            f"sampling={plan['sampling']!r}, clipping={plan['clipping']!r} cannot be put in words "
            f"here; the known ones are 'poisson' and {sorted(SCALES)}"
        )


def require_same(*, plan: Mapping[str, Any], record: LedgerRecord | None) -> None:
    """Refuse a plan that says otherwise than the ledger's own.

    Raises:
        ValueError: with both values.
    """
    for name, value in (record.plan if record else {}).items():
        if name in plan and plan[name] != value:
            raise ValueError(
                f"the plan says {name}={plan[name]!r} and the ledger {value!r}; a ledger's first "
                "line holds: leave the setting out"
            )


def _require_there(
    plan: Mapping[str, Any], needed: Collection[str], record: LedgerRecord | None
) -> None:
    missing = ", ".join(sorted(set(needed) - plan.keys()))
    if missing and record is None:
        raise ValueError(f"the plan lacks {missing}; add them to state a guarantee")
    if missing:
        raise ValueError(
            f"the ledger's plan lacks {missing}, and its first line cannot be changed: give them "
            "beside it, in a file after --settings, or as record.completed(settings={...})"
        )


def _require_numbers(plan: Mapping[str, Any]) -> None:
    for name in sorted(_NUMBERS & plan.keys()):
        value = plan[name]
        if not isinstance(value, int | float) or value < 0 or (value == 0 and "noise" not in name):
            raise ValueError(f"the plan's {name}={value!r} is not a number above 0")
