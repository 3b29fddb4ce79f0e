"""`dpacc init`: a configuration from a file and three answers, and nothing of what it says."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from dpacc.cli.commands.init import init
from dpacc.planning.noise_over_signal import noise_over_signal
from dpacc.recipe.assembly import plan_for
from dpacc.recipe.config import load_config
from tests.cli.conftest import Run
from tests.tiny_models import CONFIGURATIONS

ROOT = Path(__file__).parents[2]
SECRET = "she came back in March"
SHORT = ("--expected_batch_size", 12, "--steps", 2, "--epsilon", 8)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny model and sixty notes of twenty patients, which is where one stands."""
    monkeypatch.chdir(tmp_path)
    CONFIGURATIONS["llama"].save_pretrained(tmp_path / "model")
    rows = ({"note": f"{SECRET} {i}", "patient": f"p{i % 20}", "age": i} for i in range(60))
    (tmp_path / "notes.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return tmp_path


def test_a_file_and_three_answers_make_a_run(dpacc: Run, place: Path) -> None:
    """What is written is read as what is shown; N counts patients; the line starts it."""
    given = ("--model", "model", "--unit_field", "patient", "--text_field", "note", *SHORT)
    outcome = dpacc("init", "notes.jsonl", *given, "--json")
    assert outcome.code == 0, outcome.err
    told = json.loads(outcome.out)
    config = load_config(arguments=["--config", told["configuration"]])
    written = {name: told["settings"][name] for name in ("text_field", "unit_field", "steps")}
    assert written == {"text_field": "note", "unit_field": "patient", "steps": 2}
    assert (config.text_field, config.unit_field, config.steps) == tuple(written.values())
    assert (told["rows"], told["dataset_size"]) == (60, 20)
    plan = plan_for(config=config, dataset_size=20)
    assert told["guarantee"] == plan.guarantee().to_json()
    width = json.loads(dpacc("plan", "notes.yaml", "--gpus", 0, "--json").out)
    assert told["noise_over_signal"] == width["noise_over_signal"]
    trainable = width["trainable_parameters"]
    assert told["noise_over_signal"] == noise_over_signal(plan=plan, trainable=trainable)
    words = shlex.split(told["launch"])
    assert words == ["dpacc", "train", "--launch", "cpu", "--config", "notes.yaml"]
    assert told["launch"] in (place / "notes.yaml").read_text()
    assert SECRET not in outcome.out + outcome.err + (place / "notes.yaml").read_text()


def test_what_only_a_person_knows_is_asked_or_refused(dpacc: Run, place: Path) -> None:
    """Without a terminal one line names it, and the field that may say whose; with one it asks."""
    outcome = dpacc("init", "notes.jsonl", "--epsilon", 8)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    for word in ("--model", "--unit_field", "patient may say whose"):
        assert word in outcome.err
    assert not (place / "notes.yaml").exists()


def test_a_terminal_is_asked(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer is what the option would have said."""
    monkeypatch.setattr("dpacc.cli.commands.init.on_a_terminal", lambda: True)
    words = ["notes.jsonl", "--text_field", "note", "--expected_batch_size", "12", "--steps", "2"]
    outcome = CliRunner().invoke(init, words, input="model\n4\nnull\n", catch_exceptions=False)
    assert outcome.exit_code == 0
    config = load_config(arguments=["--config", "notes.yaml"])
    assert (config.model, config.epsilon, config.unit_field) == ("model", 4.0, None)
    assert "patient may say whose" in " ".join(outcome.output.split())


def test_the_command_on_the_page_runs(dpacc: Run, place: Path) -> None:
    """As docs/plan.md has it, but for the model and a field that the notes here name otherwise."""
    (line,) = re.findall(r"\$ dpacc (init .*)", (ROOT / "docs/plan.md").read_text())
    words = ["model" if "/" in word else word for word in shlex.split(line)]
    outcome = dpacc(*words, "--text_field", "note", "--expected_batch_size", 12, "--steps", 2)
    assert outcome.code == 0, outcome.err
    assert "all records of one patient; N = 20" in (place / "notes.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model", "model", "--unit_field", "null", *SHORT), "note, patient could each be meant"),
        (("--model", "nowhere", "--unit_field", "null", "--text_field", "note", *SHORT), "nowhere"),
        (("--model", "model", "--unit_field", "who", "--text_field", "note", *SHORT), "'who'"),
        (("--modle", "model"), "did you mean model?"),
        (("--output", "no/such/folder.yaml"), "no folder"),
        (("--output", "notes.jsonl"), "there already"),
    ],
)
def test_what_is_wrong_leaves_nothing_behind(
    dpacc: Run, place: Path, words: tuple[str, ...], said: str
) -> None:
    """One line, code 2, no file, and nothing of the records."""
    outcome = dpacc("init", "notes.jsonl", *words)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1
    assert not list(place.glob("*.yaml"))
    assert SECRET not in outcome.err
