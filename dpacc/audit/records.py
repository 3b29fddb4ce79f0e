"""Scores in a file: what an audited trainer leaves behind, to be judged later or by others."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from dpacc.audit.claims import Claim
from dpacc.audit.verdict import Audit, Coins, Scores, judge
from dpacc.errors import ConfigurationError
from dpacc.plan import PrivacyPlan

_OF_A_RUN = ("included", "scores")
_FIELDS = {*_OF_A_RUN, "threshold", "plan", "epsilon", "delta"}


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
    path.write_text(json.dumps(document, allow_nan=False) + "\n", "utf-8")


def of_all_runs(*, documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The scores of several runs of one plan as one document.

    Each run has flipped coins of its own, so that all of them together are one mechanism that
    promises to each coin what its own run does. Give every run that was made: a choice among them
    by their scores voids the confidence.

    Args:
        documents: of [`write_scores`][dpacc.audit.records.write_scores], one a run.

    Raises:
        ConfigurationError: they claim different things, or one of them is given twice.

    >>> run = {"epsilon": 1.0, "delta": 1e-5, "included": [1, 0], "scores": [0.3, 0.1]}
    >>> of_all_runs(documents=[run, {**run, "scores": [0.2, 0.4]}])["scores"]
    [0.3, 0.1, 0.2, 0.4]
    """
    seen = [{name: _numbers(each, name).tolist() for name in _OF_A_RUN} for each in documents]
    claims = [{k: v for k, v in each.items() if k not in _OF_A_RUN} for each in documents]
    if any(claim != claims[0] for claim in claims):
        raise ConfigurationError(
            "these runs claim different things; judge runs of one plan together, others each alone"
        )
    if any(one["scores"] == other["scores"] for one, other in combinations(seen, 2)):
        raise ConfigurationError(
            "one run is given twice, and its coins would count twice; give each file once"
        )
    return claims[0] | {name: [v for each in seen for v in each[name]] for name in _OF_A_RUN}


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
