"""`dpacc plot` draws a ledger or a plan, and gives the points to whoever draws for themselves."""

import json
from pathlib import Path

import pytest
from dpacc_accounting import Ledger, Repeated, epsilon

from tests.accounting.ledger.test_merging import PLAN, STEP


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A ledger of 30 steps."""
    with Ledger.open(path=tmp_path / "ledger.jsonl", plan=PLAN) as book:
        for step in range(30):
            book.charge(step=step, event=STEP)
    return tmp_path / "ledger.jsonl"


@pytest.mark.parametrize("kind", ["spending", "profile", "attack"])
def test_every_kind_is_a_picture(dpacc, ledger: Path, tmp_path: Path, kind: str) -> None:
    """Each kind writes a PNG, and says where on stderr."""
    picture = tmp_path / "out.png"
    outcome = dpacc("plot", ledger, "--kind", kind, "--out", picture)
    assert (outcome.code, outcome.out) == (0, "")
    assert str(picture) in outcome.err
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_spending_ends_at_what_was_spent(dpacc, ledger: Path, tmp_path: Path) -> None:
    """The curve starts at nothing, rises, and ends at the ledger's ε."""
    found = json.loads(dpacc("plot", ledger, "--out", tmp_path / "a.png", "--json").out)
    points = found["points"]
    spent = [point["epsilon"] for point in points]
    assert points[0] == {"steps": 0, "epsilon": 0.0}
    assert spent == sorted(spent)
    assert points[-1] == {
        "steps": 30,
        "epsilon": epsilon(event=Repeated(event=STEP, times=30), delta=1e-5).epsilon,
    }


def test_the_profile_passes_through_what_is_stated(dpacc, tmp_path: Path) -> None:
    """δ falls as ε grows, from above the plan's δ to below it."""
    (tmp_path / "plan.json").write_text(json.dumps(PLAN))
    words = ["plot", tmp_path / "plan.json", "--kind", "profile", "--out", tmp_path / "a.png"]
    points = json.loads(dpacc(*words, "--json").out)["points"]
    deltas = [point["delta"] for point in points]
    assert deltas == sorted(deltas, reverse=True)
    assert deltas[0] > 1e-5 > deltas[-1]


def test_what_cannot_be_drawn(dpacc, ledger: Path, tmp_path: Path) -> None:
    """An unknown kind, no file to write to, and no folder for it are one line and code 2."""
    for words, message in [
        ([ledger], "--out"),
        ([ledger, "--out", tmp_path / "a.png", "--kind", "pie"], "pie"),
        ([ledger, "--out", tmp_path / "nowhere" / "a.png"], "there is no folder"),
        ([tmp_path / "absent.yaml", "--out", tmp_path / "a.png"], "No such file"),
    ]:
        outcome = dpacc("plot", *words)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.count("\n") == 1
        assert message in outcome.err
