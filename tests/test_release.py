"""What a release says of itself: one version, and checks that call what exists."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

from dpacc import __version__

ROOT = Path(__file__).parents[1]


def test_all_say_one_version() -> None:
    """The package's own is the accountant's, the citation's and the changelog's."""
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"] == ["version"]
    accountant = tomllib.loads((ROOT / "accounting/pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert accountant["version"] == citation["version"] == __version__
    assert f"\n## {__version__}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_the_citation_is_the_readmes() -> None:
    """Title and licence are told alike."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert f"title = {{{citation['title']}}}" in (ROOT / "README.md").read_text()
    assert citation["license"] in (ROOT / "LICENSE").read_text()


def test_the_workflow_calls_what_exists() -> None:
    """Its targets are in the Makefile, its files here, and its oldest Python is the manifest's."""
    jobs = yaml.safe_load((ROOT / ".github/workflows/checks.yml").read_text())["jobs"]
    runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    targets = [word for run in runs for word in re.findall(r"^make (\w+)", run)]
    makefile = (ROOT / "Makefile").read_text()
    assert len(targets) == 2
    assert [each for each in targets if f"\n{each}:" not in makefile] == []
    assert ".ci/run" in runs
    assert (ROOT / ".ci/run").exists()
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    for job in ("accountant", "wheels"):
        assert f">={jobs[job]['strategy']['matrix']['python'][0]}" == needed


def test_what_one_python_or_system_lacks_does_not_end_what_others_show() -> None:
    """A job of several kinds goes on with the others where one fails."""
    jobs = yaml.safe_load((ROOT / ".github/workflows/checks.yml").read_text())["jobs"]
    several = [job["strategy"] for job in jobs.values() if "strategy" in job]
    assert len(several) == 2
    assert all(each["fail-fast"] is False for each in several)


def test_the_accountants_check_prints_on_every_system() -> None:
    """Also where what a program prints is in a code page without Greek letters, as on Windows."""
    jobs = yaml.safe_load((ROOT / ".github/workflows/checks.yml").read_text())["jobs"]
    python, *words = shlex.split(jobs["accountant"]["steps"][-1]["run"])
    assert python == "python"
    told = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    ended = subprocess.run(
        [sys.executable, *words], env=told, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert 7.99 < float(ended.stdout) <= 8.0
