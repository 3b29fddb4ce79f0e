"""Feed broken files and arguments to everything that reads them, and see what a user would see.

    python benchmarks/fuzz.py --inputs 100000

Each input is a valid one with a few random changes: bytes flipped, lines lost or doubled, numbers
made enormous, negative or NaN, values of another type. It must be taken, or refused in one line
with exit code 2: no traceback, no second line, no file beside it, and an answer within a minute.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
from dpacc_accounting import Gaussian, Ledger, PoissonSampled
from dpacc_accounting.guarantee import Adjacency

from dpacc.cli import terminal
from dpacc.cli.main import main as command_line
from dpacc.data.chats import turn_complaint
from dpacc.data.labelling import tag_complaint
from dpacc.data.records import read_records
from dpacc.plan import PrivacyPlan
from dpacc.recipe.config import load_config

SECONDS = 60
ODD_NUMBERS = [
    "0",
    "-1",
    "1e308",
    "-1e-308",
    "nan",
    "inf",
    ".5",
    "1e-400",
    "9" * 400,
    "2.5",
    "0x10",
]
ODD_VALUES = [
    *ODD_NUMBERS,
    "null",
    "true",
    "[]",
    "{}",
    '""',
    "[[[]]]",
    '"\\ud800"',
    "~",
    "é",
    "- -",
    "*a",
]

CONFIG = """\
name: run
model: folder/model
train_data: private.jsonl
held_out_data: public.jsonl
epsilon: 8
delta: 1e-5
expected_batch_size: 96
steps: 20
clipping: automatic
lora_target_modules: [q_proj, v_proj]
learning_rate: 5e-3
quantization: none
"""
PAGE = Path(__file__).parent.parent / "docs/accounting.md"
# The page's federations, at example and at client level.
ROUNDS = [
    block
    for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    if "\nlevel:" in block
]
RECORDS = [
    {"text": "a film", "label": 1, "messages": [{"role": "user", "content": "hello"}]},
    {"text": "a joy", "label": 0, "messages": [{"role": "assistant", "content": "hm"}]},
]
WORDS = {
    "calibrate": "--epsilon 8 --delta 1e-5 --dataset-size 1000 --batch-size 50 --epochs 3",
    "spend": "LEDGER --delta 1e-5 --json",
    "explain": "LEDGER",
    "compose": "ROUNDS --json",
}


class TooSlowError(Exception):
    """An input kept its reader busy for a minute."""


@dataclass(frozen=True)
class Finding:
    """An input that was neither taken nor refused as it should be."""

    target: str
    seed: int
    what: str


def change(text: str, draw: random.Random) -> str:
    """`text` with one to four random changes."""
    for _ in range(draw.randint(1, 4)):
        text = draw.choice(CHANGES)(text, draw)
    return text


def _replace_a_value(text: str, draw: random.Random) -> str:
    places = [i for i, letter in enumerate(text) if letter in ":=, "]
    if not places:
        return text
    start = draw.choice(places) + 1
    stop = start
    while stop < len(text) and text[stop] not in ",}]\n":
        stop += 1
    return f"{text[:start]} {draw.choice(ODD_VALUES)}{text[stop:]}"


def _replace_a_number(text: str, draw: random.Random) -> str:
    places = [i for i, letter in enumerate(text) if letter.isdigit()]
    if not places:
        return text
    start = stop = draw.choice(places)
    while stop < len(text) and (text[stop].isdigit() or text[stop] in ".e-"):
        stop += 1
    return text[:start] + draw.choice(ODD_NUMBERS) + text[stop:]


def _damage_a_letter(text: str, draw: random.Random) -> str:
    if not text:
        return text
    at = draw.randrange(len(text))
    return (
        text[:at]
        + draw.choice(["", "\x00", "\ufeff", "{", "'", "\t", ":", chr(draw.randrange(1, 0xD800))])
        + text[at + 1 :]
    )


def _move_a_line(text: str, draw: random.Random) -> str:
    lines = text.splitlines(keepends=True)
    if not lines:
        return text
    line = lines.pop(draw.randrange(len(lines)))
    for _ in range(draw.choice([0, 0, 1, 2])):
        lines.insert(draw.randint(0, len(lines)), line)
    return "".join(lines)


def _cut(text: str, draw: random.Random) -> str:
    return text[: draw.randint(0, len(text))]


CHANGES: list[Callable[[str, random.Random], str]] = [
    _replace_a_value,
    _replace_a_value,
    _replace_a_number,
    _damage_a_letter,
    _move_a_line,
    _cut,
]


# --- who reads what -------------------------------------------------------------------------


def read_a_config(folder: Path, draw: random.Random) -> None:
    """The YAML of a run."""
    path = folder / "run.yaml"
    path.write_text(change(CONFIG, draw))
    with terminal.one_line_errors():
        load_config(arguments=["--config", str(path)])


def read_arguments(folder: Path, draw: random.Random) -> None:
    """A recipe's command line."""
    path = folder / "run.yaml"
    path.write_text(CONFIG)
    words = change("--steps=3 --lora_rank=4 --labels=a,b --task=causal-lm --seed=1", draw).split()
    with terminal.one_line_errors():
        load_config(arguments=["--config", str(path), *words])


def read_examples(folder: Path, draw: random.Random) -> None:
    """A file of records, in any of the formats and tasks."""
    kinds = [".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet", ".txt.gz"]
    path = folder / f"data{draw.choice(kinds)}"
    lines = "".join(json.dumps(record) + "\n" for record in RECORDS)
    path.write_text(change(lines, draw), encoding="utf-8")
    with terminal.one_line_errors():
        for record in read_records(
            source=str(path), fields={"text": str, "label": str | int, "messages": list}
        ):
            turn_complaint(record["messages"])
            tag = {"words": record["messages"], "label": record["messages"]}
            tag_complaint(tag, words_field="words", label_field="label", labels=("a", "b"))


def run_a_command(folder: Path, draw: random.Random) -> None:
    """An accounting command, its files or its arguments broken."""
    ledger, rounds = folder / "ledger.jsonl", folder / "rounds.yaml"
    write_ledger(ledger)
    rounds.write_text(draw.choice(ROUNDS))
    command = draw.choice([*WORDS])
    words = WORDS[command]
    broken = draw.choice(["file", "words"])
    if broken == "file":
        path = rounds if command == "compose" else ledger
        path.write_text(change(path.read_text(), draw))
    else:
        words = change(words, draw)
    places = {"LEDGER": str(ledger), "ROUNDS": str(rounds)}
    sys.argv = ["dpacc", command, *(places.get(word, word) for word in words.split())]
    command_line()


TARGETS = {
    "configurations": read_a_config,
    "arguments": read_arguments,
    "data": read_examples,
    "commands": run_a_command,
}


def write_ledger(path: Path) -> None:
    """A ledger of three charged steps."""
    plan = PrivacyPlan(
        dataset_size=1000,
        expected_batch_size=50,
        steps=3,
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        target_delta=1e-5,
        adjacency=Adjacency.ADD_OR_REMOVE,
    )
    event = PoissonSampled(probability=0.05, event=Gaussian(noise_multiplier=1.0))
    with Ledger.open(path=path, plan=plan.to_json()) as ledger:
        for step in range(3):
            ledger.charge(step=step, event=event)


# --- what came of it ------------------------------------------------------------------------


def try_input(*, target: str, seed: int) -> tuple[str, Finding | None]:
    """What became of one input: "taken", "refused", or a finding."""
    draw = random.Random(f"{target}/{seed}")
    return judge(target=target, seed=seed, read=lambda folder: TARGETS[target](folder, draw))


def judge(
    *, target: str, read: Callable[[Path], None], seed: int = 0
) -> tuple[str, Finding | None]:
    """What became of what `read` reads in a folder of its own."""
    out, err = io.StringIO(), io.StringIO()
    with tempfile.TemporaryDirectory() as name, _within_a_minute():
        folder = Path(name)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                read(folder)
            code: object = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException as error:  # what a user would see as a traceback
            if isinstance(error, KeyboardInterrupt):
                raise
            return "found", Finding(target, seed, f"{type(error).__name__}: {error}"[:200])
        left = {path.name for path in folder.iterdir()}
    expected = {"run.yaml", "ledger.jsonl", "rounds.yaml"} | {
        n for n in left if n.startswith("data.")
    }
    if left - expected:
        return "found", Finding(target, seed, f"left behind: {left - expected}")
    if code in (0, 1):
        return "taken", None
    complaint = err.getvalue().rstrip("\n")
    lines = [line for line in complaint.splitlines() if "error:" in line]
    if code != 2 or len(lines) != 1 or "Traceback" in complaint:
        return "found", Finding(target, seed, f"exit code {code}: {complaint[:200]!r}")
    return "refused", None


@contextlib.contextmanager
def _within_a_minute() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooSlowError(f"no answer in {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@click.command()
@click.option("--inputs", default=100_000, show_default=True, help="How many in all.")
@click.option("--first", default=0, help="Number of the first, to go on or to repeat.")
def main(inputs: int, first: int) -> None:
    """Try them, and print what was found."""
    started, fates, findings = time.monotonic(), Counter[tuple[str, str]](), []
    share = inputs // len(TARGETS)
    for seed in range(first, first + share):
        for target in TARGETS:
            fate, finding = try_input(target=target, seed=seed)
            fates[target, fate] += 1
            if finding is not None:
                findings.append(finding)
                print(finding, flush=True)
    print(
        "| target | inputs | taken | refused in one line | found wanting |\n|---|---|---|---|---|"
    )
    for target in TARGETS:
        counts = [fates[target, fate] for fate in ("taken", "refused", "found")]
        print(f"| {target} | {sum(counts):,} | {counts[0]:,} | {counts[1]:,} | {counts[2]:,} |")
    print(f"{share * len(TARGETS):,} inputs in {time.monotonic() - started:.0f} s")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
