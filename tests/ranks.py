"""Test programs in processes of their own, one or several ranks, that say why they failed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[1]
_LAUNCH_SETTINGS = ("ACCELERATE_", "FSDP_", "MASTER_", "TORCHELASTIC_")
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "ACCELERATE_USE_CPU": "true",
    "DS_ACCELERATOR": "cpu",
    "PYTHONFAULTHANDLER": "1",
}


def run_ranks(
    module: str, *arguments: object, ranks: int = 2, seconds: float = 1200
) -> subprocess.CompletedProcess[str]:
    """Run `python -m module arguments` on some ranks, as if no test had launched anything before.

    Returns:
        What it printed, and its exit code: 1 for several ranks of which any failed.
    """
    launch = [sys.executable]
    if ranks > 1:
        launch += ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}", "--standalone"]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(_LAUNCH_SETTINGS)}
    return subprocess.run(
        [*launch, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env=inherited | _ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def filled_once(factory: pytest.TempPathFactory, name: str, fill: Callable[[Path], None]) -> Path:
    """A folder that one worker of the suite fills, and all of them read.

    Whoever would write into it takes a copy. What a filling that failed has left is cleared away.
    """
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, filled = shared / name, shared / f"{name}.filled"
    with FileLock(shared / f"{name}.lock"):
        if not filled.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            fill(folder)
            filled.touch()
    return folder


def require_success(done: subprocess.CompletedProcess[str]) -> None:
    """Fail with what every rank said last, for a launcher's own report follows it."""
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-8000:]}"
