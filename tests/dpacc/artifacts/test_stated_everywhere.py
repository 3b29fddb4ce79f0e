"""Whatever states ε of a run also says what voids or qualifies it."""

from __future__ import annotations

import ast
import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dpacc_accounting import (
    FederatedGuarantee,
    Gaussian,
    Guarantee,
    epsilon,
    price_federation,
    read_federation,
    read_ledger,
    statement,
)
from dpacc_accounting.guarantee import Note, stated_notes
from matplotlib.axes import Axes

from dpacc.artifacts.pictures import draw_attack, draw_federation, draw_profile, draw_spending
from dpacc.artifacts.progress_chart import Measurement, draw_progress
from dpacc.audit.claims import Claim
from dpacc.audit.picture import draw_audit
from dpacc.audit.verdict import judge
from dpacc.cli.guarantee_table import guarantee_rows
from dpacc.cli.terminal import TrainingProgress
from dpacc.federated.server.history import ClientBooks, History, RoundReport
from dpacc.federated.server.utility_chart import ClientUtility, draw_utility
from dpacc.federated.updates.said_notes import notes_in, said_of
from tests.cli.conftest import Run, dpacc  # noqa: F401
from tests.dpacc.loops.test_drop_in import PlainRun
from tests.dpacc.trainer.test_private_trainer import private, trainer

ROOT = Path(__file__).parents[3]

_A_PLAN = "of a plan: nothing ran that could void it"
_BY_SOURCE = "asks `Source` or `claim_of`, and hands on all that it gets"
STATING = {
    "dpacc/cli/report/several.py": "the notes of every ledger beside the total, as its tests show",
    "dpacc/cli/report/federation.py": "the prices' notes in its verdict, as its tests show",
    "dpacc/cli/report/gathered.py": "claim_of, whose notes tests/cli/report look for",
    "dpacc/cli/report/agreement.py": "asks other accountants about a claim that is given",
    "dpacc/artifacts/proof.py": "privacy.json, checked below",
    "dpacc/artifacts/run_folder.py": "card and picture, checked below",
    "dpacc/artifacts/synthetic/card.py": "claim_of, as tests/recipes/test_synthesize.py shows",
    "dpacc/audit/claims.py": _A_PLAN,
    "dpacc/cli/dashboard/one_federation.py": "the prices' notes in its verdict",
    "dpacc/cli/dashboard/one_run.py": "the claim of `prices`, whose notes its tests look for",
    "dpacc/cli/dashboard/prices.py": "claim_of",
    "dpacc/cli/commands/attack.py": "guarantee_rows of the ledger's claim, checked below",
    "dpacc/cli/commands/compose.py": "checked below",
    "dpacc/cli/commands/explain.py": "checked below",
    "dpacc/cli/commands/init.py": _A_PLAN,
    "dpacc/cli/commands/merge_ledgers.py": "checked below",
    "dpacc/cli/commands/plan.py": _A_PLAN,
    "dpacc/cli/commands/plot.py": "notes in its JSON and beneath its picture, checked below",
    "dpacc/cli/sources.py": "claim_of",
    "dpacc/cli/commands/spend.py": "checked below",
    "dpacc/cli/commands/verify.py": _BY_SOURCE,
    "dpacc/doctor/stated.py": "compares with what the ledger gives, checked below",
    "dpacc/loops/drop_in.py": "get_epsilon, checked below",
    "dpacc/artifacts/earlier_runs.py": "with the notes of every ledger, as its tests show",
    "dpacc/step/engine.py": "guarantee(), checked below",
    "dpacc/federated/benchmark/training.py": "to_json of the prices' notes, which its report shows",
    "dpacc/federated/monitoring/utility_monitor.py": "notes in every point, as its tests show",
    "dpacc/federated/server/adapter_card.py": "the history's prices, with all of their notes",
    "dpacc/federated/server/history.py": "prices what clients said of themselves, checked below",
    "dpacc/federated/fronts/accountant.py": "events counted in memory: nothing ran that could void",
    "dpacc/federated/trials/one_trial.py": "the history's prices, whole, as its tests show",
    "dpacc/federated/clients/earlier_phases.py": "adds what earlier phases cost, and their notes",
    "dpacc/federated/deployment/round_figures.py": "the history's dearest price with its notes",
    "dpacc/federated/clients/local_training.py": "guarantee() of its engine",
    "dpacc/federated/clients/rank_at_client.py": "with the notes of its engine",
    "dpacc/plan/privacy_plan.py": _A_PLAN,
    "dpacc/trainer/private_trainer.py": "logs, checked below",
    "dpacc/search/private_search.py": _A_PLAN,
    "recipes/audit.py": "the progress of a run that is thrown away",
    "recipes/count_labels.py": "guarantee_rows of the claim of its own ledger",
    "recipes/federate.py": "the history's prices, checked below",
    "recipes/healthcare.py": "the history's prices, shown and drawn as recipes/federate.py does",
    "recipes/sweep.py": "all of a plan's guarantee; a search's with its ledger's notes",
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
    "rows of a table": lambda noted: str(guarantee_rows(noted.guarantee)),
    "statement": lambda noted: _statement(noted),
    "privacy.json": lambda noted: (noted.folder / "privacy.json").read_text(),
    "model card": lambda noted: (noted.folder / "README.md").read_text(),
}
COMMANDS = [
    ("spend",),
    ("spend", "--json"),
    ("explain",),
    ("explain", "--json"),
    ("merge-ledgers",),
    ("merge-ledgers", "--json"),
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


VOID = Note("fixed-seed", "the noise came from seed 7")
LOGGED = Note("non-private-metrics", "training losses were logged")
ONCE = epsilon(event=Gaussian(noise_multiplier=1.0), delta=1e-5, unit="patient")
CLIENT = {"name": "north", "rounds": 1, "sampling_probability": 0.1, "noise_multiplier": 1.0}


def _rounds(said: Guarantee, *, clients: int = 1) -> FederatedGuarantee:
    """A federation of clients with the notes of `said`."""
    notes = stated_notes(said.notes)
    several = [CLIENT | {"name": f"client {n}"} | notes for n in range(clients)]
    document = {"level": "example", "delta": 1e-5, "unit": "patient", "clients": several}
    return price_federation(federation=read_federation(document=document))


def _utility(said: Guarantee) -> bytes:
    report = RoundReport(
        number=1, asked=(), survivors=(), failed={}, filtered={}, books={}, quality={"all": 0.7}
    )
    return draw_utility(
        history=History(rounds=[report], start_quality={"all": 0.5}),
        guarantee=_rounds(said),
        clients=[ClientUtility(name="north", epsilon=said.epsilon, alone=0.6, federated=0.7)],
        pooled={"all": 0.8},
    )


def _audited(said: Guarantee) -> bytes:
    claim = Claim.of_event(event=Gaussian(noise_multiplier=1.0), delta=1e-5, unit="patient")
    coins = np.arange(40) % 2 == 0
    found = judge(included=coins, scores=coins.astype(float), claim=claim)
    return draw_audit(audit=replace(found, notes=said.notes))


FIGURES: dict[str, Callable[[Guarantee], bytes]] = {
    "profile": lambda said: draw_profile(curve=[ONCE], stated=said),
    "attack": lambda said: draw_attack(curve=[ONCE], stated=said),
    "spending": lambda said: draw_spending(
        steps=[0, 1], epsilons=[0.0, 1.0], budget=None, guarantee=said
    ),
    "progress": lambda said: draw_progress(
        measurements=[Measurement(step=1, epsilon=1.0)], target_epsilon=2, title="", guarantee=said
    ),
    "bars of a federation": lambda said: draw_federation(found=_rounds(said)),
    "a large federation": lambda said: draw_federation(found=_rounds(said, clients=40)),
    "utility of a federation": _utility,
    "audit": _audited,
}


@pytest.mark.parametrize(
    ("figure", "note"),
    [(each, LOGGED) for each in FIGURES]
    + [(each, VOID) for each in FIGURES if each not in ("profile", "attack")],  # have no curve
    ids=lambda value: value if isinstance(value, str) else value.subject,
)
def test_a_figure_says_of_what_its_epsilon_is(
    figure: str, note: Note, monkeypatch: pytest.MonkeyPatch
) -> None:
    """δ, neighbours and unit at its axes, and beneath them what voids or qualifies ε."""
    labels: list[str] = []
    for name in ("set_xlabel", "set_ylabel"):
        drawn = getattr(Axes, name)

        def remember(self: Axes, label: str, *more: Any, _drawn: Any = drawn, **how: Any) -> Any:
            labels.append(label)
            return _drawn(self, label, *more, **how)

        monkeypatch.setattr(Axes, name, remember)
    assert FIGURES[figure](ONCE.noted([note])).startswith(b"\x89PNG")
    words = " ".join(" ".join(labels).split())
    assert note.text in words
    assert ("NOT private: " if note.voids else "ε is qualified: ") in words
    assert "patient" in words
    assert figure == "attack" or "add-or-remove" in words
    assert figure in ("attack", "profile") or "1e-05" in words


@pytest.mark.parametrize("note", [VOID, LOGGED], ids=["void", "qualified"])
def test_lines_of_progress_carry_it(note: Note, capsys: pytest.CaptureFixture[str]) -> None:
    """In full before the first line that states ε, and as a word on each."""
    progress = TrainingProgress(steps=2, epsilon_budget=8.0, expected_batch_size=2, visible=True)
    with progress:
        for _ in range(2):
            progress.advance(guarantee=ONCE.noted([note]))
    told, first, second = capsys.readouterr().err.splitlines()
    assert told.endswith(note.text)
    for line in (first, second):
        assert ("NOT private" if note.voids else "ε 4.38 of 8, qualified") in line
        assert ("ε" in line) is not note.voids


@pytest.mark.parametrize("note", [VOID, LOGGED], ids=["void", "qualified"])
def test_the_federations_recipe_carries_it(
    note: Note, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each round's line has a word for it, and the end the fact and the clients it is said of."""
    monkeypatch.setenv("COLUMNS", "200")
    recipe = importlib.import_module("recipes.federate")
    books = ClientBooks(
        epsilon=1.5,
        delta=1e-5,
        epsilon_budget=8.0,
        noise_multiplier=2.0,
        sampling_probability=0.1,
        steps_charged=3,
        steps_taken=3,
        **{name: tuple(texts) for name, texts in stated_notes([note]).items()},
    )
    assert recipe.spent(books) == ("NOT private" if note.voids else "1.5, qualified")
    recipe.show_result(_rounds(ONCE.noted([note])), Path("run"), seconds=1.0)
    shown = " ".join(capsys.readouterr().out.split())
    assert f"client 0: {note.text}" in shown


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
