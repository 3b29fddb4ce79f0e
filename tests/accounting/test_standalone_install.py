"""Another project can install the accountant alone, and use it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ACCOUNTING = Path(__file__).parents[2] / "accounting"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds `./accounting` and what it needs."""
    home = tmp_path_factory.mktemp("standalone") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    interpreter = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", interpreter, "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "install", "--quiet", "--no-compile", ACCOUNTING], check=True, timeout=1200
    )
    return interpreter


def _run(python: Path, code: str, folder: Path) -> str:
    # -I: neither this folder nor PYTHONPATH may lend it the packages under test.
    done = subprocess.run(
        [python, "-I", "-c", code], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout


def test_it_calibrates_and_keeps_books(python: Path, tmp_path: Path) -> None:
    """Planning noise, keeping a ledger and stating the guarantee need nothing else."""
    code = """if True:
        import json
        from dpacc_accounting import Ledger, calibrate_noise, epsilon, read_ledger
        found = calibrate_noise(
            dataset_size=67349, batch_size=256, epochs=3, epsilon=8.0, delta=1e-5
        )
        with Ledger.open(path="ledger.jsonl", plan={"steps": found.steps}) as ledger:
            ledger.charge(step=1, event=found.event)
        spent = epsilon(event=read_ledger(path="ledger.jsonl").event, delta=1e-5)
        print(json.dumps([found.noise_multiplier, found.steps, spent.epsilon]))
    """
    sigma, steps, spent = json.loads(_run(python, code, tmp_path))
    assert 0.4634 < sigma < 0.4640
    assert steps == 790
    assert 7.9 < spent <= 8


def test_it_brings_no_training_stack(python: Path, tmp_path: Path) -> None:
    """The environment holds the accountant and not the toolkit, a command line or torch."""
    code = (
        "from importlib.util import find_spec\n"
        "names = 'dpacc_accounting numpy scipy dpacc click rich torch transformers dp_accounting'\n"
        "print(*[name for name in names.split() if find_spec(name)])"
    )
    assert _run(python, code, tmp_path).split() == ["dpacc_accounting", "numpy", "scipy"]


def test_its_types_are_shipped(python: Path, tmp_path: Path) -> None:
    """A type checker of the other project finds our annotations."""
    code = (
        "from importlib.resources import files\n"
        "print(files('dpacc_accounting').joinpath('py.typed').is_file())"
    )
    assert _run(python, code, tmp_path) == "True\n"
