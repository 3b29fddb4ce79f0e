"""What the first page says, and in how large letters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from dpacc_accounting import Adjacency, epsilon
from dpacc_accounting.guarantee import Guarantee, rounded_up

from dpacc.cli.report.agreement import Agreement, Comparison, Opinion
from dpacc.cli.report.audits import read_audit
from dpacc.cli.report.gathered import RunFacts, gather
from dpacc.cli.report.words import first_page, odds, verdict_of
from tests.cli.report.folders import (
    FIXED_SEED,
    LOGGED,
    PLAN,
    audit_file,
    finished_run,
    nobody_asked,
    state,
)


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody_asked(monkeypatch)


def said(facts: RunFacts) -> str:
    return " ".join(
        f"{about} {words}" for about, words in first_page(facts, verdict_of(facts)).points
    )


def test_a_promise_comes_with_all_that_it_assumes(facts: RunFacts) -> None:
    """ε, δ, unit, neighbours, sampling, method and slack stand in the verdict itself."""
    found = verdict_of(facts)
    assert found.standing == "holds"
    for word in (rounded_up(facts.claim.epsilon), "1e-05", "one example"):
        assert word in found.headline
    for word in ("add-or-remove", "Poisson", "PLD", "slack at most"):
        assert word in found.conditions


def test_the_first_page_is_in_plain_words(facts: RunFacts) -> None:
    """What, from whom, how strongly, what not; what attackers may find is rounded up."""
    words = said(facts)
    for asked in ("What was to be protected", "From whom", "How strongly", "What is not"):
        assert asked in words
    assert facts.spoken_of is not None
    assert rounded_up(100 * facts.spoken_of.true_positives, digits=3) in words


def test_a_void_run_is_not_private_in_the_headline(tmp_path: Path) -> None:
    """No ε is spoken of, nobody is kept out, and the reason is there."""
    facts = gather(ledger=finished_run(tmp_path / "void", notes=[FIXED_SEED]) / "ledger.jsonl")
    found = verdict_of(facts)
    assert found.standing == "broken"
    assert "NOT private" in found.headline
    assert found.reasons == (FIXED_SEED[1],)
    assert "ε =" not in said(facts) + found.headline
    assert "Nobody" in said(facts)


def test_what_qualifies_epsilon_stands_beside_it(tmp_path: Path) -> None:
    """A logged loss is in the verdict, not in an appendix."""
    facts = gather(ledger=finished_run(tmp_path / "run", notes=[LOGGED]) / "ledger.jsonl")
    found = verdict_of(facts)
    assert (found.standing, found.reasons) == ("qualified", (LOGGED[1],))


@pytest.mark.parametrize("file", ["privacy.json", "README.md", "adapter_config.json"])
def test_a_folder_that_contradicts_its_ledger_is_broken(tmp_path: Path, file: str) -> None:
    """Another ε in the proof, another statement in the card, another adapter."""
    folder = finished_run(tmp_path / "run")
    path = folder / file
    path.write_text(
        path.read_text().replace('"epsilon": ', '"epsilon": 0.').replace("(ε = ", "(ε = 0.") + " "
    )
    facts = gather(ledger=folder / "ledger.jsonl")
    found = verdict_of(facts)
    assert (found.standing, len(found.reasons)) == ("broken", 1)
    assert "NOT established" in said(facts)


def test_an_accountant_that_disagrees_breaks_the_promise(facts: RunFacts) -> None:
    """And is named with what it says."""
    claim = Opinion(accountant="ours", low=1.0, high=1.1)
    other = Opinion(accountant="theirs", low=2.0, high=2.1)
    apart = Agreement(comparisons=(Comparison(claim=claim, other=other),), silences=())
    found = verdict_of(replace(facts, agreement=apart))
    assert found.standing == "broken"
    assert "theirs disagrees" in found.reasons[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"refuted": True},
        {"epsilon_at_least": 7.0},
        {"epsilon_at_least": 7.0, "claim": {"epsilon": 8.0, "delta": 1e-3}},
    ],
)
def test_an_audit_that_refutes_breaks_the_promise(
    facts: RunFacts, tmp_path: Path, changes: dict[str, object]
) -> None:
    """Whether it says so itself, or proved more than is claimed here, at no smaller δ."""
    audit = read_audit(path=audit_file(tmp_path / "audit.json", **changes))
    found = verdict_of(facts, [audit])
    assert found.standing == "broken"
    assert "REFUTES" in found.reasons[0]


def test_an_audit_at_a_smaller_delta_proves_nothing_here(facts: RunFacts, tmp_path: Path) -> None:
    """ε grows as δ shrinks, so its bound may be right beside the claim."""
    claim = {"epsilon": 8.0, "delta": 1e-9}
    path = audit_file(tmp_path / "audit.json", epsilon_at_least=7.0, claim=claim)
    assert verdict_of(facts, [read_audit(path=path)]).standing == "holds"


def test_a_weak_promise_is_called_weak(tmp_path: Path) -> None:
    """So is one that spent more than its budget, and a δ of one in N."""
    loud = replace(PLAN, noise_multiplier=0.5, expected_batch_size=900, target_epsilon=2.0)
    folder = finished_run(tmp_path / "run", plan=loud)
    found = verdict_of(gather(ledger=folder / "ledger.jsonl", delta=1e-3))
    assert found.standing == "qualified"
    budget, weak, delta = found.reasons
    assert "budget of 2" in budget
    assert "weak" in weak
    assert "1 in 1000" in delta


def test_a_run_that_stopped_may_go_on(tmp_path: Path) -> None:
    """Its ε is that of the steps that were charged, and is said to grow."""
    ledger = finished_run(tmp_path / "run", quality=None) / "ledger.jsonl"
    ledger.write_text("".join(ledger.read_text().splitlines(keepends=True)[:4]))
    state(ledger.parent)
    (ledger.parent / "adapter_config.json").unlink()
    facts = gather(ledger=ledger)
    assert facts.claim.epsilon == epsilon(event=PLAN.event(steps=3), delta=1e-5).epsilon
    found = verdict_of(facts)
    assert found.standing == "qualified"
    assert "3 of 6 planned steps" in found.reasons[0]


def test_odds_are_never_rounded_down() -> None:
    """e^ε in three digits, upwards, without an exponent; beyond a million it is not spelled."""

    def of(value: float) -> str:
        return odds(
            Guarantee(
                epsilon=value,
                delta=1e-5,
                adjacency=Adjacency.ADD_OR_REMOVE,
                unit="example",
                method="pld",
                slack=0.0,
            )
        )

    assert "2,990 times" in of(8.0)
    assert "1.65 times" in of(0.5)
    assert "beyond a million" in of(20.0)
