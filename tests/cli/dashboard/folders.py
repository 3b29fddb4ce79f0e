"""What a dashboard is pointed at: runs of every state, a federation and a budget, untrained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import yaml
from dpacc_accounting import Budget, Ledger, create_budget
from dpacc_accounting.guarantee import Note, rounded_up
from dpacc_accounting.ledger.writer import Ledger as OpenLedger

from dpacc.artifacts.kept.metrics import METRICS_FILE, as_row
from dpacc.artifacts.progress_chart import Measurement
from dpacc.federated.monitoring.course import Course, Point
from dpacc.federated.server.history import ClientBooks, History, RoundReport
from tests.cli.conftest import Run
from tests.cli.report.folders import FIXED_SEED, LOGGED, PLAN, finished_run

BUDGETED = replace(PLAN, target_epsilon=4.0)
CLIENTS = ("films", "books")


def going_on(folder: Path, *, steps: int = 3, measured: int | None = None) -> OpenLedger:
    """A run that has charged some of its steps and holds its ledger; whoever calls closes it.

    Args:
        folder: of the run.
        steps: how many are charged.
        measured: how many `metrics.jsonl` tells of; all when left out.
    """
    folder.mkdir()
    book = Ledger.open(path=folder / "ledger.jsonl", plan=BUDGETED.to_json())
    rows = []
    for step in range(steps):
        book.charge(step=step, event=BUDGETED.charge(step))
        spent = BUDGETED.guarantee(steps=step + 1).epsilon
        rows.append(Measurement(step=step + 1, epsilon=spent, quality=90.0 - step))
    told = rows if measured is None else rows[:measured]
    lines = "".join(json.dumps(as_row(each)) + "\n" for each in told)
    (folder / METRICS_FILE).write_text(lines)
    return book


def runs_of_all_kinds(folder: Path) -> Path:
    """A finished run, one that is not private, one whose last line is torn, and a damaged one."""
    folder.mkdir()
    finished_run(folder / "fine", plan=BUDGETED)
    finished_run(folder / "void", plan=BUDGETED, notes=[FIXED_SEED, LOGGED])
    going_on(folder / "torn").close()
    with (folder / "torn/ledger.jsonl").open("ab") as file:
        file.write(b'{"event":{"event":"poisson-sam')
    finished_run(folder / "damaged", plan=BUDGETED)
    ledger = folder / "damaged/ledger.jsonl"
    ledger.write_text(ledger.read_text().replace('"step":1', '"step":9'))
    return folder


def federation(
    folder: Path, *, rounds: int = 3, state: bool = False, own: Mapping[str, int] | None = None
) -> Path:
    """A federation's folder, while it goes on or after its end.

    Args:
        folder: its own.
        rounds: how many are over.
        state: whether it goes on: a server's state, and no history yet.
        own: of clients whose ledgers lie in it, how many steps each holds.
    """
    folder.mkdir()
    history = History(start_quality={"films": 0.5, "books": 0.55})
    for number in range(1, rounds + 1):
        history.rounds.append(
            RoundReport(
                number=number,
                asked=(*CLIENTS, "late"),
                survivors=CLIENTS,
                failed={"late": "it did not answer"},
                filtered={"books": "too far from the others"} if number == 2 else {},
                books={name: _books(name, number) for name in CLIENTS},
                quality={"films": 0.5 + 0.1 * number, "books": 0.55 + 0.05 * number},
            )
        )
    if state:
        (folder / "server").mkdir()
        told = {"run": "1", "history": history.to_json(), "adapter": "a", "sha256": "0"}
        (folder / "server/state.json").write_text(json.dumps(told))
    else:
        (folder / "history.json").write_text(json.dumps(history.to_json()))
        (folder / "rounds.yaml").write_text(yaml.safe_dump(history.federation()))
    for name, steps in (own or {}).items():
        (folder / name).mkdir()
        with Ledger.open(path=folder / name / "ledger.jsonl", plan=PLAN.to_json()) as book:
            for step in range(steps):
                book.charge(step=step, event=PLAN.charge(step))
    return folder


def course(path: Path, *, notes: Sequence[Note] = (), flattered: float = 1.0) -> Path:
    """What a monitor saved of a run like `going_on`, perhaps with less ε than was spent."""
    stated = [BUDGETED.guarantee(steps=step) for step in (1, 2, 3)]
    points = [Point(step=0, guarantee=None, metrics={"accuracy": 0.5, "perplexity": 90.0})]
    for step, each in enumerate(stated, start=1):
        told = replace(each, epsilon=each.epsilon * flattered).noted(notes)
        points.append(Point(step=step, guarantee=told, metrics={"accuracy": 0.5 + step / 10}))
    Course(name="a monitor", points=points).save(path)
    return path


def spent(dpacc: Run, folder: Path) -> str:
    """ε as `dpacc spend` states it."""
    return rounded_up(json.loads(dpacc("spend", folder, "--json").out)["epsilon"], digits=6)


def _books(name: str, number: int) -> ClientBooks:
    steps = 2 if name == "films" else 1
    plan = replace(PLAN, steps=steps * number)
    return ClientBooks(
        epsilon=plan.guarantee().epsilon,
        delta=1e-5,
        epsilon_budget=4.0,
        noise_multiplier=1.0,
        sampling_probability=0.05,
        steps_charged=steps * number,
        steps_taken=steps,
    )


def budget(folder: Path, *, total: float = 4.0) -> Path:
    """A data set's budget, of which one run has spent its part and another has reserved its own."""
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"text": "Ann has the flu"}\n')
    path = folder / "notes.budget.jsonl"
    create_budget(path=path, name="notes", epsilon=total, delta=1e-5, data=folder / "train.jsonl")
    for name, spent in (("first", 6), ("second", 1)):
        where = folder / name / "ledger.jsonl"
        where.parent.mkdir()
        asked = Budget(path=path).open_ledger(path=where, plan=PLAN.to_json(), planned=PLAN.event())
        with asked as book:
            for step in range(spent):
                book.charge(step=step, event=PLAN.charge(step))
        if name == "first":
            Budget(path=path).commit(ledgers=[where])
    return path
