"""A federation: the worst client's ε in the headline, and ledgers that may contradict it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from dpacc_accounting import Ledger, epsilon
from dpacc_accounting.guarantee import rounded_up

from dpacc.artifacts.document.content import Document
from dpacc.artifacts.document.html_page import html_page
from dpacc.cli.report.federation import gather_federation, report_of_federation
from dpacc.errors import ConfigurationError
from tests.cli.report.folders import FIXED_SEED, PLAN, no_attackers, nobody_asked


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody_asked(monkeypatch)
    no_attackers(monkeypatch)


CLIENT = {
    "unit": "example",
    "sampling_probability": 0.05,
    "noise_multiplier": 1.0,
    "schedule": [{"rounds": 3, "local_steps": 2}],
}
LOUD = {**CLIENT, "noise_multiplier": 0.7, "epsilon_budget": 3.0}


def folder_of(folder: Path, **clients: dict[str, Any]) -> Path:
    """A federation's folder, without ledgers."""
    folder.mkdir()
    named = [{"name": name, **fields} for name, fields in clients.items()]
    document = {"level": "example", "delta": 1e-5, "clients": named}
    (folder / "rounds.yaml").write_text(yaml.safe_dump(document))
    return folder


def ledger_of(folder: Path, name: str, *, steps: int = 6, **changes: Any) -> None:
    """A client's own ledger."""
    (folder / name).mkdir()
    plan = replace(PLAN, steps=steps, **changes)
    with Ledger.open(path=folder / name / "ledger.jsonl", plan=plan.to_json()) as book:
        for step in range(steps):
            book.charge(step=step, event=plan.charge(step))


def reported(folder: Path) -> Document:
    return report_of_federation(facts=gather_federation(rounds=folder / "rounds.yaml"))


def test_the_headline_is_the_worst_client(tmp_path: Path) -> None:
    """Its ε, at its δ, and its name; whoever spent more than agreed is named."""
    folder = folder_of(tmp_path / "fed", quiet=CLIENT, loud=LOUD)
    worst = epsilon(event=replace(PLAN, noise_multiplier=0.7).event(), delta=1e-5).epsilon
    verdict = reported(folder).verdict
    assert f"(ε = {rounded_up(worst)}, δ = 1e-05)" in verdict.headline
    assert "loud" in verdict.headline
    assert "Against the server" in verdict.conditions
    assert worst > 3
    assert "loud spent more than its budget" in verdict.reasons


def test_ledgers_that_agree_are_priced_and_asked(tmp_path: Path) -> None:
    """Their hashes stand in the report, and the promise holds."""
    folder = folder_of(tmp_path / "fed", quiet=CLIENT)
    ledger_of(folder, "quiet")
    document = reported(folder)
    assert document.verdict.standing == "holds"
    head = json.loads((folder / "quiet/ledger.jsonl").read_text().splitlines()[-1])["hash"]
    assert head in html_page(document)
    assert "dpacc verify fed/quiet" in html_page(document)


def test_a_ledger_that_charges_more_than_the_rounds_breaks_it(tmp_path: Path) -> None:
    """Whoever wrote the rounds left something out."""
    folder = folder_of(tmp_path / "fed", quiet=CLIENT)
    ledger_of(folder, "quiet", steps=9)
    verdict = reported(folder).verdict
    assert verdict.standing == "broken"
    assert "its ledger charges" in verdict.reasons[0]


def test_a_void_client_voids_the_federation(tmp_path: Path) -> None:
    """Whether the rounds say so or its ledger alone does."""
    told = folder_of(
        tmp_path / "told", quiet=CLIENT, seeded={**CLIENT, "void_because": ["fixed-seed"]}
    )
    verdict = reported(told).verdict
    assert (verdict.standing, "NOT private" in verdict.headline) == ("broken", True)
    silent = folder_of(tmp_path / "silent", quiet=CLIENT)
    ledger_of(silent, "quiet")
    with Ledger.open(path=silent / "quiet/ledger.jsonl", plan=PLAN.to_json()) as book:
        book.note(subject=FIXED_SEED[0], text=FIXED_SEED[1])
    assert reported(silent).verdict.standing == "broken"


def test_a_server_that_adds_the_noise_is_not_kept_out(tmp_path: Path) -> None:
    """At client level the report says that nothing holds against it."""
    folder = tmp_path / "fed"
    folder.mkdir()
    document = {"level": "client", "delta": 1e-6, "rounds": 50, "sampling": "poisson"}
    document |= {"sampling_rate": 0.01, "noise_multiplier": 1.0}
    (folder / "rounds.yaml").write_text(yaml.safe_dump(document))
    found = reported(folder)
    assert "no promise holds against it" in found.verdict.conditions
    assert "none holds" in html_page(found)


def test_quality_by_round_is_read(tmp_path: Path) -> None:
    """From history.json; a damaged one is refused. Names lead nowhere outside the folder."""
    folder = folder_of(tmp_path / "fed", **{"../other": CLIENT})
    ledger_of(tmp_path, "other", steps=9)
    history = {"start_quality": {"films": 0.5}, "rounds": [{"quality": {"films": 0.75}}]}
    (folder / "history.json").write_text(json.dumps(history))
    document = reported(folder)
    assert "charges" not in " ".join(document.verdict.reasons)
    assert "75.0%" in html_page(document)
    (folder / "history.json").write_text("[]")
    with pytest.raises(ConfigurationError, match="damaged"):
        reported(folder)
