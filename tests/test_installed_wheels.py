"""Wheels alone are enough to train: recipes and launch configurations are in them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from dpacc_accounting import read_ledger

from tests.recipes.training import ROOT, as_arguments, settings, write_texts
from tests.tiny_models import save_tiny_llama

WORDS = ["the", "film", "was", "dull", "but", "its", "music", "and", "every", "face", "a", "joy"]


def test_a_run_is_launched_where_only_wheels_are(tmp_path: Path) -> None:
    """From a folder without a checkout: what is run, and with which launch, lies in the wheel."""
    installed = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    pip += ["--no-deps", "--target", str(installed)]
    subprocess.run([*pip, ROOT / "accounting", ROOT], check=True, timeout=1200)
    save_tiny_llama(tmp_path / "model", words=WORDS)
    write_texts(tmp_path / "private.jsonl", count=60)
    told = settings(tmp_path, tmp_path / "runs") | {"steps": 2, "held_out_data": "null"}
    done = subprocess.run(
        [sys.executable, "-m", "dpacc", "train", "--launch", "cpu", *as_arguments(told)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    packed = installed / "dpacc"
    shown = next(line for line in done.stderr.splitlines() if line.startswith("$"))
    assert str(packed / "_launch_configs/cpu.yaml") in shown
    assert str(packed / "_recipes/train.py") in shown
    assert len(read_ledger(path=tmp_path / "runs/tiny/ledger.jsonl").releases) == 2
    assert (tmp_path / "runs/tiny/adapter_model.safetensors").is_file()
