"""Whatever is passed to the accountant, it answers with a price or with one line."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import dpacc_accounting as accounting
import numpy as np
import pytest
from dpacc_accounting import Gaussian, PoissonSampled, Repeated, Selected

ONCE = Gaussian(noise_multiplier=1.0)
GUESSES = accounting.Guesses(correct=9, made=10, canaries=10)
SEARCH = Selected(event=ONCE, mean_runs=2, shape=1)
RUN = {"dataset_size": 1000, "batch_size": 10}
WHOLE = {"dataset_size": 10, "batch_size": 10}
NOT_NUMBERS = ["x", "0.01", None, Decimal("0.01"), True, 1j, [], {}, b"x", ONCE, np.array([0.1, 1])]
OUT_OF_RANGE = [math.nan, -math.inf, -1, 10**400]

# Every public function, its arguments in range, and those that are numbers.
CALLS: list[tuple[Any, dict[str, Any], tuple[str, ...]]] = [
    (accounting.epsilon, {"event": ONCE, "delta": 1e-5}, ("delta",)),
    (accounting.delta, {"event": ONCE, "epsilon": 1.0}, ("epsilon",)),
    (
        accounting.calibrate_noise,
        {**RUN, "steps": 10, "epsilon": 2.0, "delta": 1e-5},
        ("dataset_size", "batch_size", "epsilon", "delta"),
    ),
    (
        accounting.calibrate_steps,
        {**RUN, "noise_multiplier": 1.0, "epsilon": 2.0, "delta": 1e-5},
        ("dataset_size", "batch_size", "noise_multiplier", "epsilon", "delta"),
    ),
    (
        accounting.calibrate_epochs,
        {**RUN, "noise_multiplier": 1.0, "epsilon": 2.0, "delta": 1e-5},
        ("dataset_size", "batch_size", "noise_multiplier", "epsilon", "delta"),
    ),
    (
        accounting.calibrate_batch_size,
        {"dataset_size": 99, "noise_multiplier": 1.0, "steps": 9, "epsilon": 2.0, "delta": 1e-5},
        ("dataset_size", "noise_multiplier", "epsilon", "delta"),
    ),
    (
        accounting.calibrate_epsilon,
        {**RUN, "noise_multiplier": 1.0, "steps": 10, "delta": 1e-5},
        ("dataset_size", "batch_size", "noise_multiplier", "delta"),
    ),
    (
        accounting.calibrate_delta,
        {**RUN, "noise_multiplier": 1.0, "steps": 10, "epsilon": 1.0},
        ("dataset_size", "batch_size", "noise_multiplier", "epsilon"),
    ),
    (
        accounting.calibrate_noise_to_advantage,
        {**RUN, "steps": 10, "advantage": 0.05},
        ("dataset_size", "batch_size", "advantage"),
    ),
    (
        accounting.calibrate_noise_to_detection,
        {**WHOLE, "steps": 1, "true_positives": 0.1, "false_positives": 0.08},
        ("dataset_size", "batch_size", "true_positives", "false_positives"),
    ),
    (accounting.group_epsilon, {"event": ONCE, "size": 2, "delta": 1e-5}, ("size", "delta")),
    (accounting.user_epsilon, {"event": ONCE, "cap": 2, "delta": 1e-5}, ("cap", "delta")),
    (accounting.runs_at, {"event": SEARCH, "quantile": 0.5}, ("quantile",)),
    (
        accounting.joint_noise_multiplier,
        {"sum_noise_multiplier": 1.0, "count_noise": 1.0},
        ("sum_noise_multiplier", "count_noise"),
    ),
    (
        accounting.sum_noise_multiplier,
        {"joint_noise_multiplier": 1.0, "count_noise": 1.0},
        ("joint_noise_multiplier", "count_noise"),
    ),
    (accounting.tradeoff_curve, {"event": ONCE, "points": 3}, ("points",)),
    (
        accounting.attack_risk,
        {"event": ONCE, "false_positives": 0.1, "prior": 0.5},
        ("false_positives", "prior"),
    ),
    (
        accounting.true_positive_rate,
        {"event": ONCE, "false_positives": 0.1},
        ("false_positives",),
    ),
    (accounting.bayes_error, {"event": ONCE, "prior": 0.5}, ("prior",)),
    (
        accounting.positive_predictive_value,
        {"event": ONCE, "false_positives": 0.1, "prior": 0.5},
        ("false_positives", "prior"),
    ),
    (
        accounting.Guesses,
        {"correct": 9, "made": 10, "canaries": 10},
        ("correct", "made", "canaries"),
    ),
    (
        accounting.one_run_epsilon,
        {"guesses": GUESSES, "delta": 1e-5, "confidence": 0.9},
        ("delta", "confidence"),
    ),
    (accounting.one_run_mu, {"guesses": GUESSES, "confidence": 0.9}, ("confidence",)),
    (accounting.ApproximateDP, {"epsilon": 1.0, "delta": 0.1}, ("epsilon", "delta")),
    (accounting.RandomizedResponse, {"noise": 0.5, "options": 2}, ("noise", "options")),
    (accounting.DiscreteLaplace, {"decay": 0.5, "sensitivity": 2}, ("decay", "sensitivity")),
    (accounting.PermuteAndFlip, {"epsilon": 1.0}, ("epsilon",)),
    (
        accounting.TruncatedDiscreteGaussian,
        {"sigma": 2.0, "sensitivity": 1, "bound": 9},
        ("sigma", "sensitivity", "bound"),
    ),
    (
        accounting.MixtureOfGaussians,
        {"noise_multiplier": 2.0, "weights": (1.0,), "sensitivities": (1.0,)},
        ("noise_multiplier",),
    ),
    (accounting.ZCDP, {"rho": 1.0, "xi": 0.0}, ("rho", "xi")),
    (accounting.Gaussian, {"noise_multiplier": 1.0}, ("noise_multiplier",)),
    (
        accounting.AdaptivelyClipped,
        {"noise_multiplier": 1.0, "count_noise": 1.0},
        ("noise_multiplier", "count_noise"),
    ),
    (accounting.PoissonSampled, {"probability": 0.1, "event": ONCE}, ("probability",)),
    (accounting.Repeated, {"event": ONCE, "times": 1}, ("times",)),
    (
        accounting.SampledWithoutReplacement,
        {"sample_size": 1, "dataset_size": 2, "event": ONCE},
        ("sample_size", "dataset_size"),
    ),
    (
        accounting.TruncatedPoissonSampled,
        {"probability": 0.1, "largest_batch": 2, "dataset_size": 9, "event": ONCE},
        ("probability", "largest_batch", "dataset_size"),
    ),
    (
        accounting.RandomlyAllocated,
        {"steps": 2, "participations": 1, "event": ONCE},
        ("steps", "participations"),
    ),
    (accounting.Selected, {"event": ONCE, "mean_runs": 2, "shape": 1}, ("mean_runs", "shape")),
    (accounting.Laplace, {"noise_multiplier": 1.0}, ("noise_multiplier",)),
    (accounting.DiscreteGaussian, {"sigma": 1.0, "sensitivity": 1}, ("sigma", "sensitivity")),
    (accounting.Skellam, {"variance": 1.0, "sensitivity": 1}, ("variance", "sensitivity")),
    (accounting.ExponentialMechanism, {"epsilon": 1.0}, ("epsilon",)),
]
# A dataset may have any size.
WITHOUT_END = {"dataset_size", "canaries"}
NUMBERS = [(call, given, name) for call, given, names in CALLS for name in names]
TAKING_EVENTS = [(call, given) for call, given, _ in CALLS if "event" in given]


def refused(call: Any, given: dict[str, Any], name: str, value: Any) -> str:
    """The message with which `value` is refused."""
    with pytest.raises(ValueError, match=name.split("_")[-1]) as caught:
        call(**{**given, name: value})
    return str(caught.value)


@pytest.mark.parametrize(
    ("call", "given", "name"), NUMBERS, ids=[f"{c.__name__}-{n}" for c, _, n in NUMBERS]
)
class TestNumbers:
    def test_what_is_no_number_is_refused_in_one_line(
        self, call: Any, given: dict[str, Any], name: str
    ) -> None:
        """Strings, None, decimals, truth values and arrays are named, not computed with."""
        for value in NOT_NUMBERS:
            message = refused(call, given, name, value)
            assert name in message
            assert "\n" not in message
            assert len(message) < 250

    def test_what_is_out_of_range_is_refused_in_one_line(
        self, call: Any, given: dict[str, Any], name: str
    ) -> None:
        """NaN, infinities, negative and gigantic numbers are named."""
        for value in OUT_OF_RANGE:
            if value == 10**400 and name in WITHOUT_END:
                continue
            message = refused(call, given, name, value)
            assert name.removeprefix("sum_") in message
            assert "\n" not in message


@pytest.mark.parametrize(("call", "given", "names"), CALLS, ids=[c.__name__ for c, *_ in CALLS])
def test_numbers_of_other_libraries_count_as_plain_ones(
    call: Any, given: dict[str, Any], names: tuple[str, ...]
) -> None:
    """numpy scalars give what the same floats give, and leave no trace in the result."""
    scalars = {
        name: (np.int64 if isinstance(given[name], int) else np.float64)(given[name])
        for name in names
    }
    plain, found = call(**given), call(**{**given, **scalars})
    assert repr(found) == repr(plain)
    assert str(found) == str(plain)


@pytest.mark.parametrize("value", [np.float64(0.25), np.float32(0.25), Fraction(1, 4)])
def test_a_guarantee_of_any_number_prints_and_is_strict_json(value: Any) -> None:
    """numpy 2 writes np.float64(0.25), which is neither a decimal number nor JSON."""
    step = Repeated(event=PoissonSampled(probability=value, event=ONCE), times=np.int64(2))
    for found in (
        accounting.epsilon(event=step, delta=value),
        accounting.delta(event=step, epsilon=value),
    ):
        assert "0.25" in str(found)
        assert "0.25" in json.dumps(found.to_json())


@pytest.mark.parametrize(
    ("call", "given"), TAKING_EVENTS, ids=[call.__name__ for call, _ in TAKING_EVENTS]
)
@pytest.mark.parametrize("value", [None, "gaussian", {}, [ONCE], 1.0, Gaussian])
def test_what_is_no_event_is_refused_in_one_line(
    call: Any, given: dict[str, Any], value: Any
) -> None:
    """A document, a class and a list are no events; the line says what is."""
    message = refused(call, given, "event", value)
    assert "\n" not in message


@pytest.mark.parametrize("value", [None, 1, 1.5, "", ["example"], b"example"])
def test_a_unit_is_a_name(value: Any) -> None:
    """A unit that is no word would make the guarantee unreadable."""
    assert "unit" in refused(accounting.epsilon, {"event": ONCE, "delta": 0.1}, "unit", value)


@pytest.mark.parametrize("value", [None, 1, "both", ["pld"], {}])
def test_choices_are_listed(value: Any) -> None:
    """An unknown method or adjacency is answered with the known ones."""
    given = {"event": ONCE, "delta": 0.1}
    assert "choose one of pld, rdp, g" in refused(accounting.epsilon, given, "method", value)
    assert "choose one of add-or-remove" in refused(accounting.epsilon, given, "adjacency", value)


@pytest.mark.parametrize("value", [None, 3, "ab", {}, {"a": ONCE}, np.array(1.0)])
def test_parts_come_as_a_list(value: Any) -> None:
    """Strings and mappings are iterable, and no lists of events or of weights."""
    assert "events" in refused(accounting.Composed, {}, "events", value)
    mixture = {"weights": (1.0,), "events": (ONCE,)}
    for name in mixture:
        assert "list" in refused(accounting.Mixture, mixture, name, value)


@pytest.mark.parametrize(
    "call", [accounting.event_to_json, accounting.to_dp_event, accounting.without_amplification]
)
def test_what_takes_only_an_event_says_so(call: Any) -> None:
    """They neither look it up in a table nor hand it back."""
    assert "is not an event" in refused(call, {}, "event", "gaussian")


@pytest.mark.parametrize("value", [None, "x", 1.0, [], True])
def test_what_is_no_document_and_no_guesses_is_refused(value: Any) -> None:
    """A plan, ledgers and guesses are told from anything else."""
    assert "guesses" in refused(accounting.one_run_mu, {}, "guesses", value)
    assert "guesses" in refused(accounting.one_run_epsilon, {"delta": 0}, "guesses", value)
    assert "plan" in refused(accounting.statement, {}, "plan", value)
    with pytest.raises(accounting.LedgerError, match=r"records|no ledger"):
        accounting.merge_ledgers(records=value)
