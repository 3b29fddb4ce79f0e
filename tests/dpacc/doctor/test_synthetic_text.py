"""Synthetic text and counts of labels: healthy as they were left, and each change is named."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from dpacc_accounting import Ledger, read_ledger

from dpacc.artifacts.synthetic.card import SyntheticFile, write_with_card
from dpacc.artifacts.synthetic.label_counts import release_counts
from dpacc.cli.commands.doctor import doctor
from dpacc.doctor import synthetic_text
from dpacc.doctor.synthetic_text import written_findings
from tests.dpacc.doctor.test_engine_room import plan_of

COUNTED = {"unit": "example", "target_delta": 1e-3, "dataset_size": 40}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """A synthetic file with its cards, by a run's ledger; with a note, by one that voids it."""

    def made(*, note: str | None = None) -> Path:
        plan = plan_of(steps=1)
        with Ledger.open(path=tmp_path / "ledger.jsonl", plan=plan.to_json()) as book:
            book.charge(step=0, event=plan.charge(0))
            if note is not None:
                book.note(subject="fixed-seed", text=note)
        file = SyntheticFile(
            path=tmp_path / "written.jsonl",
            records=[{"text": "a film"}],
            asked=1,
            dropped={},
            base="tiny",
            settings={},
        )
        write_with_card(file=file, record=read_ledger(path=tmp_path / "ledger.jsonl"))
        return file.path

    return made


def ailing(source: Path) -> dict[str, str]:
    """What is wrong; something must have been looked at."""
    found = written_findings(source=source)
    assert len(found) >= 3
    return {each.subject: each.words for each in found if not each.healthy}


def test_a_file_is_what_its_cards_say(write: Callable[..., Path]) -> None:
    """As it was written it is healthy; a record more, another ε for people, or no card is not."""
    path = write()
    assert ailing(path) == {}
    people = path.with_name("written.jsonl.card.md")
    honest = people.read_text()
    claimed = honest.split("**(ε = ")[1].split(",")[0]
    people.write_text(honest.replace(f"**(ε = {claimed},", "**(ε = 0.1,"))
    assert "says (ε = 0.1, δ = " in ailing(path)["card"]
    people.unlink()
    assert "cannot be read" in ailing(path)["card"]
    people.write_text(honest)
    path.write_text(path.read_text() + '{"text": "a private film"}\n')
    assert "its ε unknown" in ailing(path)["file"]
    path.with_name("written.jsonl.card.json").write_text("{}")
    assert [each.words for each in written_findings(source=path)] == [
        "written.jsonl.card.json is damaged"
    ]


def test_a_file_that_is_not_private_is_unhealthy(write: Callable[..., Path]) -> None:
    """Both cards say that none may be claimed; one that claims an ε all the same is named, too."""
    path = write(note="the noise came from seed 7")
    assert list(ailing(path)) == ["secret"]
    people = path.with_name("written.jsonl.card.md")
    people.write_text("(ε = 8, δ = 0.001)-differential privacy")
    assert "that none may be claimed" in ailing(path)["card"]


def test_counts_are_what_was_charged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Healthy as they were left; other counts, two charges and a fifth less noise are named."""
    release_counts(votes={"a": 30, "b": 10}, noise=20, folder=tmp_path, settings=COUNTED)
    assert ailing(tmp_path) == {}
    honest = synthetic_text.discrete_gaussians

    def quieter(*, scale: int, **given: int) -> np.ndarray:
        return honest(scale=scale * 4 // 5, **given)

    with monkeypatch.context() as patched:
        patched.setattr(synthetic_text, "discrete_gaussians", quieter)
        assert list(ailing(tmp_path)) == ["noise"]
    record = read_ledger(path=tmp_path / "ledger.jsonl")
    with Ledger.open(path=tmp_path / "ledger.jsonl", plan=dict(record.plan)) as again:
        again.charge(step=1, event=record.releases[0].event)
    assert "2 charges" in ailing(tmp_path)["charges"]
    exact = json.dumps({"noise": 20, "counts": {"a": 30, "b": 10}})
    (tmp_path / "label_counts.json").write_text(exact)
    assert "nobody knows their cost" in ailing(tmp_path)["origin"]


def test_counts_beside_another_ledger_are_nobodys(write: Callable[..., Path]) -> None:
    """Put into a run's folder, they are not what its ledger was charged for."""
    folder = write().parent
    (folder / "label_counts.json").write_text('{"noise": 20, "counts": {"a": 30}}')
    (found,) = written_findings(source=folder)
    assert not found.healthy
    assert "no ledger of label counts" in found.words


def test_nothing_else_is_taken_for_either(tmp_path: Path) -> None:
    """A run's folder and a plan are examined as what they are."""
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(plan_of().to_json()))
    assert written_findings(source=tmp_path) == written_findings(source=plan) == []


def test_each_examination_of_the_page_runs(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a synthetic file, on the ledger of its run, and on counts of labels of our own."""
    page = Path(__file__).parents[3] / "docs/synthetic.md"
    shown = re.findall(r"^\$ dpacc doctor (\S+)", page.read_text(), re.MULTILINE)
    assert len(shown) == 3
    written, run, counted = (tmp_path / each for each in shown)
    for file in write().parent.glob("written.jsonl*"):
        file.rename(file.with_name(file.name.replace("written.jsonl", written.name)))
    run.mkdir(parents=True)
    (tmp_path / "ledger.jsonl").rename(run / "ledger.jsonl")
    release_counts(votes={"a": 30, "b": 10}, noise=20, folder=counted, settings=COUNTED)
    monkeypatch.chdir(tmp_path)
    for each in shown:
        ended = CliRunner().invoke(doctor, [each, "--json"])
        assert ended.exit_code == 0, ended.output
        assert json.loads(ended.output)["healthy"]
