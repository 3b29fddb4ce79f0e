"""`dpacc merge-ledgers` states what several runs on the same data cost together."""

import json
from pathlib import Path

import pytest
from dpacc_accounting import Composed, Ledger, Repeated, epsilon

from tests.accounting.ledger.test_merging import PLAN, QUIET, STEP


@pytest.fixture
def ledgers(tmp_path: Path) -> list[Path]:
    """Two ledgers of different runs."""
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path, event in zip(paths, (STEP, QUIET), strict=True):
        with Ledger.open(path=path, plan=PLAN) as ledger:
            for step in range(30):
                ledger.charge(step=step, event=event)
    return paths


def test_json(dpacc, ledgers: list[Path]) -> None:
    """A script gets the total, each ledger's own ε, and the event that was priced."""
    found = json.loads(dpacc("merge-ledgers", *ledgers, "--json").out)
    every = Composed(events=(Repeated(event=STEP, times=30), Repeated(event=QUIET, times=30)))
    assert found["private"]
    assert found["epsilon"] == epsilon(event=every, delta=1e-5).epsilon
    assert [part["path"] for part in found["ledgers"]] == [str(path) for path in ledgers]
    assert found["event"]["event"] == "composed"


def test_table(dpacc, ledgers: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A person reads the parts, the total, and what adding would have claimed."""
    monkeypatch.chdir(ledgers[0].parent)
    names = [ledger.name for ledger in ledgers]
    words = " ".join(dpacc("merge-ledgers", *names, "--delta", "1e-3").out.split())
    for fact in ("a.jsonl", "b.jsonl", "ε alone", "at δ = 0.001", "sum of the parts"):
        assert fact in words


def test_a_void_run_voids_the_total(dpacc, ledgers: list[Path]) -> None:
    """No total is shown when one run is not private; the reason is, and what qualifies others."""
    with Ledger.open(path=ledgers[0], plan=PLAN) as ledger:
        ledger.note(subject="fixed-seed", text="seed 7")
    with Ledger.open(path=ledgers[1], plan=PLAN) as ledger:
        ledger.note(subject="whitening", text="whitened by news")
    shown = dpacc("merge-ledgers", *ledgers).out
    assert "b.jsonl: whitened by news" in " ".join(shown.split())
    assert "NOT private" in shown
    assert "void" in shown
    found = json.loads(dpacc("merge-ledgers", *ledgers, "--json").out)
    assert (found["private"], found["epsilon"]) == (False, None)


def test_what_cannot_be_merged(dpacc, ledgers: list[Path], tmp_path: Path) -> None:
    """Nothing, the same file twice, and a missing file are one line and code 2."""
    for words, message in [
        ([], "LEDGERS"),
        ([ledgers[0], ledgers[0]], "named twice"),
        ([tmp_path / "absent.jsonl"], "cannot read"),
        ([*ledgers, "--delta", "2"], "delta"),
    ]:
        outcome = dpacc("merge-ledgers", *words)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.count("\n") == 1
        assert message in outcome.err


def test_copies_of_a_run_are_told(dpacc, ledgers: list[Path], tmp_path: Path) -> None:
    """A copy adds nothing, one that went on adds its own steps, and the reader is told both."""
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(ledgers[0].read_bytes())
    alone = json.loads(dpacc("merge-ledgers", *ledgers, "--json").out)["epsilon"]
    found = json.loads(dpacc("merge-ledgers", *ledgers, copy, "--json").out)
    assert found["epsilon"] == alone
    with Ledger.open(path=copy, plan=PLAN) as ledger:
        ledger.charge(step=30, event=STEP)
    found = json.loads(dpacc("merge-ledgers", *ledgers, copy, "--json").out)
    assert found["epsilon"] > alone
    assert "1 only in" in found["remarks"][0]
    assert "30 common releases" in " ".join(dpacc("merge-ledgers", *ledgers, copy).out.split())
