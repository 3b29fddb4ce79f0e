"""What every run of the recipes in the tests is told, how they are called, and their files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpacc.cli import terminal

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes/train.py"
WORDS = ["the", "film", "was", "dull", "but", "its", "music", "and", "every", "face", "a", "joy"]


Train = Callable[..., Path]


def write_texts(path: Path, *, count: int, beginning: str = "") -> None:
    """Texts of twenty authors; none begins with "joy" unless it is asked to."""
    rows = (beginning + " ".join(WORDS[i % 7 : i % 7 + 3 + i % 9]) for i in range(count))
    records = ({"text": row, "author": f"{beginning}author {i % 20}"} for i, row in enumerate(rows))
    listed(path, *records)


def listed(path: Path, *records: object) -> Path:
    """A file of JSON lines, one a record."""
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def settings(material: Path, runs: Path) -> dict[str, object]:
    return {
        "model": material / "model",
        "train_data": material / "private.jsonl",
        "held_out_data": material / "held_out.jsonl",
        "output_dir": runs,
        "name": "tiny",
        "epsilon": 8,
        "expected_batch_size": 12,
        "steps": 4,
        "evaluate_every": 2,
        "lora_target_modules": "q_proj,v_proj",
        "dtype": "float32",
    }


def refusal(
    main: Callable[[list[str]], object], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> str:
    """What a recipe says, on as many lines as it likes, before it exits with code 2."""
    with pytest.raises(SystemExit) as caught, terminal.one_line_errors():
        main(arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err


def durations(text: str) -> list[str]:
    """What in a text tells how long something took; it would follow what steps drew."""
    units = (
        r"\b\d[\d.,:]* ?(?:ms|s|secs?|seconds?|min|minutes?|h|hours?|it/s)\b|\b\d+:\d\d(?::\d\d)?\b"
    )
    names = r"\w*(?:runtime|seconds|elapsed|duration|timestamp|walltime)\w*"
    return re.findall(f"{units}|{names}", text)


def written(folder: Path) -> str:
    """All texts that lie in a folder of runs."""
    texts = (
        path for path in folder.rglob("*") if path.suffix in (".json", ".jsonl", ".md", ".yaml")
    )
    return "\n".join(path.read_text() for path in sorted(texts))


def as_arguments(values: dict[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in values.items()]
