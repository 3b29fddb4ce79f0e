"""The batch script: told that its time is up, it lets ranks end and asks to be started again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "deploy/slurm/train.sbatch"
_TELLS_SHELL = "[ -e told ] || { touch told; kill -USR1 $PPID; }\n"
_WAITS = "while [ ! -e ended ]; do read -r -t 0.05 <> <(:) || :; done\n"


def run(folder: Path, *, srun: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """The script with a cluster's commands that write down how they were called."""
    commands = {
        "srun": f'echo "srun $SLURM_NNODES $*" >> called\n{srun}',
        "scancel": 'echo "scancel $*" >> called\ntouch ended\n',
        "scontrol": 'echo "scontrol $*" >> called\necho first\n',
    }
    for name, body in commands.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{body}")
        (folder / name).chmod(0o700)
    job = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "n[1-2]"}
    done = subprocess.run(
        ["bash", SCRIPT, "--config", "my.yaml"],
        cwd=folder,
        env=os.environ | job | {"PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, (folder / "called").read_text().splitlines()


@pytest.mark.parametrize("code", [0, 2])
def test_a_job_that_ends_by_itself_is_not_queued_again(tmp_path: Path, code: int) -> None:
    """Its ranks' exit code is the job's, and the recipe gets what the job was given."""
    done, called = run(tmp_path, srun=f"exit {code}\n")
    assert done.returncode == code
    assert not [call for call in called if "requeue" in call or "scancel" in call]
    assert "recipes/train.py --resume auto" in "\n".join(called)
    assert called[-1].endswith("train --config my.yaml")


def test_a_job_whose_time_is_up_tells_its_ranks_and_is_queued_again(tmp_path: Path) -> None:
    """SIGTERM goes to the ranks; when they have ended, and not before, it is queued again."""
    ends = f"{_TELLS_SHELL}{_WAITS}echo 'ranks ended' >> called\nexit 1\n"
    done, called = run(tmp_path, srun=ends)
    assert called[-3:] == [
        f"scancel --signal={signal.SIGTERM.name[3:]} 7",
        "ranks ended",
        "scontrol requeue 7",
    ]
    assert done.returncode == 1


def test_ranks_have_less_time_than_the_job() -> None:
    """Agents give up waiting before Slurm ends everything; and its launch file is there."""
    script = SCRIPT.read_text()
    (notice,) = map(int, re.findall(r"^#SBATCH --signal=B:USR1@(\d+)$", script, re.MULTILINE))
    (patience,) = map(int, re.findall(r"SHUTDOWN_TIMEOUT:-(\d+)", script))
    assert patience < notice
    (launch,) = re.findall(r"LAUNCH_CONFIG:-([\w./]+)", script)
    assert (ROOT / launch).is_file()
