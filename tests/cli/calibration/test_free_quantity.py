"""`dpacc calibrate` solves for whichever quantity was left out, or for an attack's success."""

import json
import math

import pytest
from dpacc_accounting import attack_advantage, event_from_json, true_positive_rate

from tests.cli.conftest import words_of

JOB = {
    "--noise-multiplier": 0.464,
    "--epsilon": 8,
    "--delta": 1e-5,
    "--dataset-size": 67349,
    "--batch-size": 256,
    "--steps": 790,
}


def _words(left_out: str, **more: object) -> list[object]:
    options = {name: value for name, value in JOB.items() if name != left_out}
    options |= {f"--{name.replace('_', '-')}": value for name, value in more.items()}
    return words_of(options)


@pytest.mark.parametrize(
    ("left_out", "name", "low", "high"),
    [
        ("--noise-multiplier", "noise_multiplier", 0.4634, 0.4640),
        ("--epsilon", "epsilon", 7.9, 8.0),
        ("--delta", "delta", 8e-6, 1e-5),
        ("--batch-size", "batch_size", 256, 260),
        ("--steps", "steps", 790, 800),
    ],
)
def test_what_is_left_out_is_solved_for(dpacc, left_out, name, low, high) -> None:
    """The same training run comes back, within its budget, whichever quantity is unknown."""
    found = json.loads(dpacc("calibrate", *_words(left_out), "--json").out)
    assert found["solved_for"] == name
    assert low <= found[name] <= high
    assert found["epsilon"] <= 8


def test_a_person_reads_which_quantity_was_solved_for(dpacc) -> None:
    """The table's title names it, and the line of steps says how many epochs they are."""
    words = " ".join(dpacc("calibrate", *_words("--steps")).out.split())
    assert "Most steps within the budget" in words
    assert "3.0" in words
    assert "epochs" in words


def test_noise_against_an_advantage(dpacc) -> None:
    """The noise found holds every attack's advantage below the target, as the event shows."""
    words = ["--advantage", 0.1, "--dataset-size", 1000, "--batch-size", 100, "--steps", 20]
    found = json.loads(dpacc("calibrate", *words, "--json").out)
    reached = attack_advantage(event=event_from_json(document=found["event"]))
    assert 0.099 < reached <= 0.1


def test_noise_against_detection(dpacc) -> None:
    """The (ε, δ) found allows no more members to be caught, and hardly fewer."""
    words = ["--true-positives", 0.1, "--false-positives", 0.01, "--dataset-size", 1000]
    found = json.loads(dpacc("calibrate", *words, "--batch-size", 100, "--steps", 20, "--json").out)
    growth = math.exp(found["epsilon"])
    caught = min(growth * 0.01 + found["delta"], 1 - (1 - found["delta"] - 0.01) / growth)
    assert caught <= 0.1
    event = event_from_json(document=found["event"])
    assert true_positive_rate(event=event, false_positives=0.01) > 0.099


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (_words("--steps", epochs=3), "left out here: nothing"),
        (_words("--steps")[:-2], "left out here: --batch-size, --steps"),
        (_words("--steps", advantage=0.1), "drop --noise-multiplier"),
        (_words("--noise-multiplier", advantage=0.1), "two targets"),
        (["--true-positives", 0.1, "--steps", 3], "Missing option '--false-positives'"),
    ],
)
def test_contradictions_are_refused(dpacc, words, message) -> None:
    """Too much, too little, or two targets: one line says which, with exit code 2."""
    outcome = dpacc("calibrate", *words)
    assert outcome.code == 2
    assert message in " ".join(outcome.err.split())
