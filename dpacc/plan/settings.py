"""What there is to choose from in a plan, and which of it goes together."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

from dpacc_accounting import Adjacency
from dpacc_accounting.ledger.plan_settings import require_sampling
from dpacc_accounting.pricing.small_delta import require_small_delta

from dpacc.errors import choices

Clipping = Literal["flat", "per-layer", "automatic", "adaptive"]
Noise = Literal["gaussian", "discrete_gaussian"]
Sampling = Literal["poisson", "cyclic-poisson", "allocated", "examples"]
Drawing = Literal["poisson", "allocated", "examples"]
Correlation = Literal["none", "banded"]

_LARGEST_DISCRETE_MULTIPLIER = 1e5
_MOST_DISCRETE_UNITS = 1 << 36


def require_plan(plan: Any) -> None:
    """Refuse a plan that is out of range, or whose settings do not go together.

    Raises:
        ValueError: the message shows the value and the remedy.
    """
    require(
        plan.adjacency is not Adjacency.ZERO_OUT,
        "adjacency='zero-out' is not what a run states; use 'add-or-remove', whose ε is the "
        "same for its Poisson samples",
    )
    for name in ("dataset_size", "expected_batch_size", "steps"):
        value = getattr(plan, name)
        require(
            _is_count(value) and value >= 1,
            f"{name}={value!r} must be an integer of at least 1",
        )
    require(
        plan.expected_batch_size <= plan.dataset_size,
        f"expected_batch_size={plan.expected_batch_size} exceeds "
        f"dataset_size={plan.dataset_size}; lower the batch size",
    )
    require(
        math.isfinite(plan.max_grad_norm) and plan.max_grad_norm > 0,
        f"max_grad_norm={plan.max_grad_norm} must be a finite number above 0",
    )
    require(
        0 < plan.target_delta < 1,
        f"target_delta={plan.target_delta} must lie strictly between 0 and 1",
    )
    require_small_delta(
        delta=plan.target_delta,
        dataset_size=plan.dataset_size,
        unit=plan.unit,
        name="target_delta",
    )
    require(
        plan.target_epsilon is None or plan.target_epsilon > 0,
        f"target_epsilon={plan.target_epsilon} must be above 0, or left out",
    )
    require_one_of(Clipping, clipping=plan.clipping)
    require_one_of(Noise, noise=plan.noise)
    require(
        plan.sampling in get_args(Sampling),
        f"sampling={plan.sampling!r} is not what the engine does; it must be one of "
        f"{choices(plan.sampling, get_args(Sampling))}",
    )
    _require_turns(plan)
    _require_owners(plan)
    require(
        math.isfinite(plan.noise_multiplier) and plan.noise_multiplier >= 0,
        f"noise_multiplier={plan.noise_multiplier} must be a finite number, at least 0",
    )
    require(
        plan.noise_multiplier > 0 or plan.allow_no_privacy,
        "noise_multiplier=0 gives no privacy; raise it, or set allow_no_privacy=True",
    )
    require(
        0 < plan.target_quantile < 1,
        f"target_quantile={plan.target_quantile} must lie strictly between 0 and 1",
    )
    require(
        plan.noise_multiplier < 2 * plan.count_noise,
        f"count_noise_multiplier={plan.count_noise_multiplier} must exceed half of "
        f"noise_multiplier={plan.noise_multiplier}, or the count alone spends the budget",
    )
    require(
        plan.noise == "gaussian"
        or (
            plan.gradient_noise_multiplier <= _LARGEST_DISCRETE_MULTIPLIER
            and plan.dataset_size <= _MOST_DISCRETE_UNITS
        ),
        f"noise='discrete_gaussian' with dataset_size={plan.dataset_size} and a noise "
        f"multiplier of {plan.gradient_noise_multiplier:.6g} outgrows 64-bit whole numbers; "
        "use noise='gaussian'",
    )


def _require_turns(plan: Any) -> None:
    """Correlated noise hides units whose turns are b steps apart, and no others."""
    require_sampling(
        sampling=plan.sampling,
        bands=plan.bands,
        adjacency=plan.adjacency,
        unit_cap=plan.unit_cap,
    )
    require(
        plan.bands * plan.expected_batch_size <= plan.dataset_size
        and (plan.bands == 1 or plan.bands <= plan.steps),
        f"{plan.bands} noise_coefficients do not fit {plan.steps} steps of "
        f"{plan.expected_batch_size} units out of {plan.dataset_size}; lower their number or "
        "the batch size",
    )
    require(
        plan.bands == 1 or plan.noise == "gaussian",
        "correlated noise is not drawn on a grid: set noise='gaussian', or leave "
        "noise_coefficients out",
    )


def _require_owners(plan: Any) -> None:
    """A bound on a unit's examples is for units of several."""
    require(
        plan.unit_cap is None or (_is_count(plan.unit_cap) and plan.unit_cap >= 1),
        f"unit_cap={plan.unit_cap!r} must be an integer of at least 1, or left out",
    )
    require(
        plan.unit_cap is None or plan.unit != "example",
        f"unit_cap={plan.unit_cap} bounds the examples of one unit: say what a unit is with unit=",
    )
    require(
        plan.sampling != "examples" or plan.noise == "gaussian",
        f"sampling='examples' with noise={plan.noise!r}: it is priced for 'add-or-remove' and "
        "'gaussian'; use these, or sample units with 'poisson'",
    )


def require_one_of(kinds: object, **settings: str) -> None:
    """Refuse a setting that is none of the kinds there are.

    Raises:
        ValueError: naming it, and what it may be.
    """
    for name, value in settings.items():
        known = get_args(kinds)
        require(value in known, f"{name}={value!r} must be one of {choices(value, known)}")


def require(condition: bool, message: str) -> None:
    """Refuse with `message` what is not so.

    Raises:
        ValueError: it.
    """
    if not condition:
        raise ValueError(message)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
