"""`dpacc verify` asks accountants that share no code with ours, and fails when one contradicts."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from dpacc_accounting import (
    AdaptivelyClipped,
    Adjacency,
    Composed,
    DiscreteGaussian,
    Gaussian,
    Laplace,
    Ledger,
    Mixture,
    PoissonSampled,
    RandomlyAllocated,
    Repeated,
    Selected,
    SeparatedParticipation,
    TruncatedPoissonSampled,
    epsilon,
)

from dpacc.cli.report import agreement
from dpacc.cli.report.agreement import compare
from tests.accounting.ledger.test_merging import PLAN, STEP

EVENT = Composed(
    events=(
        Repeated(event=STEP, times=40),
        Gaussian(noise_multiplier=5.0),
        PoissonSampled(probability=0.0, event=Gaussian(noise_multiplier=1.0)),
    )
)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A ledger of 40 steps."""
    with Ledger.open(path=tmp_path / "ledger.jsonl", plan=PLAN) as book:
        for step in range(40):
            book.charge(step=step, event=STEP)
    return tmp_path / "ledger.jsonl"


@pytest.mark.parametrize("adjacency", list(Adjacency))
def test_all_accountants_agree(adjacency: Adjacency) -> None:
    """The intervals overlap, Rényi is looser, and dp-accounting's PLD is within half a percent."""
    claim = epsilon(event=EVENT, delta=1e-5, adjacency=adjacency)
    agreement = compare(event=EVENT, claim=claim)
    found = {each.other.accountant.split(",")[0]: each for each in agreement.comparisons}
    assert agreement.holds
    assert agreement.silences == ()
    assert found["dpacc RDP"].ratio < 1
    assert 0.995 < found["dp-accounting PLD"].ratio < 1.002
    # Its Rényi accountant under-reports under replace-one, so it is not asked there.
    assert ("dp-accounting RDP" in found) == (adjacency is not Adjacency.REPLACE_ONE)


@pytest.mark.parametrize(("q", "times"), [(1.0, 5), (0.01, 100)])
def test_dp_accounting_is_asked_about_integers(q: float, times: int) -> None:
    """A discrete Gaussian at low noise, sampled or not, is priced alike by dp-accounting.

    A claim of ε 1.0 is contradicted.
    """
    once = DiscreteGaussian(sigma=1, sensitivity=8)
    event = Repeated(
        event=PoissonSampled(probability=q, event=once) if q < 1 else once, times=times
    )
    claim = epsilon(event=event, delta=1e-5)
    found = compare(event=event, claim=claim)
    (other,) = (c for c in found.comparisons if c.other.accountant.startswith("dp-accounting PLD"))
    assert found.holds
    assert 0.999 < other.ratio < 1.001
    assert not replace(other, claim=replace(other.claim, low=1.0, high=1.0)).agrees


@pytest.mark.parametrize("factor", [0.9, 1.3])
def test_a_wrong_claim_is_contradicted(factor: float) -> None:
    """A claim a tenth too low, or whose certified interval is too high, cannot be right."""
    claim = epsilon(event=EVENT, delta=1e-5)
    wrong = replace(claim, epsilon=factor * claim.epsilon, slack=factor * claim.slack)
    agreement = compare(event=EVENT, claim=wrong)
    assert not agreement.holds
    assert "DISAGREES" in {each.verdict for each in agreement.comparisons}


NOISY = Gaussian(noise_multiplier=1.5)
CUT = TruncatedPoissonSampled(probability=0.02, largest_batch=9, dataset_size=200, event=NOISY)
BOTH = AdaptivelyClipped(noise_multiplier=2.0, count_noise=1.5)


@pytest.mark.parametrize(
    ("event", "answered", "silent"),
    [
        (Repeated(event=CUT, times=20), {"dpacc RDP", "dp-accounting PLD"}, {"dp-accounting RDP"}),
        (
            Repeated(event=PoissonSampled(probability=0.1, event=BOTH), times=20),
            {"dpacc RDP", "dp-accounting PLD", "dp-accounting RDP"},
            set(),
        ),
        (
            Selected(event=Repeated(event=STEP, times=40), mean_runs=8, shape=1),
            {"dpacc RDP", "dp-accounting RDP"},
            {"dp-accounting PLD"},
        ),
        (Mixture(weights=(0.5, 0.5), events=(NOISY, CUT)), {"dpacc RDP"}, None),
        (
            Composed(events=(Laplace(noise_multiplier=5.0), NOISY)),
            {"dpacc RDP", "dp-accounting PLD", "dp-accounting RDP"},
            set(),
        ),
        (
            SeparatedParticipation(
                noise_multiplier=3.0,
                separation=4,
                rounds=30,
                after=2,
                coefficients=(0.7,),
                weights=(0.4, 0.2),
                decays=(0.9, 0.0),
            ),
            {"dpacc RDP", "dp-accounting PLD", "dp-accounting RDP"},
            set(),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_event_is_asked_of_those_that_know_it(event, answered, silent) -> None:
    """Truncated samples, adaptive clipping, searches and Laplace noise have second opinions."""
    agreement = compare(event=event, claim=epsilon(event=event, delta=1e-5))
    assert agreement.holds
    names = {each.other.accountant.split(",")[0] for each in agreement.comparisons}
    assert names == answered
    unheard = {each.accountant for each in agreement.silences}
    assert unheard == ({"dp-accounting PLD", "dp-accounting RDP"} if silent is None else silent)
    lower = replace(epsilon(event=event, delta=1e-5), epsilon=9.0, slack=0.01)
    assert not compare(event=event, claim=lower).holds


def test_where_nobody_else_knows_the_event_it_is_said() -> None:
    """Random allocation has no second opinion: an error, not an agreement."""
    event = RandomlyAllocated(steps=5, event=NOISY)
    with pytest.raises(ValueError, match=r"no second opinion.*dpacc's own alone.*RandomlyAlloc"):
        compare(event=event, claim=epsilon(event=event, delta=1e-5))


def test_who_is_silent_is_shown(dpacc, tmp_path: Path) -> None:
    """A person and a script read who could not be asked, and why."""
    with Ledger.open(path=tmp_path / "ledger.jsonl", plan=PLAN) as book:
        book.charge(step=0, event=CUT)
    outcome = dpacc("verify", tmp_path / "ledger.jsonl")
    assert outcome.code == 0
    assert "dp-accounting RDP has no answer" in " ".join(outcome.err.split())
    (silent,) = json.loads(dpacc("verify", tmp_path / "ledger.jsonl", "--json").out)["silent"]
    assert silent["accountant"] == "dp-accounting RDP"
    with Ledger.open(path=tmp_path / "ledger.jsonl", plan=PLAN) as book:
        book.charge(step=1, event=RandomlyAllocated(steps=5, event=NOISY))
    outcome = dpacc("verify", tmp_path / "ledger.jsonl")
    assert outcome.code == 2
    assert "no second opinion" in outcome.err


def test_orders_that_are_left_out_are_not_told(caplog: pytest.LogCaptureFixture) -> None:
    """dp-accounting warns of each order at which its series does not end; its bound holds."""
    step = PoissonSampled(probability=1 / 30, event=Gaussian(noise_multiplier=0.505134))
    event = Repeated(event=step, times=90)
    found = compare(event=event, claim=epsilon(event=event, delta=1e-3))
    assert found.holds
    assert "dp-accounting RDP" in {each.other.accountant for each in found.comparisons}
    assert not caplog.records


def test_a_ledger_is_recomputed(dpacc, ledger: Path) -> None:
    """A script gets the claim, every opinion and the agreement; the exit code is 0."""
    outcome = dpacc("verify", ledger, "--json")
    found = json.loads(outcome.out)
    assert outcome.code == 0
    assert found["agree"] is True
    assert found["epsilon"] == epsilon(event=Repeated(event=STEP, times=40), delta=1e-5).epsilon
    assert len(found["opinions"]) == 3
    assert {"accountant", "low", "high", "ratio", "agrees", "verdict"} == set(found["opinions"][0])


def test_a_plan_is_recomputed(dpacc, tmp_path: Path) -> None:
    """A person reads each accountant's interval, the ratio, and who is looser."""
    (tmp_path / "plan.json").write_text(json.dumps(PLAN))
    words = " ".join(dpacc("verify", tmp_path / "plan.json", "--delta", "1e-6").out.split())
    for fact in ("dpacc PLD", "dpacc RDP", "dp-accounting", "looser, ×", "all agree", "1e-06"):
        assert fact in words


def test_disagreement_is_exit_code_1(dpacc, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that another accountant contradicts is shouted, and ends with code 1."""
    honest = agreement.compare

    def wrong(*, event, claim):
        return honest(event=event, claim=replace(claim, epsilon=claim.epsilon / 2, slack=0.0))

    monkeypatch.setattr("dpacc.cli.commands.verify.compare", wrong)
    outcome = dpacc("verify", ledger)
    assert outcome.code == 1
    assert "DISAGREEMENT" in outcome.out
    assert json.loads(dpacc("verify", ledger, "--json").out)["agree"] is False


def test_without_dp_accounting_our_own_rdp_is_asked(
    dpacc, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where dp-accounting is not installed, one opinion is left, and how to get more is said."""
    for room in ("dpacc.cli.report.agreement", "dpacc.cli.commands.verify"):
        monkeypatch.setattr(f"{room}.dp_accounting_is_installed", lambda: False)
    outcome = dpacc("verify", ledger, "--json")
    assert [o["accountant"] for o in json.loads(outcome.out)["opinions"]] == ["dpacc RDP"]
    assert "pip install dp-accounting" in outcome.err


def test_a_void_run_has_nothing_to_verify(dpacc, ledger: Path) -> None:
    """A ledger under which no ε holds is refused with the reason."""
    with Ledger.open(path=ledger, plan=PLAN) as book:
        book.note(subject="fixed-seed", text="seed 7")
    outcome = dpacc("verify", ledger)
    assert outcome.code == 2
    assert "NOT private: seed 7" in outcome.err
