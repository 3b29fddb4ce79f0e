"""Fuzz the readers of files as coverage tells: inputs that reach new code are kept and changed on.

    pip install atheris
    python benchmarks/fuzz_coverage.py --inputs 100000

Each target starts from valid files and has a process of its own, in which atheris watches every
branch of the reader. What may come of an input is as in benchmarks/fuzz.py: it is taken, or refused
in one line with exit code 2. An input that is found wanting is kept in the folder that is named.
"""

from __future__ import annotations

import ast
import json
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris
import click

with atheris.instrument_imports(include=["dpacc", "dpacc_accounting", "yaml", "json"]):
    import fuzz
    from dpacc_accounting import read_federation, read_ledger
    from dpacc_accounting.events.documents import event_to_json
    from dpacc_accounting.ledger.record import START, seal

    from dpacc.cli import terminal
    from dpacc.cli.documents import located, read_document
    from dpacc.data.chats import turn_complaint
    from dpacc.data.labelling import tag_complaint
    from dpacc.data.records import read_records
    from dpacc.federated.budgets import read_budgets
    from dpacc.recipe.config import load_config

FATES = ("taken", "refused", "found")
BUDGETS = """\
delta: 1e-5
levels:
  strict: {epsilon: 1}
defaults: {expected_batch_size: 64}
clients:
  north: strict
  south: {epsilon: 3, most_rounds: 10}
"""


# --- who reads what -------------------------------------------------------------------------


def read_a_config(folder: Path, content: bytes) -> None:
    """The YAML of a run."""
    path = folder / "run.yaml"
    path.write_bytes(content)
    load_config(arguments=["--config", str(path)])


def read_arguments(folder: Path, content: bytes) -> None:
    """A recipe's command line, one word a line."""
    path = folder / "run.yaml"
    path.write_text(fuzz.CONFIG)
    words = content.decode(errors="surrogateescape").replace("\0", "").split("\n")
    load_config(arguments=["--config", str(path), *words])


def read_examples(folder: Path, content: bytes) -> None:
    """A file of records; its first byte chooses the format."""
    suffix = (".jsonl", ".json", ".txt")[content[0] % 3 if content else 0]
    path = folder / f"data{suffix}"
    path.write_bytes(content[1:])
    for record in read_records(
        source=str(path), fields={"text": str, "label": str | int, "messages": list}
    ):
        turn_complaint(record["messages"])
        tag = {"words": record["messages"], "label": record["messages"]}
        tag_complaint(tag, words_field="words", label_field="label", labels=("a", "b"))


def read_a_ledger(folder: Path, content: bytes) -> None:
    """A ledger whose lines were changed before they were chained, and one torn anywhere."""
    path = folder / "ledger.jsonl"
    path.write_bytes(_chained(content))
    event_to_json(event=read_ledger(path=path).event)


def _chained(content: bytes) -> bytes:
    """Lines that are JSON objects get the hashes that they need; others stay as they are."""
    lines, head = [], START
    for line in content.split(b"\n"):
        try:
            sealed, head = seal(dict(json.loads(line)), previous=head)
        except (ValueError, TypeError, RecursionError):
            sealed = line
        lines.append(sealed.rstrip(b"\n"))
    return b"\n".join(lines)


def read_rounds(folder: Path, content: bytes) -> None:
    """The rounds of a federation, at example or client level."""
    path = folder / "rounds.yaml"
    path.write_bytes(content)
    with located(path=path):
        read_federation(document=read_document(path=path))


def read_client_budgets(folder: Path, content: bytes) -> None:
    """Each client's own budget."""
    path = folder / "rounds.yaml"
    path.write_bytes(content)
    read_budgets(path=path)


TARGETS: dict[str, Callable[[Path, bytes], None]] = {
    "configurations": read_a_config,
    "arguments": read_arguments,
    "data": read_examples,
    "ledgers": read_a_ledger,
    "rounds files": read_rounds,
    "budgets": read_client_budgets,
}


def beginnings(target: str) -> list[bytes]:
    """Valid files to start from."""
    if target == "ledgers":
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "ledger.jsonl"
            fuzz.write_ledger(path)
            bodies = [json.loads(line) for line in path.read_bytes().splitlines()]
        opened, *others = [{k: v for k, v in body.items() if k != "hash"} for body in bodies]
        note = {"kind": "note", "subject": "fixed-seed", "text": "seen"}
        return [b"\n".join(json.dumps(b).encode() for b in (opened, note, *others)) + b"\n"]
    records = "".join(json.dumps(record) + "\n" for record in fuzz.RECORDS).encode()
    starts: dict[str, list[bytes]] = {
        "configurations": [fuzz.CONFIG.encode()],
        "arguments": [b"--steps=3\n--lora_rank\n4\n--task=causal-lm\n--seed=1"],
        "data": [b"\0" + records, b"\1" + json.dumps(fuzz.RECORDS).encode(), b"\2a film\na joy\n"],
        "rounds files": [block.encode() for block in fuzz.ROUNDS],
        "budgets": [BUDGETS.encode()],
    }
    return starts[target]


def words_of_readers() -> list[str]:
    """Every short string of the sources, from which libFuzzer makes likely inputs."""
    root = Path(__file__).parents[1]
    found = set()
    for file in [*root.glob("dpacc/*.py"), *root.glob("accounting/src/*/*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= set(re.findall(r"^[\w -]{2,30}$", node.value))
    return sorted(found | set(fuzz.ODD_VALUES) - {"9" * 400})


# --- one process a target -------------------------------------------------------------------


def watch(target: str, inputs: int, seconds: int, folder: Path, tally: Any) -> None:
    """Never returns: libFuzzer ends the process it runs in."""
    corpus, words = folder / "corpus", folder / "words"
    corpus.mkdir()
    for number, content in enumerate(beginnings(target)):
        (corpus / f"start-{number}").write_bytes(content)
    quoted = [word.replace("\\", "\\\\").replace('"', '\\"') for word in words_of_readers()]
    words.write_text("".join(f'"{word}"\n' for word in quoted if word.isascii()))
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 2)
    reader = TARGETS[target]

    def one_line(place: Path, content: bytes) -> None:
        with terminal.one_line_errors():
            reader(place, content)

    def try_input(content: bytes) -> None:
        fate, finding = fuzz.judge(target=target, read=lambda place: one_line(place, content))
        tally[FATES.index(fate)] += 1
        if finding is not None:
            os.write(log, f"FOUND {finding.what!r}\n".encode())
            (folder / f"found-{tally[2]}").write_bytes(content)

    limits = [f"-runs={inputs}", f"-max_total_time={seconds}", "-timeout=0", "-max_len=4096"]
    options = ["-seed=1", "-rss_limit_mb=0", "-print_final_stats=0", f"-dict={words}"]
    atheris.Setup([sys.argv[0], *limits, *options, str(corpus)], try_input)
    atheris.Fuzz()


def branches(log: str) -> tuple[int, int]:
    """Branches that valid files reach, and those that were reached in the end."""
    seen = [int(found) for found in re.findall(r"cov: (\d+)", log)]
    begun = re.search(r"INITED cov: (\d+)", log)
    return int(begun[1]) if begun else 0, max(seen, default=0)


@click.command()
@click.option("--inputs", default=100_000, show_default=True, help="How many in all.")
@click.option("--seconds", default=0, help="The most for each target; 0 for no limit.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keeps what was found.")
def main(inputs: int, seconds: int, folder: Path | None) -> None:
    """Try them, and print what was found."""
    kept, started, faults = folder or Path(tempfile.mkdtemp()), time.monotonic(), 0
    context = multiprocessing.get_context("fork")
    print("| target | inputs | taken | refused in one line | found wanting | branches | kept |")
    print("|---|---|---|---|---|---|---|")
    for target in TARGETS:
        tally, place = context.Array("q", 3), kept / target
        place.mkdir(parents=True)
        share = inputs // len(TARGETS)
        child = context.Process(target=watch, args=(target, share, seconds, place, tally))
        child.start()
        child.join()
        counts, log = list(tally), (place / "log").read_text(errors="replace")
        if sum(counts) == 0 or (not seconds and sum(counts) < share):
            sys.exit(f"{target} stopped after {sum(counts)} inputs: {log[-2000:]}")
        first, last = branches(log)
        grown = len(list((place / "corpus").iterdir()))
        cells = [f"{count:,}" for count in (sum(counts), *counts)]
        print(f"| {target} | {' | '.join(cells)} | {first:,} → {last:,} | {grown} |", flush=True)
        faults += counts[2]
    print(f"{time.monotonic() - started:.0f} s; inputs that were found wanting are in {kept}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
