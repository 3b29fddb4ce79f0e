"""The README does what it says: every block of it runs."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from dpacc_accounting import Ledger

from dpacc.cli.main import main
from dpacc.plan import PrivacyPlan
from dpacc.recipe.config import load_config
from tests.tiny_models import collate, examples, tiny_model

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    assert found
    return found


def commands() -> list[list[str]]:
    lines = "".join(blocks("console")).replace("\\\n", " ").splitlines()
    found = [shlex.split(line[2:], comments=True) for line in lines if line.startswith("$ ")]
    assert len(found) >= 6
    return found


def test_the_readme_is_short_enough_to_read() -> None:
    """At most 200 lines."""
    assert len(README.splitlines()) <= 200


def test_the_loop_in_the_readme_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The training block, given a model and data, runs to its printed guarantee."""
    monkeypatch.chdir(tmp_path)
    (loop,) = (block for block in blocks("python") if "PrivacyEngine" in block)
    model = tiny_model("llama")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    names = {
        "model": model,
        "optimizer": optimizer,
        "collate": collate,
        "train": examples([5] * 12),
    }
    exec(compile(loop, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "δ = 0.001" in printed
    assert "add-or-remove" in printed
    assert (tmp_path / "run/ledger.jsonl").exists()


def test_the_accountant_in_the_readme_calibrates(capsys: pytest.CaptureFixture[str]) -> None:
    """The three lines print σ and the steps of the well-known setting."""
    (block,) = (block for block in blocks("python") if "calibrate_noise" in block)
    exec(compile(block, "README.md", "exec"), {})
    sigma, steps = capsys.readouterr().out.split()
    assert float(sigma) == pytest.approx(0.4636, abs=2e-4)
    assert steps == "790"


def test_every_dpacc_command_in_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """calibrate, spend, explain and verify exit with 0, the latter three on a run's folder."""
    plan = PrivacyPlan(
        dataset_size=100,
        expected_batch_size=10,
        steps=5,
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        target_delta=1e-5,
    )
    ledger = tmp_path / "ledger.jsonl"
    with Ledger.open(path=ledger, plan=plan.to_json()) as book:
        book.charge(step=0, event=plan.charge(0))
    shown = [words for words in commands() if words[0] == "dpacc"]
    assert {words[1] for words in shown} == {"calibrate", "spend", "explain", "verify"}
    for words in shown:
        arguments = [str(tmp_path) if word.startswith("runs/") else word for word in words]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        assert "ε" in capsys.readouterr().out


def test_every_launch_in_the_readme_is_accepted() -> None:
    """The launch lines name files that exist and settings that the recipe knows."""
    launches = [words for words in commands() if words[0] == "accelerate"]
    assert launches
    for words in launches:
        recipe = words.index("recipes/train.py")
        assert (ROOT / words[words.index("--config_file") + 1]).exists()
        load_config(arguments=words[recipe + 1 :])


def test_every_make_target_and_file_in_the_readme_exists() -> None:
    """Targets are in the Makefile, and the file tree is that of the repository."""
    makefile = (ROOT / "Makefile").read_text()
    for words in commands():
        if words[0] == "make":
            assert f"\n{words[1]}:" in makefile
    tree = README.split("## Where things are")[1]
    names = re.findall(r"^(  )?([\w./]+)  ", tree, flags=re.MULTILINE)
    assert len(names) > 10
    for indent, name in names:
        assert (ROOT / ("dpacc" if indent else "") / name).exists(), name
