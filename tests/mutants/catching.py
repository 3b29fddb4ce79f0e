"""Plant one bug in a fresh process, run its checks there, and see which of them fail."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.mutants.bug import Bug
from tests.mutants.planting import plant

ROOT = Path(__file__).parents[2]
_SITE = Path(__file__).parent / "site"
_HEAVY = ("torch", "transformers", "peft", "accelerate", "scipy.stats", "pytest", "hypothesis")

Outcomes = dict[str, bool]
"""Of each check: whether it failed."""


def load_what_no_bug_changes() -> None:
    """Import the heavy libraries once; children inherit them."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads do not survive the fork
    import_module("tests.conftest")  # whose environment some of them read when they are imported
    for name in _HEAVY:
        import_module(name)
    gc.freeze()  # no child walks through, and so copies, what was there before


def outcomes(bug: Bug | None, checks: tuple[str, ...]) -> Outcomes:
    """Run `checks` in a child process in which `bug` is planted, or none.

    Raises:
        RuntimeError: a check could not be run at all.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        child = os.fork()
        if child == 0:
            _run_in_child(bug, checks, report)
        os.waitpid(child, 0)
        said = (Path(folder) / "said.txt").read_text()
        if not report.exists():
            raise RuntimeError(f"{bug.name if bug else 'without a bug'}: {said[-3000:]}")
        found: Outcomes = json.loads(report.read_text())
    missing = [check for check in checks if not any(name.startswith(check) for name in found)]
    if missing:
        raise RuntimeError(f"no such check: {missing[0]}\n{said[-3000:]}")
    return found


def _run_in_child(bug: Bug | None, checks: tuple[str, ...], report: Path) -> None:
    """Never returns: the child must not go on with its parent's work."""
    code = 1
    try:
        with (report.parent / "said.txt").open("w") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                found = _run_checks(bug, checks)
        report.write_text(json.dumps(found))
        code = 0
    finally:
        os._exit(code)


def _run_checks(bug: Bug | None, checks: tuple[str, ...]) -> Outcomes:
    import pytest

    os.chdir(ROOT)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_SITE), str(ROOT)])
    if bug is not None:
        plant(bug.patches, name=bug.name)
    seen = _Seen()
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header", "-W", "ignore"]
    pytest.main([*options, *checks], plugins=[seen])
    return seen.failed


class _Seen:
    """Listens to pytest."""

    def __init__(self) -> None:
        self.failed: Outcomes = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A check has failed if any of its phases has."""
        before = self.failed.get(report.nodeid, False)
        self.failed[report.nodeid] = before or report.failed


def refuse_late_start() -> None:
    """Bugs can be planted only before the package is imported."""
    if any(name == "dpacc" or name.startswith("dpacc.") for name in sys.modules):
        raise RuntimeError("dpacc was imported already; start with python -m tests.mutants")
