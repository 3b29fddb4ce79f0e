"""The page on budgets: its commands run in their order, its program, and its figures."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from dpacc_accounting import Composed, epsilon, read_budget
from dpacc_accounting.guarantee import rounded_up

from dpacc.plan import PrivacyPlan
from tests.cli.conftest import dpacc  # noqa: F401

PAGE = (Path(__file__).parents[1] / "docs/budget.md").read_text()
PLAN = PrivacyPlan(
    dataset_size=10_000,
    expected_batch_size=100,
    steps=50,
    noise_multiplier=0.8,
    max_grad_norm=1.0,
    target_delta=1e-6,
)


def blocks(language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    assert found
    return found


def test_the_commands_and_the_program_run(
    dpacc,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the page's order: two runs are counted in the end, one of them by a single step."""
    monkeypatch.chdir(tmp_path)
    Path("train.jsonl").write_text('{"text": "Ann"}\n')
    Path("plan.yaml").write_text(json.dumps(PLAN.to_json()))
    for line in "".join(blocks("console")).splitlines():
        outcome = dpacc(*shlex.split(line.removeprefix("$ dpacc ")))
        assert outcome.code == 0, outcome.err
    (program,) = [each for each in blocks("python") if "open_ledger" in each]
    exec(compile(program, "budget.md", "exec"), {"plan": PLAN})
    record = read_budget(path="notes.budget.jsonl")
    assert [share.state for share in record.shares.values()] == ["committed", "committed"]
    assert [share.ledgers.popitem()[1] for share in record.shares.values()] == [0, 1]


def test_the_page_adds_no_epsilon() -> None:
    """Its example of six runs is what the accountant says."""
    six = Composed(events=(PLAN.event(),) * 6)
    together = epsilon(event=six, delta=PLAN.target_delta).epsilon
    one = PLAN.guarantee().epsilon
    said = f"ε = {rounded_up(one, digits=3)} beside five equal ones"
    assert said in PAGE, said
    said = f"six cost {rounded_up(together, digits=3)} together, though their sum is"
    assert said in " ".join(PAGE.split()), said
    assert f"sum is {6 * one:.1f}" in " ".join(PAGE.split()), 6 * one
