"""The pages on loops, trainers and coming from elsewhere: every program that can run, runs."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from dpacc_accounting import read_ledger
from transformers import AutoTokenizer

from tests.tiny_models import collate, examples, save_tiny_llama, tiny_model

DOCS = Path(__file__).parents[1] / "docs"
WORDS = ["the", "film", "was", "good", "bad", "very", "a", "not", "and", "it"]
NEEDS = {
    "# Opacus": "opacus",
    "# dp-lora": "dp_lora",
    "# private-transformers": "private_transformers",
}
PAGES = ("from_opacus.md", "from_dp_lora.md", "from_private_transformers.md")


def programs(page: str) -> list[str]:
    found = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), flags=re.DOTALL)
    assert len(found) >= 2
    return found


def run(program: str, page: str) -> dict[str, Any]:
    names: dict[str, Any] = {
        "model": tiny_model("llama"),
        "train": examples([7, 3, 12, 4, 9, 5] * 5),
        "held_out": examples([5, 6], seed=8),
        "collate": collate,
    }
    exec(compile(program, page, "exec"), names)
    return names


@pytest.mark.parametrize("page", PAGES)
def test_our_program_keeps_the_budget(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The dpacc block of each page runs: 8 charges on disk, and an ε just below the asked 8."""
    monkeypatch.chdir(tmp_path)
    (ours,) = [program for program in programs(page) if program.startswith("# dpacc\n")]
    run(ours, page)
    assert 7.99 < float(capsys.readouterr().out.split()[-1]) <= 8.0
    assert len(read_ledger(path=tmp_path / "run/ledger.jsonl").releases) == 8


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", PAGES)
def test_their_program_runs_where_it_is_installed(
    page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The block beside ours is a program of the other tool, not a caricature."""
    (theirs,) = [program for program in programs(page) if not program.startswith("# dpacc\n")]
    package = NEEDS[theirs.partition("\n")[0]]
    compile(theirs, page, "exec")
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    run(theirs, page)
    reported = float(capsys.readouterr().out.split()[-1])
    said = re.search(r"reports ε = (\d+\.\d+)", (DOCS / page).read_text())
    assert reported == pytest.approx(float(said[1]) if said else 8.0, abs=0.01)


def test_the_plain_loop_and_the_trainer_keep_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first two blocks of the page on loops and trainers run to the ε they asked for."""
    for number, program in enumerate(programs("loops_and_trainers.md")[:2]):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        names = run(program, "loops_and_trainers.md")
        releases = read_ledger(path=folder / "run/ledger.jsonl").releases
        assert len(releases) == 8
        if "trainer" in names:
            assert names["trainer"].state.log_history[-1]["epsilon"] <= 8.0


def test_trls_block_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third block runs where trl is installed, on prompts and completions."""
    trl = pytest.importorskip("trl")
    monkeypatch.chdir(tmp_path)
    configuration = trl.SFTConfig
    monkeypatch.setattr(
        trl, "SFTConfig", lambda **given: configuration(**given, bf16=False, use_cpu=True)
    )
    save_tiny_llama(tmp_path / "base", words=WORDS)
    (program,) = [p for p in programs("loops_and_trainers.md") if "SFTTrainer" in p]
    names: dict[str, Any] = {
        "model": tiny_model("llama"),
        "tokenizer": AutoTokenizer.from_pretrained(tmp_path / "base"),
        "conversations": Dataset.from_list(
            [{"prompt": "the film was", "completion": f" {word}"} for word in WORDS]
        ),
    }
    exec(compile(program, "loops_and_trainers.md", "exec"), names)
    assert len(read_ledger(path=tmp_path / "run/ledger.jsonl").releases) == 6
