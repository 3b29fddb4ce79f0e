"""A wheel alone is enough to train: recipes and launch configurations are in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from dpacc_accounting import read_ledger
from flwr.cli.build import build_fab_from_disk

from dpacc.federated.supernode import code_of
from tests.dpacc.federated.deployed import APP
from tests.recipes.training import ROOT, WORDS, as_arguments, settings, write_texts
from tests.tiny_models import save_tiny_llama


def test_a_run_is_started_where_only_wheels_are(tmp_path: Path) -> None:
    """From a folder without a checkout: what is run lies in the wheel, as it is in the checkout."""
    installed = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    pip += ["--no-deps", "--target", str(installed)]
    subprocess.run([*pip, ROOT], check=True, timeout=1200)
    save_tiny_llama(tmp_path / "model", words=WORDS)
    write_texts(tmp_path / "private.jsonl", count=60)
    chosen = settings(tmp_path, tmp_path / "runs") | {"steps": 2, "held_out_data": "null"}
    # The accountant's own wheel is installed in tests/accounting/test_standalone_install.py.
    places = os.pathsep.join([str(installed), str(ROOT / "accounting/src")])
    done = subprocess.run(
        [sys.executable, "-m", "dpacc", "train", *as_arguments(chosen)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": places, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    script = installed / "dpacc/_recipes/train.py"
    assert done.stderr.startswith(f"$ python {script} ")
    assert len(read_ledger(path=tmp_path / "runs/tiny/ledger.jsonl").releases) == 2
    assert (tmp_path / "runs/tiny/adapter_model.safetensors").is_file()
    assert script.read_bytes() == (ROOT / "recipes/train.py").read_bytes()
    told = subprocess.run(
        [sys.executable, "-m", "dpacc", "federate", "app"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": places},
        capture_output=True,
        text=True,
        timeout=1200,
        check=True,
    )
    app = Path(told.stdout.strip())
    assert app == installed / "dpacc/_recipes/federation"
    assert code_of(build_fab_from_disk(app)) == code_of(build_fab_from_disk(APP))
    launches = {path.name for path in (installed / "dpacc/_launch_configs").iterdir()}
    assert launches == {path.name for path in (ROOT / "launch_configs").iterdir()}
