"""`dpacc init` and the run that its launch line starts, on ten files of different kinds."""

from __future__ import annotations

import csv
import gzip
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner
from dpacc_accounting import read_ledger

from dpacc.cli.commands.init import init
from tests.recipes.training import WORDS

COUNT = 24
CHAT = "{% for m in messages %}{{ m.content }}{{ eos_token if m.role == 'assistant' }}{% endfor %}"
Rows = list[dict[str, Any]]


def rows(of: Callable[[str, int], dict[str, Any]]) -> Rows:
    return [of(" ".join(WORDS[i % 5 : i % 5 + 4]), i) for i in range(COUNT)]


def as_lines(path: Path, records: Rows) -> None:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))


def as_packed_lines(path: Path, records: Rows) -> None:
    path.write_bytes(gzip.compress("".join(f"{json.dumps(r)}\n" for r in records).encode()))


def as_list(path: Path, records: Rows) -> None:
    path.write_text(json.dumps(records))


def as_table(path: Path, records: Rows) -> None:
    with path.open("w", newline="") as file:
        mark = "\t" if path.suffix == ".tsv" else ","
        table = csv.DictWriter(file, fieldnames=list(records[0]), delimiter=mark)
        table.writeheader()
        table.writerows(records)


def as_columns(path: Path, records: Rows) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)


def as_texts(path: Path, records: Rows) -> None:
    path.write_text("".join(f"{record['text']}\n" for record in records))


def as_folder(path: Path, records: Rows) -> None:
    path.mkdir()
    as_lines(path / "a.jsonl", records[:10])
    as_lines(path / "b.jsonl", records[10:])


def said(text: str, role: str = "role", content: str = "content") -> Rows:
    return [{role: "user", content: text}, {role: "assistant", content: WORDS[3]}]


CASES: dict[str, tuple[Callable[[Path, Rows], None], Rows, tuple[str, ...]]] = {
    "notes.jsonl": (as_lines, rows(lambda t, i: {"text": t, "patient": i % 8}), ("patient",)),
    "packed.jsonl.gz": (as_packed_lines, rows(lambda t, i: {"review": t, "stars": i % 5}), ()),
    "plain.txt": (as_texts, rows(lambda t, _: {"text": t}), ()),
    "parts": (as_folder, rows(lambda t, _: {"text": t}), ()),
    "columns.parquet": (as_columns, rows(lambda t, i: {"who": f"w{i % 9}", "note": t}), ("who",)),
    "mails.csv": (
        as_table,
        rows(lambda t, i: {"body": t, "label": ("ham", "spam")[i % 2]}),
        ("null", "--labels", "ham,spam"),
    ),
    "answers.tsv": (
        as_table,
        rows(lambda t, i: {"question": t, "answer": WORDS[i % 9]}),
        (),
    ),
    "chats.json": (
        as_list,
        rows(lambda t, _: {"conversations": said(t, "from", "value")}),
        (),
    ),
    "pairs.jsonl": (
        as_lines,
        rows(lambda t, i: {"prompt": t, "chosen": WORDS[i % 7], "rejected": WORDS[8]}),
        (),
    ),
    "tags.jsonl": (
        as_lines,
        rows(lambda t, i: {"tokens": t.split(), "ner_tags": [i % 2] * len(t.split())}),
        ("null", "--labels", "other,place"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_run_that_is_proposed_trains(
    name: str,
    material: Path,
    recipe: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The file that the launch line names is read, and its two steps are in a ledger."""
    write, records, (unit, *more) = CASES[name][0], CASES[name][1], CASES[name][2] or ("null",)
    monkeypatch.chdir(tmp_path)
    write(tmp_path / name, records)
    shutil.copytree(material / "model", tmp_path / "model")
    (tmp_path / "model/chat_template.jinja").write_text(CHAT)
    words = ["--model", "model", "--epsilon", "8", "--unit_field", unit, *more]
    small = ["--expected_batch_size", "4", "--steps", "2", "--max_length", "24"]
    outcome = CliRunner().invoke(init, [name, *words, *small, "--json"], catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    launch = shlex.split(json.loads(outcome.stdout)["launch"])
    recipe.main(launch[launch.index("--config") :])
    (ledger,) = tmp_path.glob("runs/*/ledger.jsonl")
    record = read_ledger(path=ledger)
    each = "preference pair" if name == "pairs.jsonl" else "example"
    assert record.plan["unit"] == (each if unit == "null" else unit)
    assert record.plan["steps"] == 2
