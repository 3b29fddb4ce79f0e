"""docs/installation.md: what it installs exists, and what it runs takes those words."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.scripts import load_script

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/installation.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INSTALLS = load_script(ROOT / "benchmarks/installs.py")
_BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [shlex.split(line, comments=True) for block in _BLOCKS for line in block.splitlines()]


def test_what_is_installed_exists() -> None:
    """Folders with a manifest, extras of the manifest, and the version of the tool that is used."""
    words = [word for line in COMMANDS if line[:2] == ["pip", "install"] for word in line[2:]]
    assert len(words) == 6
    for word in words:
        path, _, extra = word.rstrip("]").partition("[")
        if word != INSTALLS._BILLS:
            assert (ROOT / path / "pyproject.toml").is_file()
            assert not extra or extra in PROJECT["optional-dependencies"]
    extras = re.search(r"Other extras are (.*?);", PAGE, re.DOTALL)
    assert extras is not None
    named = re.findall(r"`(\w+)`", extras[0])
    assert sorted([*named, "train", "dev"]) == sorted(PROJECT["optional-dependencies"])


def test_the_page_the_script_and_the_workflow_write_one_bill() -> None:
    """By one tool's command, of the same words."""
    (told,) = [line for line in COMMANDS if line[0] == "cyclonedx-py"]
    source = (ROOT / "benchmarks/installs.py").read_text()
    for word in told[1:]:
        assert word in source or word in ("--output-file", "pyproject.toml", "dpacc.cdx.json")
    jobs = yaml.safe_load((ROOT / ".github/workflows/checks.yml").read_text())["jobs"]
    runs = [step["run"] for step in jobs["wheels"]["steps"] if "run" in step]
    (line,) = [shlex.split(run) for run in runs]
    assert line[:2] == ["python", "benchmarks/installs.py"]
    kept = jobs["wheels"]["steps"][-1]["with"]["path"]
    assert "".join(shlex.split(kept)) in "".join(line)


def test_an_interpreter_is_found_from_whichever_folder_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packages are installed from a folder of their own, where a relative path leads nowhere."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    found = INSTALLS.located("bin/python")
    assert found == str(tmp_path / "bin/python")
    assert INSTALLS.run(tmp_path / "bin", found, "-I", "-c", "print(3)") == "3\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "PYTHON"), (["--train"], "PYTHON"), (["./no/such"], "there is no ./no/such")],
)
def test_the_script_refuses_to_check_nothing(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without an interpreter, or with one that is not there, it does not begin."""
    with pytest.raises(SystemExit) as ended:
        INSTALLS.main(words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
