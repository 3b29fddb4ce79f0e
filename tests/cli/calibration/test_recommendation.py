"""`dpacc plan --recommend` says what a budget of compute is best spent on, and what to write."""

from __future__ import annotations

import functools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dpacc_accounting import (
    BatchRecommendation,
    calibrate_noise,
    epsilon,
    event_from_json,
    recommend_batch_size,
)
from dpacc_accounting.calibration.compute_budget import USUAL_AVERAGE
from dpacc_accounting.events.participation import EpochAllocation
from dpacc_accounting.pricing.small_delta import small_delta

from dpacc.cli.commands import plan as command
from dpacc.recipe.assembly import plan_for
from dpacc.recipe.config import TrainingConfig, load_config
from dpacc.step.averaging import USUAL_SHARE
from tests.cli.conftest import Run

BUDGET = ("--dataset-size", 500, "--epsilon", 3, "--gradient-evaluations", 6000)
DELTA = small_delta(dataset_size=500)


@functools.cache
def compared(**budget: Any) -> BatchRecommendation:
    """What the accountant says of a budget, worked out once."""
    return recommend_batch_size(**budget)


@pytest.fixture(autouse=True)
def each_budget_is_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests ask for the same one, which takes seconds."""

    def known(*, track: Any, **budget: Any) -> BatchRecommendation:
        assert callable(track)
        return compared(**budget)

    monkeypatch.setattr("dpacc.cli.calibration.recommendation.recommend_batch_size", known)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration of forty examples, whose run takes 100 gradient evaluations."""
    (tmp_path / "train.jsonl").write_text('{"text": "a secret", "who": "me"}\n' * 40)
    path = tmp_path / "run.yaml"
    path.write_text(
        f"model: none\ntrain_data: {tmp_path}/train.jsonl\nepsilon: 8\n"
        "expected_batch_size: 4\nsteps: 25\n"
    )
    return path


def test_json_is_what_the_accountant_recommends(dpacc: Run) -> None:
    """Every choice, the knee, and a guarantee of exactly the steps that are recommended."""
    outcome = dpacc("plan", "--recommend", *BUDGET, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    told = json.loads(outcome.out)
    found = compared(
        dataset_size=500,
        gradient_evaluations=6000,
        epsilon=3.0,
        delta=DELTA,
        unit="example",
        momentum=0.9,
        averaged=0.5,
    )
    assert [(row["batch_size"], row["steps"]) for row in told["choices"]] == [
        (each.batch_size, each.steps) for each in found.choices
    ]
    for row, each in zip(told["choices"], found.choices, strict=True):
        assert row["noise_batch_ratio"] == each.noise_multiplier / each.batch_size
        assert (row["effective_noise"], row["banded_effective_noise"]) == (
            each.independent,
            each.banded,
        )
        assert row["knee"] == (each is found.knee)
    chosen = told["recommended"]
    assert chosen["at_knee"]
    assert chosen["batch_size"] == found.chosen.batch_size
    event = event_from_json(document=chosen["event"])
    spent = epsilon(event=event, delta=DELTA)
    assert chosen["guarantee"]["epsilon"] == spent.epsilon <= 3
    assert event.steps == chosen["steps"] == found.chosen.steps
    assert told["delta"] == DELTA
    plain = told["without_correlation"]
    usual = calibrate_noise(
        dataset_size=500,
        batch_size=plain["batch_size"],
        steps=plain["steps"],
        epsilon=3,
        delta=DELTA,
    )
    assert plain["noise_multiplier"] == usual.noise_multiplier
    allocated = EpochAllocation(
        dataset_size=500,
        expected_batch_size=plain["batch_size"],
        noise_multiplier=plain["allocated_noise_multiplier"],
        planned_steps=plain["steps"],
    )
    assert plain["allocated_noise_multiplier"] < plain["noise_multiplier"]
    assert epsilon(event=allocated.event(steps=plain["steps"]), delta=DELTA).epsilon <= 3
    assert "learning rate" in told["unknown"]


def test_its_lines_make_a_run_of_that_noise(dpacc: Run, config: Path, tmp_path: Path) -> None:
    """A configuration of them is planned with the σ that is told, for as many steps."""
    told = json.loads(dpacc("plan", "--recommend", *BUDGET, "--json").out)
    needed = {"model": "m", "train_data": "t"}
    (tmp_path / "new.yaml").write_text(yaml.safe_dump({**needed, **told["configuration"]}))
    settings = load_config(arguments=["--config", str(tmp_path / "new.yaml")])
    plan = plan_for(config=settings, dataset_size=500)
    recommended = told["recommended"]
    assert plan.noise_multiplier == recommended["noise_multiplier"]
    assert (plan.steps, plan.bands) == (recommended["steps"], recommended["bands"])
    assert plan.guarantee().epsilon == recommended["guarantee"]["epsilon"]
    assert plan.sampling == recommended["sampling"]


def test_the_table_marks_the_knee_and_says_what_is_assumed(
    dpacc: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule, ε with all that it assumes, the lines, and what nobody knows here."""
    monkeypatch.setenv("COLUMNS", "160")
    told = json.loads(dpacc("plan", "--recommend", *BUDGET, "--json").out)
    outcome = dpacc("plan", "--recommend", *BUDGET)
    assert outcome.err == ""
    (knee,) = (line.split() for line in outcome.out.splitlines() if line.rstrip().endswith(" knee"))
    assert int(knee[0]) == told["recommended"]["batch_size"]
    words = " ".join(outcome.out.split())
    for fact in (
        f"expected_batch_size: {knee[0]}, steps: {told['recommended']['steps']}",
        "the most steps, at least 64",
        "less than 10%",
        "add-or-remove",
        "momentum 0.9, the mean of the last 50%",
        "σ·e/(B·√T)",
        "the model's size, the task",
    ):
        assert fact in words


def test_the_table_in_the_documentation_is_what_is_printed(
    dpacc: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page's own command gives the page's rows, knee and all."""
    monkeypatch.setenv("COLUMNS", "160")
    page = (Path(__file__).parents[3] / "docs/plan.md").read_text()
    (line,) = re.findall(r"^dpacc (plan --recommend .*) --plot", page, re.MULTILINE)
    _, _, *rows = dpacc(*shlex.split(line)).out.split("Recommendation")[0].splitlines()
    shown = [
        [word for at, word in enumerate(row.split()) if at != 2]  # σ/B has no room there
        for row in rows
    ]
    _, table = page.split("| batch | steps | independent | banded | bands | twice | |\n")
    lines = table.split("\n\n")[0].splitlines()[1:]
    assert [line.replace("|", " ").split() for line in lines] == shown


def test_a_budget_without_a_knee_says_so(dpacc: Run) -> None:
    """What comes nearest is recommended, and that more compute would pay."""
    words = ("--dataset-size", 200, "--epsilon", 3, "--gradient-evaluations", 200)
    shown = " ".join(dpacc("plan", "--recommend", *words).out.split())
    assert "beyond this budget" in shown
    assert "nearest" in shown
    assert not json.loads(dpacc("plan", "--recommend", *words, "--json").out)["recommended"][
        "at_knee"
    ]


def test_a_configuration_says_what_options_do_not(dpacc: Run, config: Path) -> None:
    """N is counted, ε, δ, unit and compute are its own; options and overrides come first."""
    told = json.loads(dpacc("plan", config, "--recommend", "--json").out)
    assert (told["dataset_size"], told["evaluations"], told["epsilon"]) == (40, 100, 8.0)
    assert told["delta"] == TrainingConfig(
        model="m", train_data="t", epsilon=8.0, expected_batch_size=4, steps=25
    ).delta_for(dataset_size=40)
    words = ("--dataset-size", 90, "--gradient-evaluations", 90, "--epsilon", 2, "--delta", 1e-4)
    other = ("--average_iterates", 0.25, "--unit_field", "who")
    told = json.loads(dpacc("plan", config, "--recommend", *words, *other, "--json").out)
    assert (told["dataset_size"], told["evaluations"]) == (90, 90)
    assert (told["epsilon"], told["delta"], told["unit"]) == (2.0, 1e-4, "who")
    assert told["workload"]["averaged"] == 0.25


def test_it_is_drawn(dpacc: Run, tmp_path: Path) -> None:
    """Once more with every line named."""
    outcome = dpacc("plan", "--recommend", *BUDGET, "--plot", tmp_path / "a.svg", "--json")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")


def test_it_needs_no_training_stack() -> None:
    """Where torch and transformers cannot be imported it says the same."""
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('torch', 'transformers', 'peft', 'accelerate'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from dpacc.cli.main import main; main()"
    )
    budget = "--dataset-size 60 --epsilon 3 --gradient-evaluations 16"
    words = ["plan", "--recommend", *budget.split(), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    known = recommend_batch_size(
        dataset_size=60,
        gradient_evaluations=16,
        epsilon=3.0,
        delta=small_delta(dataset_size=60),
    )
    assert json.loads(done.stdout)["recommended"]["batch_size"] == known.chosen.batch_size


def test_the_share_that_is_assumed_is_that_of_recipes() -> None:
    """The mean of the last half, as a run that says nothing takes it."""
    assert USUAL_AVERAGE == USUAL_SHARE


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["--recommend"], "--dataset-size"),
        (["--recommend", "--dataset-size", 500, "--epsilon", 3], "--gradient-evaluations"),
        (["--recommend", "--dataset-size", 500, "--gradient-evaluations", 9], "--epsilon"),
        (["--recommend", *BUDGET, "--delta", 0.1], "1/500"),
        (["--recommend", *BUDGET, "--delta", "tiny"], "is no number"),
        (["--recommend", *BUDGET, "--gpus", 2], "drop it"),
        (["--recommend", *BUDGET, "--lora_rank", 2], "CONFIG"),
        (["--recommend", *BUDGET, "--plot", "a.gif"], ".png"),
        (["CONFIG", "--gradient-evaluations", 100], "--recommend"),
        (["CONFIG", "--plot", "a.png"], "--recommend"),
        (["CONFIG", "--recommend", "--epsilon", "-1"], "epsilon"),
        ([], "Missing argument 'CONFIG'"),
    ],
)
def test_mistakes_are_one_line_with_the_remedy(
    dpacc: Run, config: Path, words: list[object], remedy: str
) -> None:
    """Exit code 2, one line on stderr."""
    outcome = dpacc("plan", *(config if word == "CONFIG" else word for word in words))
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert remedy in outcome.err


def test_epsilon_and_delta_still_change_a_plain_plan() -> None:
    """Both are options now, and were settings that follow the configuration."""
    taken = {each for option in command.plan.params for each in option.opts}
    assert {"--epsilon", "--delta"} <= taken
