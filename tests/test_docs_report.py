"""The reports' page does what it says: its commands run, one after another."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from dpacc_accounting import create_budget

from tests.cli.conftest import Run, dpacc  # noqa: F401
from tests.cli.report.folders import finished_run, no_attackers, nobody_asked

PAGE = (Path(__file__).parents[1] / "docs/report.md").read_text()


def test_every_command_on_the_page_runs(
    dpacc: Run,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a finished run, in order: what one writes, the next reads."""
    nobody_asked(monkeypatch)
    no_attackers(monkeypatch)
    (tmp_path / "runs").mkdir()
    finished_run(tmp_path / "runs/reviews")
    finished_run(tmp_path / "runs/reviews-2")
    (tmp_path / "train.jsonl").write_text("{}\n")
    create_budget(
        path=tmp_path / "notes.budget.jsonl",
        name="notes",
        epsilon=8.0,
        delta=1e-5,
        data=tmp_path / "train.jsonl",
    )
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```console\n(.*?)```", PAGE, flags=re.DOTALL)
    lines = [line.removeprefix("$ dpacc ") for line in "".join(blocks).splitlines()]
    assert len(lines) >= 3
    for line in lines:
        command, _, out = line.partition(" > ")
        done = dpacc(*shlex.split(command))
        assert done.code == 0, done.err
        if out:
            Path(out).write_text(done.out)
    assert "not refuted" in Path("report.html").read_text()
    assert Path("report.pdf").read_bytes().startswith(b"%PDF")
