"""Scores in a file: what an audited trainer leaves behind, to be judged later or by others."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dpacc.audit.claims import Claim
from dpacc.audit.verdict import Audit, Coins, Scores, judge
from dpacc.errors import ConfigurationError
from dpacc.plan import PrivacyPlan

_FIELDS = {"included", "scores", "threshold", "plan", "epsilon", "delta"}


def write_scores(
    *,
    path: Path,
    included: Coins,
    scores: Scores,
    plan: PrivacyPlan,
    threshold: float | None = None,
) -> None:
    """Write coins, scores, and the plan that is claimed to have been carried out."""
    document = {
        "plan": plan.to_json(),
        "threshold": threshold,
        "included": included.astype(int).tolist(),
        "scores": scores.tolist(),
    }
    path.write_text(json.dumps(document, allow_nan=False) + "\n")


def judge_recorded(
    *,
    document: Mapping[str, Any],
    epsilon: float | None = None,
    delta: float | None = None,
    confidence: float = 0.95,
) -> Audit:
    """Judge a document with "included" and "scores", and a claim: a "plan", or "epsilon", "delta".

    Args:
        document: `included` holds 0 or 1 for each canary, `scores` a number; `threshold` is
            explained at [`judge`][dpacc.audit.verdict.judge].
        epsilon: a claim that replaces the document's.
        delta: likewise; with a plan, the δ at which its ε is stated.
        confidence: of the verdict.

    Raises:
        ConfigurationError: a field is missing, unknown or senseless.

    >>> judge_recorded(document={"included": [1, 0] * 50, "scores": [1.0, 0.0] * 50,
    ...                          "epsilon": 1.0, "delta": 1e-5}).refuted
    True
    """
    unknown = sorted(set(document) - _FIELDS)
    if unknown:
        raise ConfigurationError(
            f"{unknown[0]!r} is not a field of recorded scores: {', '.join(sorted(_FIELDS))}"
        )
    coins = _numbers(document, "included")
    if not np.isin(coins, (0.0, 1.0)).all():
        raise ConfigurationError("'included' must hold 0 or 1 for each canary")
    return judge(
        included=coins == 1.0,
        scores=_numbers(document, "scores"),
        claim=_claim(document, epsilon, delta),
        confidence=confidence,
        threshold=document.get("threshold"),
    )


def _numbers(document: Mapping[str, Any], name: str) -> Scores:
    values = document.get(name)
    numbers = isinstance(values, list) and all(isinstance(v, int | float) for v in values)
    if not numbers or not values:
        raise ConfigurationError(f"{name!r} must be a list of one number for each canary")
    return np.array(values, dtype=np.float64)


def _claim(document: Mapping[str, Any], epsilon: float | None, delta: float | None) -> Claim:
    plan = document.get("plan")
    if epsilon is None and isinstance(plan, Mapping):
        try:
            promised = PrivacyPlan.from_json(plan)
        except TypeError as error:
            raise ConfigurationError(f"'plan' is not a privacy plan: {error}") from None
        event = promised.event()
        at = promised.target_delta if delta is None else delta
        return Claim.of_event(event=event, delta=at, unit=promised.unit)
    claimed = document.get("epsilon") if epsilon is None else epsilon
    at_delta = document.get("delta") if delta is None else delta
    if not (_is_number(claimed) and _is_number(at_delta)):
        raise ConfigurationError(
            "nothing is claimed: give --epsilon and --delta, or put them or a plan in the file"
        )
    return Claim.of_epsilon(epsilon=float(claimed or 0), delta=float(at_delta or 0))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
