"""Mistakes in what the training recipe is told: one line each, and nothing written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dpacc.cli.subcommands.recipes import RECIPES
from tests.recipes.training import RECIPE, Train, as_arguments, settings

MISTAKES = {
    "epsilon": ("0", "epsilon=0"),
    "delta": ("0.5", "delta=0.5 is no less than 1/60"),
    "expected_batch_size": ("61", "exceeds"),
    "train_data": ("nowhere.jsonl", "nowhere.jsonl"),
    "lora_target_modules": ("q_porj", "q_porj"),
    "model": ("./no-such-model", "./no-such-model"),
    "resume": ("nothing-there", "nothing-there"),
    "unit_field": ("autor", "autor"),
    "quantization": ("nf5", "nf5"),
    "learning_rat": ("1", "did you mean learning_rate"),
    "output_dir": ("s3://bucket/runs", "no folder of this machine"),
}


@pytest.mark.parametrize("name", list(MISTAKES))
def test_a_mistake_is_one_line_and_exit_code_2_and_writes_nothing(
    name: str, train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each bad input names the culprit; no folder is made, no traceback shown."""
    value, culprit = MISTAKES[name]
    with pytest.raises(SystemExit) as exit_:
        train(**{name: value})
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert culprit in error
    assert not (tmp_path / "runs").exists()


def test_an_empty_dataset_is_refused(
    train: Train, material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is nobody to protect and nothing to learn from."""
    with pytest.raises(SystemExit, match="2"):
        train(train_data=material / "empty.jsonl")
    assert "empty.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_model_without_weights_is_refused(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that is no model is told as such."""
    (tmp_path / "hollow").mkdir()
    with pytest.raises(SystemExit, match="2"):
        train(model=tmp_path / "hollow")
    assert "hollow" in capsys.readouterr().err


def test_the_script_itself_exits_with_2(material: Path, tmp_path: Path) -> None:
    """Run as a program, a mistake gives exit code 2 within a second or two, before torch loads."""
    values = settings(material, tmp_path / "runs") | {"epsilon": -1}
    finished = subprocess.run(
        [sys.executable, str(RECIPE), *as_arguments(values)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr.count("\n") == 1
    assert "epsilon=-1" in finished.stderr


def test_the_data_are_looked_at_before_the_weights(
    train: Train, material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model without weights and data without the field: the data's mistake is told."""
    shutil.copytree(material / "model", tmp_path / "model")
    (tmp_path / "model/model.safetensors").write_bytes(b"")
    with pytest.raises(SystemExit, match="2"):
        train(model=tmp_path / "model", text_field="body")
    assert "no field 'body'" in capsys.readouterr().err


def test_held_out_data_that_is_private_is_refused(
    train: Train, material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The training file itself, some rows of it, or an author who has rows in both; no folder is
    made. Where it is allowed, ledger and card say it, and whitening never is."""
    rows = (material / "private.jsonl").read_text().splitlines()
    part = tmp_path / "part.jsonl"
    part.write_text("\n".join(rows[3:5]))
    same_author = tmp_path / "author.jsonl"
    same_author.write_text(json.dumps({"text": "joy joy joy", "author": "Author 3 "}))
    for changes in (
        {"held_out_data": material / "private.jsonl"},
        {"held_out_data": part},
        {"held_out_data": part, "lora_method": "whitened", "allow_held_out_overlap": True},
        {"held_out_data": same_author, "unit_field": "author", "expected_batch_size": 5},
    ):
        with pytest.raises(SystemExit):
            train(**changes)
        error = capsys.readouterr().err
        assert "private training" in error
        assert "joy" not in error
    assert not (tmp_path / "runs").exists()
    folder = train(held_out_data=part, allow_held_out_overlap=True) / "tiny"
    assert "metrics were computed without noise" in (folder / "README.md").read_text()


def test_no_recipe_loads_what_is_heavy_before_its_settings_are_read() -> None:
    """A mistake, or `--help`, costs neither torch nor scipy."""
    code = f"import sys, {', '.join(RECIPES)}; print(*{{'torch', 'scipy'}} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(RECIPE.parent), *sys.path])},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "\n"
