"""Two to eight GPUs of one machine, measured by one command in a few minutes.

    python benchmarks/many_gpus.py              # eight minutes at most; again, to go on
    python benchmarks/many_gpus.py --rehearse   # two processes of a processor, a small model

`launched_steps.py` under each launch of `launch_configs/` that suits, in order of worth: what one
GPU and all of them train of the same logical batch, dpacc beside PEFT where nothing is cut, and how
much the fullest rank holds where the base is cut. Nothing is fetched. Every finished cell is a line
of `--out`/cells.jsonl and is not measured again; many_gpus.md has all of them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Collection

from gpu_sessions import ROOT, Results, Row, begin

EXPECTED_SECONDS = 45.0
"""Of a launch, before any was measured."""


def cells(*, gpus: int, settings: Collection[str], deepspeed: bool) -> list[Row]:
    """All launches, those of most worth first.

    Args:
        gpus: how many there are.
        settings: of dpacc's engine, among "compile" and "kernels".
        deepspeed: whether it is installed.
    """
    cuts = ["fsdp2", *(["deepspeed_zero3", "deepspeed_zero2"] if deepspeed else [])]
    asked: list[Row] = []
    for shape in ("llama-7b", "smollm2-135m"):
        one: Row = {"shape": shape, "base": "bf16", "tokens": 512}
        one |= {"compile": "none", "kernels": "torch"}
        asked += [
            {**one, "launch": "ddp", "ranks": ranks, "tool": tool}
            for ranks in (gpus, 1)
            for tool in ("dpacc", "PEFT")
        ]
        asked += [{**one, "launch": cut, "ranks": gpus, "tool": "dpacc"} for cut in cuts]
    first = asked[0]
    asked += [{**first, "ranks": gpus // 2}] if gpus > 2 else []
    asked += [{**first, "base": "NF4", "ranks": ranks} for ranks in (gpus, 1)]
    asked += [{**first, "tokens": 2048}]
    faster = {"compile": "blocks", "kernels": "triton"}
    asked += [{**first, name: faster[name]} for name in sorted(settings)]
    return asked


def launch(cell: Row, *, rehearse: bool) -> list[str]:
    """The line that measures a cell. One rank is started as any other number."""
    config = "single_gpu" if cell["ranks"] == 1 else cell["launch"]
    if rehearse:
        config = "cpu" if cell["ranks"] == 1 else "cpu_2proc"
    words = [sys.executable, "-m", "accelerate.commands.launch"]
    words += ["--config_file", f"launch_configs/{config}.yaml"]
    words += ["--num_processes", str(cell["ranks"]), "benchmarks/launched_steps.py", "--json"]
    for name in ("shape", "base", "tool", "tokens", "compile", "kernels"):
        words += [f"--{name}", str(cell[name])]
    return [*words, *(["--examples", "4", "--steps", "3"] if rehearse else [])]


def measure(cell: Row, *, rehearse: bool, seconds: float) -> Row | None:
    """One launch's row; none if it did not end in time."""
    environment = os.environ | {"OMP_NUM_THREADS": "1" if rehearse else "4"}
    process = subprocess.Popen(
        launch(cell, rehearse=rehearse),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said, wrong = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)  # the ranks too
        process.communicate()
        return None
    found = [line for line in said.splitlines() if line.startswith('{"seconds"')]
    if process.returncode == 0 and found:
        row: Row = json.loads(found[-1])
        return row
    if "OutOfMemoryError" in wrong:
        return {"failed": "out of memory"}
    errors = [line.split("]:")[-1].strip() for line in wrong.splitlines() if "Error" in line]
    return {"failed": (errors or wrong.splitlines() or ["no output"])[0][:300]}


def table(rows: list[Row]) -> str:
    """Markdown: one line a cell; × is the rate over that of the same work on one rank."""
    same = ("shape", "base", "tokens", "compile", "kernels", "tool")
    latest = {json.dumps(row["cell"]): row for row in rows}.values()
    alone = {
        tuple(row["cell"][name] for name in same): row
        for row in latest
        if row["cell"]["ranks"] == 1 and "seconds" in row
    }
    columns = ["model", "base", "tokens", "tool", "settings", "launch", "GPUs"]
    columns += ["seconds", "examples/s", "× one", "GiB on the fullest"]
    lines = [" | ".join(columns), " | ".join(["---"] * len(columns))]
    for row in latest:
        cell = row["cell"]
        words = [cell["shape"], cell["base"], str(cell["tokens"]), cell["tool"]]
        words += [f"{cell['kernels']}, compile {cell['compile']}"]
        words += [cell["launch"], str(cell["ranks"])]
        one = alone.get(tuple(cell[name] for name in same))
        if "seconds" in row:
            rate = row["examples_per_second"]
            ratio = f"{rate / one['examples_per_second']:.2f}" if one else ""
            words += [f"{row['seconds']:.3f}", f"{rate:.2f}", ratio, f"{row['peak_gib']:.2f}"]
        else:
            words += [row["failed"], "", "", ""]
        lines.append(" | ".join(words))
    return "".join(f"| {line} |\n" for line in lines)


def main() -> None:
    """Measure what is not known yet, in the time there is, and print the table."""
    rehearsed = "a small model, two processes"
    asked, deadline = begin(__doc__ or "", out="runs/many_gpus", rehearsed=rehearsed)
    import torch
    from random_text_steps import SETTINGS

    gpus = 2 if asked.rehearse else torch.cuda.device_count()
    if gpus < 2:
        sys.exit(f"error: {gpus} GPUs here, and two are needed: give --rehearse to try the script")
    planned = cells(
        gpus=gpus, settings=SETTINGS, deepspeed=bool(importlib.util.find_spec("deepspeed"))
    )
    if asked.rehearse:
        small = [{**cell, "shape": "small", "base": "fp32", "tokens": 16} for cell in planned]
        planned = [cell for at, cell in enumerate(small) if cell not in small[:at]]
        planned = [
            cell for cell in planned if cell["launch"] == "ddp" and cell["kernels"] == "torch"
        ]
    results = Results(asked.out)
    longest = EXPECTED_SECONDS
    for cell in planned:
        left = deadline - time.monotonic()
        if results.has(cell) or left < longest:
            continue
        row = measure(cell, rehearse=asked.rehearse, seconds=left)
        if row is None:
            break
        results.keep(cell, row)
        longest = max(longest, left - (deadline - time.monotonic()))
        words = ", ".join(str(value) for value in cell.values())
        told = row.get("failed") or f"{row['seconds']:.3f} s, {row['peak_gib']:.2f} GiB"
        print(f"{deadline - time.monotonic():4.0f} s left  {words}: {told}", flush=True)
        (asked.out / "many_gpus.md").write_text(table(results.rows))
    print("\n" + table(results.rows))
    results.say_what_is_left(planned)


if __name__ == "__main__":
    main()
