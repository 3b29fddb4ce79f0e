"""Whatever states ε of a run also says what voids or qualifies it."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dpacc_accounting import Gaussian, Guarantee, epsilon, read_ledger, statement
from dpacc_accounting.guarantee import Note

from dpacc.cli.promise import promise_rows
from dpacc.federated.history import ClientBooks, History, RoundReport
from dpacc.federated.said_notes import notes_in, said_of
from dpacc.pictures import draw_attack, draw_profile
from tests.cli.conftest import Run, dpacc  # noqa: F401
from tests.dpacc.test_drop_in import PlainRun
from tests.dpacc.test_private_trainer import private, trainer

ROOT = Path(__file__).parents[2]

_A_PLAN = "of a plan: nothing ran that could void it"
_BY_SOURCE = "asks `Source` or `claim_of`, and hands on all that it gets"
STATING = {
    "dpacc/agreement.py": "asks other accountants about a claim that is given",
    "dpacc/artifacts.py": "privacy.json, card and picture, checked below",
    "dpacc/audit/claims.py": _A_PLAN,
    "dpacc/cli/attack.py": "promise_rows of the ledger's claim, checked below",
    "dpacc/cli/compose.py": "checked below",
    "dpacc/cli/explain.py": "checked below",
    "dpacc/cli/merge.py": "checked below",
    "dpacc/cli/plan.py": _A_PLAN,
    "dpacc/cli/plot.py": "the notes stand in its JSON and beneath its picture, checked below",
    "dpacc/cli/sources.py": "claim_of",
    "dpacc/cli/spend.py": "checked below",
    "dpacc/cli/verify.py": _BY_SOURCE,
    "dpacc/doctor/stated.py": "compares with what the ledger gives, checked below",
    "dpacc/drop_in.py": "get_epsilon, checked below",
    "dpacc/earlier_runs.py": "says nothing where one of the runs is void",
    "dpacc/engine.py": "guarantee(), checked below",
    "dpacc/federated/history.py": "prices what clients said of themselves, checked below",
    "dpacc/federated/local_training.py": "guarantee() of its engine",
    "dpacc/federated/own_rank.py": "with the notes of its engine",
    "dpacc/plan.py": _A_PLAN,
    "dpacc/private_trainer.py": "logs, checked below",
    "dpacc/search.py": _A_PLAN,
    "recipes/audit.py": "the progress of a run that is thrown away",
    "recipes/federate.py": "the history's prices",
    "recipes/sweep.py": _A_PLAN,
    "recipes/train.py": "guarantee() and its figures",
}
"""Every file that prices a run or a plan, and how its ε comes with what voids or qualifies it."""

_PRICES = {
    "guarantee",
    "claim",
    "claim_of",
    "epsilon",
    "merge_ledgers",
    "price_federation",
    "statement",
    "what_holds",
}


def prices_something(path: Path) -> bool:
    calls = [
        node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
    ]
    names = {f.id if isinstance(f, ast.Name) else getattr(f, "attr", "") for f in calls}
    return bool(names & _PRICES)


def test_every_file_that_states_epsilon_is_known() -> None:
    """A new surface is listed above, with the way in which it tells what voids its ε."""
    files = [p for room in ("dpacc", "recipes") for p in sorted((ROOT / room).rglob("*.py"))]
    found = {str(path.relative_to(ROOT)) for path in files if prices_something(path)}
    assert found == set(STATING)


@dataclass(frozen=True)
class Noted:
    """A run whose ledger holds a note, its folder, and the note's text and subject."""

    run: PlainRun
    folder: Path
    text: str
    subject: str
    void: bool

    @property
    def guarantee(self) -> Guarantee:
        return self.run.engine.guarantee()


@pytest.fixture(scope="module", params=["void", "qualified"])
def noted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Noted:
    """A drop-in run of three steps, by a fixed seed or with losses that were logged."""
    folder, void = tmp_path_factory.mktemp("run"), request.param == "void"
    run = PlainRun(folder / "ledger.jsonl", lr=0.1, seed=3 if void else None)
    if not void:
        run.engine.note(subject="non-private-metrics", text="training losses were logged")
    run.train()
    run.engine.save_pretrained(folder)
    if void:
        return Noted(run, folder, "the fixed seed 3", "fixed-seed", void)
    return Noted(run, folder, "training losses were logged", "non-private-metrics", void)


FILES: dict[str, Callable[[Noted], str]] = {
    "str(engine.guarantee())": lambda noted: str(noted.guarantee),
    "engine.guarantee().to_json()": lambda noted: json.dumps(noted.guarantee.to_json()),
    "rows of a table": lambda noted: str(promise_rows(noted.guarantee)),
    "statement": lambda noted: _statement(noted),
    "privacy.json": lambda noted: (noted.folder / "privacy.json").read_text(),
    "model card": lambda noted: (noted.folder / "README.md").read_text(),
}
COMMANDS = [
    ("spend",),
    ("spend", "--json"),
    ("explain",),
    ("explain", "--json"),
    ("merge",),
    ("merge", "--json"),
    ("verify",),
    ("verify", "--json"),
]


def _statement(noted: Noted) -> str:
    record = read_ledger(path=noted.folder / "ledger.jsonl")
    return statement(plan=record.plan, record=record)


@pytest.mark.parametrize("surface", FILES)
def test_objects_and_files_carry_it(noted: Noted, surface: str) -> None:
    """What is printed, written or handed on names the fact, and a void run claims no ε."""
    said = FILES[surface](noted)
    assert noted.text in said
    if noted.void:
        assert "NOT private" in said or '"inf"' in said


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_carry_it(noted: Noted, dpacc: Run, words: tuple[str, ...]) -> None:  # noqa: F811
    """On stdout, for people and for machines; where nothing can be shown, in the refusal."""
    command, *options = words
    outcome = dpacc(command, noted.folder / "ledger.jsonl", *options)
    said = " ".join((outcome.out + outcome.err).replace("│", " ").split())
    assert noted.text in said
    assert (outcome.code != 0) == (noted.void and command == "verify")


def test_a_figure_carries_it(noted: Noted, dpacc: Run, tmp_path: Path) -> None:  # noqa: F811
    """Beneath the picture and in the command's JSON; a void run is not drawn at all."""
    bare = noted.folder / "ledger.jsonl"
    outcome = dpacc("plot", bare, "--out", tmp_path / "a.png", "--json")
    assert noted.text in outcome.out + outcome.err
    assert (tmp_path / "a.png").exists() is not noted.void


@pytest.mark.parametrize("draw", [draw_profile, draw_attack])
def test_a_picture_carries_it(draw: Callable[..., bytes]) -> None:
    """What qualifies ε stands beneath the axis."""
    bare = epsilon(event=Gaussian(noise_multiplier=1.0), delta=1e-5)
    said = bare.noted([Note("non-private-metrics", "training losses were logged")])
    assert draw(curve=[bare], stated=said) != draw(curve=[bare], stated=bare)


def test_get_epsilon_is_infinite_or_warns(noted: Noted) -> None:
    """A bare number can say no more: infinite where void, with a warning of what qualifies it."""
    with pytest.warns(UserWarning, match=noted.text):
        found = noted.run.engine.get_epsilon(1e-5)
    assert (found == float("inf")) is noted.void


def test_trackers_get_a_flag(noted: Noted) -> None:
    """Trackers take numbers alone: a 1 beside ε under the note's subject."""
    how = "void_because_of" if noted.void else "qualified_by"
    figures = noted.guarantee.figures()
    assert figures[f"epsilon_{how}_{noted.subject.replace('-', '_')}"] == 1.0
    assert (figures["epsilon"] == float("inf")) is noted.void


def test_a_trainers_logs_carry_it(tmp_path: Path) -> None:
    """Each line of the log, in memory and in every checkpoint's state."""
    run = trainer(
        tmp_path / "run",
        privacy=private(fixed_seed=None, log_non_private_metrics=True),
        save_strategy="epoch",
        num_train_epochs=1,
    )
    run.train()
    state = json.loads((tmp_path / "run/checkpoint-3/trainer_state.json").read_text())
    for history in (run.state.log_history, state["log_history"]):
        stating = [log for log in history if "epsilon" in log]
        assert stating
        assert all(log["epsilon_qualified_by_non_private_metrics"] == 1.0 for log in stating)


@pytest.mark.parametrize("subject", ["unsigned keys", "Whitening", "7 days", "ÿ", "x" * 60])
def test_no_flag_is_lost_for_how_a_note_is_called(subject: str) -> None:
    """A reply's names are of a fixed form; subjects are not."""
    spent = epsilon(event=Gaussian(noise_multiplier=1.0), delta=1e-5)
    void, qualified = notes_in(said_of(spent.noted([Note(subject, "a fact")])))
    assert (len(void), len(qualified)) == (0, 1)


def test_a_federation_carries_it(noted: Noted, dpacc: Run, tmp_path: Path) -> None:  # noqa: F811
    """From a client's reply to the history, its file, and what `dpacc compose` makes of it."""
    void, qualified = notes_in(said_of(noted.guarantee))
    books = ClientBooks(
        epsilon=noted.guarantee.epsilon,
        delta=1e-5,
        epsilon_budget=8.0,
        noise_multiplier=2.0,
        sampling_probability=0.1,
        steps_charged=3,
        steps_taken=3,
        void_because=void,
        qualified_by=qualified,
    )
    report = RoundReport(
        number=1,
        asked=("a",),
        survivors=("a",),
        failed={},
        filtered={},
        books={"a": books},
        quality={},
    )
    history = History(rounds=[report])
    kept = json.dumps(history.to_json(), allow_nan=False)
    assert History.from_json(json.loads(kept)).rounds == history.rounds
    assert noted.subject in kept
    price = history.guarantee().prices[0]
    assert (price.server.epsilon == price.released.epsilon == float("inf")) is noted.void
    (tmp_path / "rounds.json").write_text(json.dumps(history.federation()))
    for options in ((), ("--json",)):
        assert noted.subject in dpacc("compose", tmp_path / "rounds.json", *options).out


def test_the_doctor_tells_it(noted: Noted) -> None:
    """A void run is unhealthy; what qualifies a run is told."""
    from dpacc.doctor.run_folder import ledger_findings

    findings: dict[str, Any] = {f.subject: f for f in ledger_findings(folder=noted.folder)}
    told = findings["secret" if noted.void else "qualified"]
    assert noted.text in told.words
    assert told.healthy is not noted.void
    for subject in ("proof", "card", "origin"):
        assert findings[subject].healthy, findings[subject].words
