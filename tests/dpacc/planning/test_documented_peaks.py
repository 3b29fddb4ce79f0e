"""The tables in docs/plan.md: what was measured there, and what is planned for it today."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tests.scripts import load_script

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/plan.md").read_text()
TABLE = PAGE.partition("| case | measured GiB |")[2].partition("\n\n")[0]
CASES = range(7)


@pytest.fixture(scope="module")
def memory() -> ModuleType:
    """The script that measured them."""
    return load_script(ROOT / "benchmarks/memory.py")


def test_the_table_has_every_case(memory: ModuleType) -> None:
    """No row of the benchmark is left out, and none is of another's making."""
    names = re.findall(r"^\| (.*?) \| [\d.]+ \| [\d.]+ \| [\d.]+ \|$", TABLE, re.M)
    assert names == [memory.name_of(case) for case in memory.CASES]
    assert len(names) == len(CASES)


@pytest.mark.parametrize("index", CASES)
def test_the_plan_agrees_with_what_a_processor_held(memory: ModuleType, index: int) -> None:
    """Within 15% of the recorded peak; and the recorded plan is today's."""
    case = memory.CASES[index]
    name = re.escape(memory.name_of(case))
    ((measured, told, ratio),) = re.findall(
        rf"^\| {name} \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", TABLE, re.M
    )
    if case["model"] == memory.MODEL:
        case = case | {"model": "HuggingFaceTB/SmolLM2-135M-Instruct"}
    planned = memory.estimate(case) / 2**30
    assert planned == pytest.approx(float(measured), rel=memory.CLOSE_ENOUGH)
    assert planned == pytest.approx(float(told), abs=0.006)
    assert float(ratio) == pytest.approx(float(told) / float(measured), abs=0.01)


@pytest.mark.parametrize(("planned", "status"), [(1.14, 0), (1.16, 1), (0.84, 1)])
def test_the_benchmark_fails_beyond_15_percent(
    memory: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    planned: float,
    status: int,
) -> None:
    """One row too high or too low is told by name, and the exit status is 1."""
    wrong = iter([planned] + 6 * [1.0])

    def run(*_: object, **__: object) -> SimpleNamespace:
        return SimpleNamespace(stdout=f"[{10**9}, {int(next(wrong) * 10**9)}]\n")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["memory.py"])
    with pytest.raises(SystemExit) as end:
        memory.main()
    assert bool(end.value.code) == bool(status)
    assert capsys.readouterr().out.count("\n| SmolLM2, fp32, 8×128, materialize |") == 1
    assert ("8×128, materialize" in str(end.value.code)) == bool(status)
