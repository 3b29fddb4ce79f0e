"""`dpacc calibrate --sweep` calibrates every combination of several settings."""

import json
from pathlib import Path

import pytest
from dpacc_accounting import calibrate_noise

FIXED = ["--delta", 1e-5, "--dataset-size", 67349, "--epochs", 3]
SWEEP = ["--sweep", "epsilon=2,8", "batch_size=128,512"]


def test_json_has_a_row_for_each_combination(dpacc) -> None:
    """A script gets the fixed settings once, and σ, steps and q of all combinations in order."""
    found = json.loads(dpacc("calibrate", *FIXED, *SWEEP, "--json").out)
    assert (found["delta"], found["adjacency"], found["sampling"]) == (
        1e-5,
        "add-or-remove",
        "poisson",
    )
    settings = [(row["epsilon"], row["batch_size"]) for row in found["rows"]]
    assert settings == [(2, 128), (2, 512), (8, 128), (8, 512)]
    last = calibrate_noise(dataset_size=67349, batch_size=512, epochs=3, epsilon=8, delta=1e-5)
    assert found["rows"][-1]["noise_multiplier"] == last.noise_multiplier
    assert all(row["epsilon_reached"] <= row["epsilon"] for row in found["rows"])


def test_table(dpacc) -> None:
    """A person reads a row for each combination and what they share."""
    outcome = dpacc("calibrate", *FIXED, *SWEEP)
    words = " ".join(outcome.out.split())
    for fact in ("epsilon batch size σ", "2 128", "8 512", "dataset size 67349", "poisson"):
        assert fact in words
    assert outcome.err == ""


def test_any_setting_can_be_swept(dpacc) -> None:
    """Steps, δ, epochs and sizes are swept as ε is, with either spelling and repeated flags."""
    words = ["--epsilon", 4, "--batch-size", 100, "--sweep", "dataset-size=1000,2000"]
    found = json.loads(
        dpacc("calibrate", *words, "--sweep", "steps=5,6", "delta=1e-5", "--json").out
    )
    assert [(r["dataset_size"], r["steps"]) for r in found["rows"]] == [
        (1000, 5),
        (1000, 6),
        (2000, 5),
        (2000, 6),
    ]


@pytest.mark.parametrize("sweep", [SWEEP, ["--epsilon", 2, "--sweep", "batch_size=8,64,512"]])
def test_the_plot_is_a_picture(dpacc, tmp_path: Path, sweep: list[object]) -> None:
    """--plot writes a PNG of one or two settings."""
    assert dpacc("calibrate", *FIXED, *sweep, "--plot", tmp_path / "a.png").code == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sweep", "epsilon"], "setting=value,value"),
        (["--sweep", "epsilom=1", "batch_size=8"], "did you mean 'epsilon'?"),
        (["--sweep", "unit=1", "batch_size=8"], "choose from"),
        (["--sweep", "epsilon=1,x", "batch_size=8"], "'x' is not a number"),
        (["--sweep", "epsilon=1", "batch_size=8.5"], "'8.5' is not a whole number"),
        (["--sweep", "epsilon=1", "epsilon=2"], "twice"),
        (["--sweep", "epsilon=1"], "--batch-size"),
        (["--sweep", "epsilon=1", "batch_size=8", "delta=1e-5"], "--delta is given"),
        (["--sweep", "epsilon=-1", "batch_size=8"], "epsilon"),
        (["--epsilon", "8", "batch_size=8"], "needs --sweep"),
        (["--epsilon", "8", "--batch-size", "8", "--plot", "a.png"], "needs --sweep"),
        (["--sweep", "epsilon=1", "batch_size=8", "steps=1"], "--epochs"),
    ],
)
def test_bad_sweeps_are_one_line(dpacc, words: list[str], message: str) -> None:
    """A sweep that makes no sense is one line on stderr and code 2."""
    outcome = dpacc("calibrate", *FIXED, *words)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert message in outcome.err


def test_three_settings_make_no_figure(dpacc, tmp_path: Path) -> None:
    """A figure shows at most two settings; the refusal says what to do."""
    words = ["--sweep", "epsilon=8", "batch_size=512", "delta=1e-5", "--plot", tmp_path / "a.png"]
    outcome = dpacc("calibrate", "--dataset-size", 67349, "--epochs", 3, *words)
    assert outcome.code == 2
    assert "at most two" in outcome.err
