"""`dpacc calibrate` answers quickly, on the private side, and refuses what makes no sense."""

import json
import os
import subprocess
import sys

import pytest
from dpacc_accounting import epsilon, event_from_json

from tests.cli.conftest import words_of

JOB = {"--epsilon": 8, "--delta": 1e-5, "--dataset-size": 67349, "--batch-size": 256, "--epochs": 3}


def _words(changes: dict[str, object] | None = None) -> list[object]:
    return words_of({**JOB, **(changes or {})})


def test_json_is_one_complete_object(dpacc) -> None:
    """A script gets σ, what it buys and everything that was assumed, and nothing on stderr."""
    outcome = dpacc("calibrate", *_words(), "--json")
    found = json.loads(outcome.out)
    assert outcome.err == ""
    assert 0.4634 < found["noise_multiplier"] < 0.4640
    assert 7.9 < found["epsilon"] <= 8
    assert found["steps"] == 790
    assert found["sample_rate"] == 256 / 67349
    assert (found["delta"], found["adjacency"]) == (1e-5, "add-or-remove")
    assert (found["unit"], found["method"], found["sampling"]) == ("example", "pld", "poisson")


def test_json_can_be_priced_again(dpacc) -> None:
    """The event in the answer is the one whose ε is stated."""
    found = json.loads(dpacc("calibrate", *_words(), "--json").out)
    event = event_from_json(document=found["event"])
    assert epsilon(event=event, delta=1e-5).epsilon == found["epsilon"]


def test_table_states_every_assumption(dpacc) -> None:
    """A person reads σ, steps, q, ε at δ, adjacency, unit, method, slack and sampling."""
    outcome = dpacc("calibrate", *_words())
    words = " ".join(outcome.out.split())
    assert outcome.err == ""
    for fact in ("0.463", "790", "256/67349", "at δ = 1e-05", "add-or-remove", "example", "PLD"):
        assert fact in words
    for fact in ("slack", "poisson", "run exactly 790 steps"):
        assert fact in words


def test_the_printed_sigma_is_private(dpacc) -> None:
    """A σ copied from the table is not below the calibrated one."""
    exact = json.loads(dpacc("calibrate", *_words(), "--json").out)["noise_multiplier"]
    line = next(row for row in dpacc("calibrate", *_words()).out.splitlines() if "σ" in row)
    assert exact <= float(line.split()[-1]) < exact * 1.0001


def test_options_reach_the_accountant(dpacc) -> None:
    """Steps, adjacency, unit and method change the answer that is labelled with them."""
    changes = {"--epochs": None, "--steps": 100, "--unit": "patient", "--method": "rdp"}
    found = json.loads(dpacc("calibrate", *_words(changes), "--json").out)
    assert (found["steps"], found["method"], found["unit"]) == (100, "rdp", "patient")
    replaced = json.loads(dpacc("calibrate", *_words({"--adjacency": "replace-one"}), "--json").out)
    assert replaced["adjacency"] == "replace-one"
    assert replaced["noise_multiplier"] > 0.4640


def test_a_method_without_a_lower_bound_says_so(dpacc) -> None:
    """RDP's slack is not shown as if it were one."""
    shown = dpacc("calibrate", *_words({"--method": "rdp"})).out
    assert "RDP" in shown
    assert "no lower bound" in shown


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"--epsilon": -1}, "epsilon"),
        ({"--epsilon": 0}, "epsilon"),
        ({"--epsilon": "nan"}, "epsilon"),
        ({"--epsilon": "inf"}, "epsilon"),
        ({"--epsilon": "eight"}, "--epsilon"),
        ({"--epsilon": None}, "--epsilon"),
        ({"--delta": 0}, "delta"),
        ({"--delta": 1}, "delta"),
        ({"--delta": -1e-5}, "delta"),
        ({"--delta": "nan"}, "delta"),
        ({"--delta": None}, "--delta"),
        ({"--dataset-size": 0}, "dataset_size"),
        ({"--dataset-size": -5}, "dataset_size"),
        ({"--dataset-size": 1.5}, "--dataset-size"),
        ({"--dataset-size": 100}, "batch_size"),
        ({"--dataset-size": None}, "--dataset-size"),
        ({"--batch-size": 0}, "batch_size"),
        ({"--batch-size": "nan"}, "--batch-size"),
        ({"--batch-size": None}, "--batch-size"),
        ({"--epochs": 0}, "epochs"),
        ({"--epochs": "inf"}, "epochs"),
        ({"--epochs": "nan"}, "epochs"),
        ({"--epochs": None, "--steps": 0}, "steps"),
        ({"--epochs": None, "--steps": -3}, "steps"),
        ({"--steps": 10}, "--steps"),
        ({"--epochs": None}, "--epochs"),
        ({"--adjacency": "next-door"}, "--adjacency"),
        ({"--method": "guess"}, "--method"),
    ],
)
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_bad_input_is_one_line(dpacc, changes, culprit, form) -> None:
    """Each senseless setting ends with code 2 and one line on stderr that names the culprit."""
    outcome = dpacc("calibrate", *_words(changes), *form)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert culprit in outcome.err


def test_the_messages_reach_the_right_streams() -> None:
    """In a real process the table goes to stdout and the error to stderr, without a traceback."""
    good, bad = _process(), _process("--steps", "3")
    assert (good.returncode, bad.returncode) == (0, 2)
    assert "790" in good.stdout
    assert (good.stderr, bad.stdout) == ("", "")
    assert bad.stderr.startswith("error: ")
    assert "Traceback" not in bad.stderr


def test_no_colour_where_none_is_wanted() -> None:
    """NO_COLOR silences even a terminal that is told to show colours."""
    forced = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    forced.pop("NO_COLOR", None)
    assert "\x1b[" in _process(env=forced).stdout
    plain = _process(env={**forced, "NO_COLOR": "1"}).stdout
    assert not any(f"\x1b[{code}" in plain for code in range(30, 50))


def test_a_sample_rate_stands_for_both_sizes(dpacc) -> None:
    """q alone gives the noise of its sizes, and neither size; both at once are refused."""
    words = ("--epsilon", 8, "--delta", 1e-5, "--epochs", 3)
    by_rate = dpacc("calibrate", *words, "--sample-rate", 0.01, "--json")
    by_size = dpacc("calibrate", *words, "--dataset-size", 10_000, "--batch-size", 100, "--json")
    rated, sized = json.loads(by_rate.out), json.loads(by_size.out)
    assert rated["noise_multiplier"] == sized["noise_multiplier"]
    assert rated["steps"] == sized["steps"] == 300
    assert rated["dataset_size"] is rated["batch_size"] is None
    shown = dpacc("calibrate", *words, "--sample-rate", 0.01)
    assert shown.code == 0
    assert "3 epochs" in shown.out
    both = dpacc("calibrate", *words, "--sample-rate", 0.01, "--batch-size", 100)
    assert both.code == 2
    assert "--batch-size" in both.err


def test_a_cold_start_is_short() -> None:
    """Planning starts without the training stack, and with few modules beside numpy's and scipy's.

    Modules are counted, for seconds depend on what else the machine does.
    """
    code = (
        "import sys; from dpacc.cli.main import main\n"
        "try: main()\n"
        "finally: print(*sorted(sys.modules))"
    )
    command = [sys.executable, "-c", code, "calibrate", *map(str, _words())]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    *_, loaded = output.splitlines()
    modules = loaded.split()
    own = [name for name in modules if name.split(".")[0] not in ("numpy", "scipy")]
    assert "790" in output
    assert "numpy" in modules
    assert {"torch", "transformers", "dp_accounting", "matplotlib"}.isdisjoint(modules)
    assert len(own) < 700


def _process(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dpacc", "calibrate", *map(str, _words()), *words]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=env)
