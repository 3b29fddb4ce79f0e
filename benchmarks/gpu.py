"""Everything that this project says of one GPU, measured by one command in a few minutes.

    python benchmarks/gpu.py                   # eight minutes at most; again, to go on
    python benchmarks/gpu.py --rehearse        # the same on a processor, with a small model

First the tests that a GPU decides, then seconds, memory and busy time of one logical step, in order
of worth: bases of the shapes of SmolLM2-135M, Llama-3.2-1B and Llama-2-7B with random weights
(bf16, NF4) on 512 and 2,048 random tokens, dpacc in one pass and in two, compiled and with Triton's
kernels where they run, beside PEFT, and Opacus and Opake if they are installed. Nothing is fetched,
and nothing of this project need be installed. Every finished cell is a line of `--out`/cells.jsonl
and is not measured again; gpu.json and gpu.md have all of them.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from gpu_sessions import ROOT, Results, Row, begin

VERSIONS = ("torch", "transformers", "peft", "bitsandbytes", "opacus", "opake")
TESTS = (
    "tests/dpacc/test_gpu.py",
    "tests/dpacc/layers/kernels",
    "tests/dpacc/randomness/test_aes_words.py",
    "tests/dpacc/randomness/test_device_noise.py",
)
TESTS_SECONDS = 180.0
"""For all of them at most."""
EXPECTED_SECONDS = 40.0
"""Of a cell, before any was measured: one that would not end in time is not begun."""


def run_tests(words: list[str], seconds: float) -> Row | None:
    """pytest on them: its last line and what failed; nothing if there was no time to end."""
    parallel = ["-n", "4"] if importlib.util.find_spec("xdist") else []
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", *parallel]
    try:
        ran = subprocess.run(
            [*command, *words], cwd=ROOT, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return None
    lines = ran.stdout.splitlines() or ran.stderr.splitlines()[-1:]
    bad = [line[:300] for line in lines if re.match("(FAILED|ERROR) ", line)]
    return {"said": lines[-1] if lines else "nothing", "bad": bad}


def measured(
    planned: list[Any], deadline: float, serve: Callable[[Connection], None]
) -> Iterator[tuple[Any, Row]]:
    """Each cell's row, until the time is over; the next process starts beside the present one."""
    context = multiprocessing.get_context("spawn")

    def start() -> tuple[Any, Connection]:
        here, there = multiprocessing.Pipe()
        process = context.Process(target=serve, args=(there,), daemon=True)
        process.start()
        there.close()
        return process, here

    longest = 0.0
    following = start()
    for at, cell in enumerate(planned):
        left = deadline - time.monotonic()
        if left < (longest or EXPECTED_SECONDS):
            break
        began = time.monotonic()
        (process, pipe), more = following, at + 1 < len(planned)
        try:
            row = _answer(pipe, deadline)
            following = start() if more else following
            if row == "ready":
                pipe.send(cell)
                row = _answer(pipe, deadline)
            if row == "warm":
                # Nobody imports while this one is timed; the answer stays for the next turn.
                if more:
                    following[1].poll(max(0.0, deadline - time.monotonic()))
                pipe.send(True)
                row = _answer(pipe, deadline)
        except TimeoutError:
            break
        finally:
            process.join(0 if deadline < time.monotonic() else 20)
            process.kill()
        longest = max(longest, time.monotonic() - began)
        yield cell, row
    following[0].kill()


def _answer(pipe: Connection, deadline: float) -> Any:
    if not pipe.poll(max(0.0, deadline - time.monotonic())):
        raise TimeoutError
    try:
        return pipe.recv()
    except EOFError:
        return {"failed": "the process died"}


def about() -> Row:
    """What was measured on."""
    import torch

    versions = {}
    for name in VERSIONS:
        if importlib.util.find_spec(name):
            versions[name] = importlib.metadata.version(name)
    on_gpu = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if on_gpu else platform.processor() or "processor",
        "memory_gib": torch.cuda.get_device_properties(0).total_memory / 2**30 if on_gpu else None,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
    }


def table(rows: list[Row]) -> str:
    """Markdown: one line a cell, ratios to PEFT as it comes on the same model and length."""
    same = ("shape", "base", "tokens", "checkpointing", "tokens_a_step")
    found = {json.dumps(row["cell"]): row for row in rows if "shape" in row["cell"]}
    floors = {
        tuple(row["cell"][name] for name in same): row
        for row in found.values()
        if row["cell"]["tool"] == "PEFT" and row["cell"]["compile"] == "none" and "seconds" in row
    }
    columns = ["model", "base", "tokens", "tool", "settings", "seconds", "× PEFT", "GiB", "× PEFT"]
    lines = [" | ".join([*columns, "GPU busy"]), " | ".join(["---"] * 10)]
    for row in found.values():
        cell = row["cell"]
        model = cell["shape"] + (", checkpointing" if cell["checkpointing"] else "")
        settings = f"{cell['kernels']}, compile {cell['compile']}"
        words = [model, cell["base"], str(cell["tokens"]), cell["tool"], settings]
        floor = floors.get(tuple(cell[name] for name in same))
        if "seconds" not in row:
            words += [row["failed"], *[""] * 4]
        else:
            for name, digits in (("seconds", 3), ("peak_gib", 2)):
                ratio = f"{row[name] / floor[name]:.2f}" if floor else ""
                words += [f"{row[name]:.{digits}f}", ratio]
            words.append(f"{row['busy']:.0%}")
        lines.append(" | ".join(words))
    return "".join(f"| {line} |\n" for line in lines)


def write_tables(folder: Path, rows: list[Row]) -> str:
    """gpu.json and gpu.md; the latter's text."""
    told = about()
    (folder / "gpu.json").write_text(json.dumps({**told, "rows": rows}, indent=1) + "\n")
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    tests = [row for row in rows if "tests" in row["cell"]]
    said = [f"`pytest {row['cell']['tests']}`: {row['said']}\n" for row in tests]
    said += [f"- {line}\n" for row in tests for line in row["bad"]]
    text = f"{told['device']}, {told['cores']} cores, {versions}\n\n{''.join(said)}\n{table(rows)}"
    (folder / "gpu.md").write_text(text)
    return text


def main() -> None:
    """Measure what is not known yet, in the time there is, and print the table."""
    rehearsed = "a small model, on what there is"
    asked, deadline = begin(__doc__ or "", out="runs/gpu", rehearsed=rehearsed)
    import gpu_cells
    import torch

    if not torch.cuda.is_available() and not asked.rehearse:
        sys.exit("error: no GPU here: give --rehearse to try the script on a processor")
    results = Results(asked.out)
    test(results, TESTS[:1] if asked.rehearse else TESTS, deadline)
    planned = all_cells(rehearse=asked.rehearse)
    left = [cell for cell in planned if not results.has(asdict(cell))]
    for cell, row in measured(left, deadline, gpu_cells.serve):
        results.keep(asdict(cell), row)
        print(
            f"{deadline - time.monotonic():4.0f} s left  {cell.name}: {in_words(row)}", flush=True
        )
        write_tables(asked.out, results.rows)
    print("\n" + write_tables(asked.out, results.rows))
    results.say_what_is_left([asdict(cell) for cell in planned])


def test(results: Results, names: Sequence[str], deadline: float) -> None:
    """Run the tests that a GPU decides, if they did not run to their end before."""
    cell = {"tests": " ".join(names)}
    if results.has(cell):
        return
    left = deadline - time.monotonic() - EXPECTED_SECONDS
    ran = run_tests([*names], min(left, TESTS_SECONDS))
    if ran is None:
        print(f"{cell['tests']}: did not end in time", flush=True)
    else:
        results.keep(cell, ran)
        print(ran["said"], *ran["bad"], sep="\n", flush=True)


def all_cells(*, rehearse: bool) -> list[Any]:
    """What can be measured with what is installed; of a small model, 64 tokens a step."""
    from gpu_cells import cells
    from random_text_steps import SETTINGS

    installed = {name: bool(importlib.util.find_spec(name)) for name in ("opake", "opacus")}
    settings = SETTINGS if on_gpu() else SETTINGS - {"kernels"}
    planned = cells(**installed, settings=settings)
    if not rehearse:
        return planned
    small = {"shape": "small", "tokens_a_step": 64, "seconds": 0.0}
    return list(dict.fromkeys(replace(cell, tokens=cell.tokens // 64, **small) for cell in planned))


def on_gpu() -> bool:
    """Whether Triton has a GPU here."""
    import torch

    return torch.cuda.is_available() and importlib.util.find_spec("triton") is not None


def in_words(row: Row) -> str:
    """Of one cell."""
    if "seconds" not in row:
        return str(row["failed"])
    return f"{row['seconds']:.3f} s, {row['peak_gib']:.2f} GiB, busy {row['busy']:.0%}"


if __name__ == "__main__":
    main()
