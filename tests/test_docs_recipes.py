"""The recipes' page names recipes, files and settings that there are."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import fields
from pathlib import Path

import pytest

from dpacc.artifacts.kept.run_settings import with_the_runs_settings
from dpacc.recipe.settings import read_settings
from tests.scripts import load_script

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/recipes.md").read_text()
COMMANDS = [shlex.split(line) for line in re.findall(r"^python (recipes/.*)$", PAGE, re.MULTILINE)]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_every_command_is_read_by_its_recipe(
    words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its configuration exists and its settings are accepted, up to where data would be read."""
    script, *arguments = words
    module = load_script(ROOT / script)
    (kind,) = (
        value
        for name, value in vars(module).items()
        if name.endswith("Config") and value.__module__ == module.__name__
    )
    (tmp_path / "runs/smollm2-reviews").mkdir(parents=True)
    (tmp_path / "runs/smollm2-reviews/adapter_config.json").write_text("{}")
    (tmp_path / "runs/smollm2-sentiment").mkdir()
    trained = ROOT / "recipes/configs/smollm2_sentiment.yaml"
    shutil.copyfile(trained, tmp_path / "runs/smollm2-sentiment/config.yaml")
    monkeypatch.chdir(tmp_path)
    absolute = [str(ROOT / w) if w.startswith("recipes/") else w for w in arguments]
    if kind.__name__ in ("EvaluationConfig", "PredictionConfig"):
        absolute = with_the_runs_settings(absolute, kind=kind, option="adapter")
    config = read_settings(kind=kind, arguments=absolute)
    for cell in config.cells() if kind.__name__ == "SweepConfig" else ():
        varied = [f"--{name}={value}" for name, value in cell.items()]
        assert read_settings(kind=kind, arguments=[*absolute, *varied])


def test_every_line_of_every_shell_block_is_read() -> None:
    """None is written in a form that the test above would pass over."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert len(lines) == len(COMMANDS) >= 6
    assert [words[1:] for words in lines if words[0] == "python"] == COMMANDS


def test_the_price_of_people_is_as_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """What the block on patients prints stands beneath it."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (block,) = [each for each in blocks if "compare_unit_sampling" in each]
    exec(compile(block, "recipes.md", "exec"), {})
    assert f"# {capsys.readouterr().out}" in block


def test_every_recipe_and_file_on_the_page_exists() -> None:
    """And every recipe that trains or measures is on the page."""
    named = set(re.findall(r"recipes/[\w/]+\.(?:py|yaml)", PAGE))
    assert {name for name in named if not (ROOT / name).is_file()} == set()
    preparations = {
        "fetch_clinical.py",
        "fetch_demo.py",
        "fetch_federation.py",
        "sentiment_data.py",
        "simulate_patients.py",
    }
    scripts = {path.name for path in (ROOT / "recipes").glob("*.py")} - preparations
    assert {f"recipes/{name}" for name in scripts} <= named


def test_every_setting_on_the_page_exists() -> None:
    """What stands before a colon, or is said to be set, is a setting of some recipe."""
    from dpacc.recipe.config import TrainingConfig

    known = {field.name for field in fields(TrainingConfig)} | {"data_is_public", "trials"}
    for name in (
        "trackers",
        "messages_field",
        "learn_end",
        "labels",
        "lora_method",
        "lora_top_layers",
    ):
        assert name in known
        assert f"`{name}" in PAGE
