"""The list of runs: what is recorded at first, the ledger's word as soon as it is priced."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from dpacc_accounting import read_ledger
from dpacc_accounting.ledger.claims import claim_of

from dpacc.cli.dashboard import prices
from dpacc.cli.dashboard.listed_runs import ListedRun, RunList
from dpacc.cli.dashboard.places import Place, find_places
from dpacc.cli.dashboard.run_table import cells, in_order
from tests.cli.dashboard.folders import BUDGETED, going_on, runs_of_all_kinds
from tests.cli.report.folders import FIXED_SEED, finished_run


def listed(folder: Path, *, seconds: float = math.inf) -> dict[str, ListedRun]:
    places = find_places(paths=[folder]).runs
    return {each.name: each for each in RunList().listed(places=places, seconds=seconds)}


def test_epsilon_is_what_the_ledger_costs(tmp_path: Path) -> None:
    """Of every run, with all that is assumed; of none that is void or damaged."""
    found = listed(runs_of_all_kinds(tmp_path / "runs"))
    for name in ("fine", "torn"):
        record = read_ledger(path=tmp_path / "runs" / name / "ledger.jsonl")
        assert found[name].claim == claim_of(plan=record.plan, record=record)
        assert found[name].priced
    assert found["fine"].left == 4.0 - BUDGETED.guarantee().epsilon
    assert found["torn"].torn
    assert found["void"].void == [FIXED_SEED[1]]
    assert found["void"].left == 0.0
    assert (found["damaged"].claim, found["damaged"].state) == (None, "damaged")
    assert "line 3" in found["damaged"].problem
    assert in_order([*found.values()], "ε spent, most first")[0].name == "void"


def test_at_first_sight_nothing_is_priced_and_nothing_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ε is what the run recorded, and says so; a fixed seed is told before anything is priced."""
    monkeypatch.setattr(prices, "epsilon", lambda **_: pytest.fail("priced"))
    found = listed(runs_of_all_kinds(tmp_path / "runs"), seconds=0)
    fine = found["fine"]
    proof = json.loads((tmp_path / "runs/fine/privacy.json").read_text())["guarantee"]
    assert fine.claim is not None
    assert (fine.claim.epsilon, fine.priced) == (proof["epsilon"], False)
    assert "as the run recorded" in " ".join(cells(fine))
    assert found["void"].void == [FIXED_SEED[1]]
    assert "NOT private" in " ".join(cells(found["void"]))
    assert found["void"].claim is not None
    assert found["void"].claim.qualified_by == ("training losses were logged",)


def test_a_record_that_lags_behind_is_not_believed(tmp_path: Path) -> None:
    """The ledger is ahead of metrics.jsonl, or of privacy.json: no ε until it is priced."""
    going_on(tmp_path / "ahead", steps=3, measured=2).close()
    going_on(tmp_path / "level", steps=3).close()
    whole = finished_run(tmp_path / "longer", plan=BUDGETED) / "ledger.jsonl"
    lines = whole.read_bytes().splitlines(keepends=True)
    early = json.loads((whole.parent / "privacy.json").read_text())
    early["ledger"]["head"] = json.loads(lines[2])["hash"]
    (whole.parent / "privacy.json").write_text(json.dumps(early))
    found = listed(tmp_path, seconds=0)
    assert found["ahead"].claim is None
    assert found["longer"].claim is None
    assert "not priced yet" in cells(found["ahead"])
    level = found["level"].claim
    assert level is not None
    assert level.epsilon == BUDGETED.guarantee(steps=3).epsilon
    assert listed(tmp_path)["ahead"].claim == BUDGETED.guarantee(steps=3)


def test_a_record_of_less_than_the_ledger_is_contradicted(tmp_path: Path) -> None:
    """Whoever makes privacy.json say less is found out as soon as the ledger is priced."""
    folder = finished_run(tmp_path / "run", plan=BUDGETED)
    proof = json.loads((folder / "privacy.json").read_text())
    proof["guarantee"]["epsilon"] /= 2
    (folder / "privacy.json").write_text(json.dumps(proof))
    found = listed(tmp_path)["run"]
    assert found.claim is not None
    assert found.claim.epsilon == BUDGETED.guarantee().epsilon
    assert "less than its ledger" in found.problem


def test_a_run_that_goes_on_is_read_again(tmp_path: Path) -> None:
    """Its lock says that it runs; each new line is seen, and what stands is not priced twice."""
    book = going_on(tmp_path / "run")
    place = Place(name="run", path=tmp_path / "run/ledger.jsonl")
    runs = RunList()
    first = runs.one(place)
    assert first.state == ("running" if Path("/proc/locks").exists() else "unfinished")
    assert first.steps == 3
    assert runs.price(place.path) is runs.price(place.path)
    book.charge(step=3, event=BUDGETED.charge(3))
    again = runs.one(place)
    assert again.steps == 4
    assert again.claim == BUDGETED.guarantee(steps=4)
    assert again.quality is not None
    assert again.quality.step == 3
    book.close()
    assert runs.one(place).state in ("stopped", "unfinished")


def test_it_is_json(tmp_path: Path) -> None:
    """Strict: an infinite ε is a word, and no ε is null."""
    found = listed(runs_of_all_kinds(tmp_path / "runs"))
    said = {n: json.loads(json.dumps(r.to_json(), allow_nan=False)) for n, r in found.items()}
    assert said["void"]["epsilon"] == "inf"
    assert said["damaged"]["epsilon"] is None
    assert {"delta", "adjacency", "unit", "method", "sampling"} <= said["fine"].keys()
