"""Planted bugs are noticed: a few of them every time, all of them by `python -m tests.mutants`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.__main__ import BEGIN, END, PAGE
from tests.mutants.bugs import BUGS
from tests.mutants.known_bugs import KNOWN_BUGS
from tests.mutants.own_bugs import OWN_BUGS
from tests.mutants.planting import PLANTED

ROOT = Path(__file__).parents[2]
SOURCES = {"dpacc": ROOT, "dpacc_accounting": ROOT / "accounting/src"}


def run(code: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *code],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


def test_there_are_enough_bugs_with_names_of_their_own() -> None:
    """At least the 14 kinds found elsewhere and ten of our own, each with a check that exists."""
    assert len(KNOWN_BUGS) >= 14
    assert len(OWN_BUGS) >= 10
    assert len({bug.name for bug in BUGS}) == len(BUGS)
    for bug in BUGS:
        assert bug.checks
        for check in bug.checks:
            file, _, test = check.partition("::")
            name = test.partition("[")[0].rpartition("::")[2]
            assert f"def {name}(" in (ROOT / file).read_text(), check


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_each_bug_still_fits_the_source(bug: object) -> None:
    """What is exchanged stands once in its module, which is Python with it and without."""
    planted: dict[str, str] = {}
    for patch in bug.patches:  # type: ignore[attr-defined]
        package = patch.module.partition(".")[0]
        path = SOURCES[package] / f"{patch.module.replace('.', '/')}.py"
        assert path.read_text().count(patch.old) == 1, f"{patch.module}: {patch.old!r}"
        assert patch.new != patch.old
        code = planted.get(patch.module, path.read_text())
        planted[patch.module] = code.replace(patch.old, patch.new)
    for module, code in planted.items():
        compile(code, module, "exec")


def test_a_few_planted_bugs_are_caught() -> None:
    """Their checks pass in a sound engine and fail in the one with the bug."""
    done = run(["-m", "tests.mutants", "--quick"])
    quick = [bug.name for bug in BUGS if bug.quick]
    assert len(quick) >= 4
    assert f"{len(quick)} of {len(quick)} planted bugs caught" in done.stdout, done.stderr
    assert done.returncode == 0


def test_child_processes_carry_the_bug_too() -> None:
    """A rank that is started by a check has the same bug, and none without it."""
    code = [
        "-c",
        "from dpacc.randomness.sampling import *\n"
        "from dpacc.randomness.run_secret import RunSecret as R\n"
        "s = PoissonSampler(dataset_size=99, expected_batch_size=9, secret=R.from_fixed_seed(0))\n"
        "print({len(s.draw(step=i)) for i in range(9)} == {9})",
    ]
    path = os.pathsep.join([str(ROOT / "tests/mutants/site"), str(ROOT)])
    assert run(code, PYTHONPATH=path).stdout == "False\n"
    assert run(code, PYTHONPATH=path, **{PLANTED: "shuffled batches"}).stdout == "True\n"


def test_the_published_table_has_every_bug_and_no_escape() -> None:
    """docs/assurance.md was generated from a run of these very bugs."""
    table = PAGE.read_text().split(BEGIN)[1].split(END)[0]
    for bug in BUGS:
        assert f"| {bug.name}{' *' if bug.known else ''} | {bug.story} |" in table
    assert "**nothing**" not in table
    assert f"{len(BUGS)} of {len(BUGS)} caught" in table
