"""`dpacc calibrate --correlation banded` finds bands, says what they gain and what they cost."""

import json

import pytest
from dpacc_accounting import (
    Workload,
    calibrate_banded_noise,
    calibrate_noise,
    epsilon,
    event_from_json,
)

from tests.cli.conftest import words_of

JOB = {
    "--correlation": "banded",
    "--epsilon": 8,
    "--delta": 1e-5,
    "--dataset-size": 2000,
    "--batch-size": 40,
    "--steps": 60,
}


def _words(changes: dict[str, object] | None = None) -> list[object]:
    return words_of({**JOB, **(changes or {})})


def test_json_is_what_the_accountant_found(dpacc) -> None:
    """σ, coefficients, an event that costs the stated ε, and independent noise beside it."""
    outcome = dpacc("calibrate", *_words(), "--json")
    assert (outcome.code, outcome.err) == (0, "")
    told = json.loads(outcome.out)
    sizes = {"dataset_size": 2000, "batch_size": 40, "steps": 60, "epsilon": 8, "delta": 1e-5}
    found = calibrate_banded_noise(**sizes)
    assert told["noise_multiplier"] == found.calibration.noise_multiplier
    assert tuple(told["noise_coefficients"]) == found.coefficients
    assert (told["correlation"], told["sampling"]) == ("banded", "cyclic-poisson")
    assert told["accumulated_noise_left"] == found.error < 0.6
    assert told["largest_step_noise"] > 1
    usual = calibrate_noise(**sizes).noise_multiplier
    assert told["independent_noise_multiplier"] == usual < told["noise_multiplier"]
    event = event_from_json(document=told["event"])
    assert epsilon(event=event, delta=1e-5).epsilon == told["epsilon"] <= 8


def test_the_rate_beside_sigma_is_the_one_that_was_priced(dpacc) -> None:
    """A turn's bB/N and not a step's B/N, in the document and in the table."""
    told = json.loads(dpacc("calibrate", *_words({"--bands": 8}), "--json").out)
    assert told["bands"] == len(told["noise_coefficients"]) == 8
    assert told["sample_rate"] == told["event"]["probability"] == 8 * 40 / 2000
    assert told["batch_size"] == 40
    words = " ".join(dpacc("calibrate", *_words({"--bands": 8})).out.split())
    assert "0.16 = 8·40/2000" in words


def test_the_table_says_what_is_gained_and_for_which_workload(dpacc) -> None:
    """What is left, one step's noise, and the lines that a configuration takes."""
    told = json.loads(dpacc("calibrate", *_words({"--bands": 4}), "--json").out)
    outcome = dpacc("calibrate", *_words({"--bands": 4}))
    words = " ".join(outcome.out.split())
    assert outcome.err == ""
    for fact in (
        f"{told['accumulated_noise_left']:.3g} of what independent noise",
        "constant learning rate with momentum 0.9",
        f"up to {told['largest_step_noise']:.3g} times that of independent noise",
        "correlation: banded and bands: 4",
        "60, 1.2 epochs",
        "add-or-remove",
        "at δ = 1e-05",
    ):
        assert fact in words


def test_where_nothing_is_gained_independent_noise_is_named(dpacc) -> None:
    """One band on plain Poisson samples, and no line that asks for correlation."""
    words = _words({"--epsilon": 0.5, "--batch-size": 800, "--steps": 4})
    told = json.loads(dpacc("calibrate", *words, "--json").out)
    assert (told["bands"], told["sampling"], told["accumulated_noise_left"]) == (1, "poisson", 1.0)
    shown = " ".join(dpacc("calibrate", *words).out.split())
    assert "leave correlation out" in shown


def test_what_is_left_is_of_the_workload_that_is_named(dpacc) -> None:
    """The coefficients are those of the course that the document describes."""
    told = json.loads(dpacc("calibrate", *_words(), "--json").out)
    named = told["workload"]
    assert named.pop("learning_rate") == "constant"
    found = calibrate_banded_noise(
        dataset_size=2000,
        batch_size=40,
        steps=60,
        epsilon=8,
        delta=1e-5,
        workload=Workload.constant(steps=60, **named),
    )
    assert found.error == told["accumulated_noise_left"]


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"--sample-rate": 0.1}, "--batch-size"),
        ({"--noise-multiplier": 1.0}, "drop it"),
        ({"--advantage": 0.1}, "--epsilon and --delta"),
        ({"--true-positives": 0.1}, "--epsilon and --delta"),
        ({"--method": "rdp"}, "drop --method"),
        ({"--bands": 1}, "--bands"),
        ({"--bands": 51}, "at most 50"),
        ({"--correlation": "none", "--bands": 4}, "--correlation banded"),
        ({"--correlation": "toeplitz"}, "banded"),
        ({"--delta": None}, "--delta"),
        ({"--delta": 0.01}, "1/2000"),
        ({"--steps": None}, "--steps"),
        ({"--epsilon": None, "--sweep": "epsilon=1,2"}, "drop --correlation"),
    ],
)
def test_what_has_no_place_is_refused_in_one_line(
    dpacc, changes: dict[str, object], remedy: str
) -> None:
    """Exit code 2, and the remedy."""
    outcome = dpacc("calibrate", *_words(changes))
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert remedy in outcome.err
