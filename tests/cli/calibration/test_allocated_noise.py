"""`dpacc calibrate --sampling allocated` finds the noise, and says what it saves and needs."""

import json

import pytest
from dpacc_accounting import calibrate_noise, epsilon, event_from_json

from tests.cli.conftest import words_of

JOB = {
    "--sampling": "allocated",
    "--epsilon": 4,
    "--delta": 1e-4,
    "--dataset-size": 1000,
    "--batch-size": 300,
    "--epochs": 2.5,
}


def _words(changes: dict[str, object] | None = None) -> list[object]:
    return words_of({**JOB, **(changes or {})})


def test_json_is_what_the_accountant_found(dpacc) -> None:
    """σ, epochs of four steps, an event that costs the stated ε, and Poisson sampling beside it."""
    outcome = dpacc("calibrate", *_words(), "--json")
    assert (outcome.code, outcome.err) == (0, "")
    told = json.loads(outcome.out)
    assert (told["steps"], told["steps_an_epoch"], told["sampling"]) == (10, 4, "allocated")
    assert (told["sample_rate"], told["batch_size"]) == (0.25, 300)
    event = event_from_json(document=told["event"])
    assert epsilon(event=event, delta=1e-4).epsilon == told["epsilon"] <= 4
    poisson = calibrate_noise(
        dataset_size=1000, batch_size=300, steps=10, epsilon=4.0, delta=1e-4
    ).noise_multiplier
    assert told["poisson_noise_multiplier"] == poisson > told["noise_multiplier"]


def test_the_table_says_what_is_saved_and_needed(dpacc) -> None:
    """Never to the flattering side, with the steps of an epoch and of the one that is cut off."""
    told = json.loads(dpacc("calibrate", *_words(), "--json").out)
    outcome = dpacc("calibrate", *_words())
    words = " ".join(outcome.out.split())
    assert outcome.err == ""
    saved = 100 * (1 - told["noise_multiplier"] / told["poisson_noise_multiplier"])
    shown = float(words.split("less noise ")[1].split("%")[0])
    assert saved - 0.1 < shown <= saved
    for fact in (
        "10: 2 epochs of 4 = ⌈1000/300⌉ each, and 2 steps of one more",
        "250 examples on average; how many is secret",
        "shuffled order, would not be covered",
        "sampling: allocated",
    ):
        assert fact in words


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"--correlation": "banded"}, "choose one of the two"),
        ({"--adjacency": "replace-one"}, "priced under add-or-remove"),
        ({"--noise-multiplier": 1}, "drop it"),
        ({"--sample-rate": 0.1}, "needs both sizes"),
        ({"--method": "rdp"}, "drop --method"),
        ({"--delta": None}, "--delta"),
        ({"--steps": 4}, "--epochs or --steps"),
        ({"--sweep": "epsilon=1,2"}, "drop --sampling"),
    ],
)
def test_what_has_no_place_beside_it_is_refused(
    dpacc, changes: dict[str, object], told: str
) -> None:
    """In one line that names it, with exit code 2."""
    outcome = dpacc("calibrate", *_words(changes))
    assert (outcome.code, outcome.out) == (2, "")
    assert told in outcome.err
    assert len(outcome.err.splitlines()) == 1
