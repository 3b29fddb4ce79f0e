"""Which settings of a plan a price and a statement need, and what to do where some are missing."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from dpacc_accounting.events.example_sampling import ExampleSampling
from dpacc_accounting.events.fields import shown
from dpacc_accounting.events.participation import (
    EpochAllocation,
    Participation,
    Phase,
    PhasedParticipation,
)
from dpacc_accounting.ledger.record import LedgerRecord

SCALES = {
    "flat": "by min(1, C / norm)",
    "automatic": "by C / (norm + 0.01)",
    "per-layer": "layer by layer, by min(1, C / (√K · norm)) for K layers",
    "adaptive": "by min(1, C / norm)",
}
"""The clippings that can be put in words, and their words."""

SAMPLINGS = frozenset({"poisson", "cyclic-poisson", "allocated", "examples"})
"""The ways of drawing that can be put in words."""

PRICED = frozenset({"adjacency", "unit", "target_delta"})
"""What a ledger's releases cannot be priced without."""

AnyParticipation = Participation | PhasedParticipation | EpochAllocation | ExampleSampling

_UNIT = 1 + 1e-14

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
    if plan["sampling"] not in SAMPLINGS or plan["clipping"] not in SCALES:
        raise ValueError(
            f"sampling={plan['sampling']!r}, clipping={plan['clipping']!r} cannot be put in words "
            f"here; the known ones are {sorted(SAMPLINGS)} and {sorted(SCALES)}"
        )
    require_sampling(
        sampling=plan["sampling"],
        bands=bands_of(plan=plan),
        adjacency=plan["adjacency"],
        unit_cap=plan.get("unit_cap"),
    )
    phases_of(plan=plan)


def require_sampling(
    *, sampling: str, bands: int, adjacency: str, unit_cap: int | None = None
) -> None:
    """Refuse a way of drawing that is not priced under such noise, or for such neighbours.

    Raises:
        ValueError: with the remedy.

    >>> require_sampling(sampling="allocated", bands=1, adjacency="add-or-remove")
    """
    if (sampling == "cyclic-poisson") != (bands > 1):
        raise ValueError(
            f"sampling={sampling!r} with {bands} noise_coefficients: correlated noise takes "
            "sampling='cyclic-poisson', and independent noise 'poisson', 'allocated' or "
            "'examples'"
        )
    if sampling == "allocated" and adjacency != "add-or-remove":
        raise ValueError(
            f"sampling='allocated' with adjacency={str(adjacency)!r}: random allocation is priced "
            "under 'add-or-remove', where a dominating pair is known; use that, or "
            "sampling='poisson'"
        )
    if sampling == "examples" and (unit_cap is None or adjacency != "add-or-remove"):
        raise ValueError(
            f"sampling='examples' with unit_cap={unit_cap}, adjacency={str(adjacency)!r}: it needs "
            "unit_cap, the most examples that are kept of a unit, and is priced for "
            "'add-or-remove'; give these, or sample units with 'poisson'"
        )


def require_one_way(*, sampling: str, correlation: str) -> None:
    """Refuse random allocation, and samples of examples, under correlated noise.

    Raises:
        ValueError: why, with the remedy.

    >>> require_one_way(sampling="allocated", correlation="none")
    """
    if sampling == "allocated" and correlation != "none":
        raise ValueError(
            f"sampling={sampling} with correlation={correlation}: a unit's steps in two epochs may "
            "be side by side, and correlated noise of b bands hides only what is b steps apart; "
            "choose one of the two"
        )
    if sampling == "examples" and correlation != "none":
        raise ValueError(
            f"sampling={sampling} with correlation={correlation}: two examples of one unit may be "
            "in groups side by side, whose rows of correlated noise overlap; choose one of the two"
        )


def participation_of(*, plan: Mapping[str, Any]) -> AnyParticipation:
    """Who joins which step of a plan whose settings are complete, and what steps cost.

    >>> participation_of(plan={"dataset_size": 100, "expected_batch_size": 10, "steps": 5,
    ...                        "noise_multiplier": 1.0, "sampling": "poisson"}).probability
    0.1
    """
    if phases := phases_of(plan=plan):
        return PhasedParticipation(dataset_size=plan["dataset_size"], phases=phases)
    shared = {
        name: plan[name] for name in ("dataset_size", "expected_batch_size", "noise_multiplier")
    }
    if plan["sampling"] == "allocated":
        return EpochAllocation(**shared, planned_steps=plan["steps"])
    if plan["sampling"] == "examples":
        return ExampleSampling(**shared, unit_cap=plan["unit_cap"])
    return Participation(**shared, bands=bands_of(plan=plan))


def bands_of(*, plan: Mapping[str, Any]) -> int:
    """b, how many coefficients correlate the noise of a plan's steps; 1 where none do.

    Raises:
        ValueError: they are no list of numbers with a first one above 0 and a norm of at most 1.

    >>> bands_of(plan={"noise_coefficients": [0.8, 0.6]}), bands_of(plan={})
    (2, 1)
    """
    coefficients = plan.get("noise_coefficients", (1.0,))
    require_coefficients(coefficients)
    return len(coefficients)


def phases_of(*, plan: Mapping[str, Any]) -> tuple[Phase, ...]:
    """A plan's phases in their order; none where all steps are alike.

    Raises:
        ValueError: they are no phases, do not add up to the plan's steps, do not begin with the
            plan's own numbers, or stand beside another sampling than "poisson".

    >>> each = {"steps": 5, "expected_batch_size": 10, "noise_multiplier": 2.0}
    >>> plan = {**each, "steps": 10, "sampling": "poisson", "phases": [each, each]}
    >>> len(phases_of(plan=plan)), phases_of(plan={})
    (2, ())
    """
    told = plan.get("phases", ())
    if not isinstance(told, list | tuple):
        raise ValueError(f"phases={shown(told)} are not a list of phases")
    phases = tuple(Phase.read(each) for each in told)
    if not phases:
        return ()
    if plan["sampling"] != "poisson":
        raise ValueError(
            f"phases with sampling={plan['sampling']!r}: phases are Poisson samples under "
            "independent noise; set sampling='poisson', or leave phases out"
        )
    steps = sum(phase.steps for phase in phases)
    if steps != plan["steps"]:
        raise ValueError(f"phases of {steps} steps in all in a plan of steps={plan['steps']}")
    for name in ("expected_batch_size", "noise_multiplier"):
        if plan[name] != getattr(phases[0], name):
            raise ValueError(
                f"{name}={plan[name]!r} is not the first phase's, {getattr(phases[0], name)!r}; "
                "a plan of phases begins with its first phase's numbers"
            )
    return phases


def require_coefficients(coefficients: Any) -> None:
    """Refuse what is no first column of a C whose columns have norm at most 1.

    Raises:
        ValueError: with the remedy.

    >>> require_coefficients((0.8, 0.6))
    """
    listed = isinstance(coefficients, list | tuple) and len(coefficients) > 0
    numbers = listed and all(
        isinstance(c, float | int) and not isinstance(c, bool) and math.isfinite(c)
        for c in coefficients
    )
    # Decimal fractions such as 0.8 and 0.6 are a few roundings more than they say.
    if not (numbers and coefficients[0] > 0 and math.fsum(c * c for c in coefficients) <= _UNIT):
        raise ValueError(
            f"noise_coefficients={shown(coefficients)} are no numbers of which the first is above "
            "0 and whose squares add up to at most 1; take them from optimal_coefficients"
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
    if missing and "mechanism" in plan:
        raise ValueError(
            f"these books are of {plan['mechanism']}, and statements are of training: "
            "'dpacc spend' prices them"
        )
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
