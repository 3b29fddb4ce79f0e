"""The benchmarks of GPUs run on a processor: their cells, their clock and what is kept of them."""

from __future__ import annotations

import importlib
import json
import sys
import time
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from click.testing import CliRunner

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A benchmark by its name, as beside the others."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def gpu(load: Any) -> ModuleType:
    """The script of one GPU."""
    found: ModuleType = load("gpu")
    return found


@pytest.mark.parametrize(
    ("base", "tool", "checkpointing"),
    [("bf16", "PEFT", True), ("NF4", "dpacc", False), ("bf16", "dpacc ghost", True)],
)
def test_a_cell_runs(load: Any, base: str, tool: str, checkpointing: bool) -> None:
    """On a small model: at least three timed steps after the go-ahead, memory and busy time."""
    cells = load("gpu_cells")
    cell = cells.Cell(
        shape="small",
        base=base,
        tool=tool,
        tokens=8,
        checkpointing=checkpointing,
        tokens_a_step=16,
        seconds=0.0,
    )
    waited: list[bool] = []
    row = cells.measure(cell, lambda: waited.append(True))
    assert waited == [True]
    assert row["steps"] == 3
    assert 0 < row["fastest"] <= row["seconds"] <= row["slowest"]
    assert row["peak_gib"] > 0
    assert row["busy"] > 0


def test_busy_time_counts_what_overlaps_once(load: Any) -> None:
    """Nested, overlapping and separate operations in any order."""
    covered = load("gpu_cells").covered
    assert covered([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (1.5, 1.6)]) == 4.0
    assert covered([]) == 0.0


def test_every_cell_names_a_tool_and_none_comes_twice(load: Any) -> None:
    """Opake, which knows no quantized base, is asked for none; compiled only where that is."""
    steps, cells = load("random_text_steps"), load("gpu_cells")
    everything = cells.cells(opake=True, opacus=True, settings=("compile", "kernels"))
    assert {cell.tool for cell in everything} == set(steps.TOOLS)
    assert len(set(everything)) == len(everything)
    assert not [c for c in everything if c.tool == "Opake" and c.base == "NF4"]
    fewest = cells.cells(opake=False, opacus=False, settings=())
    assert {cell.tool for cell in fewest} == {"PEFT", "dpacc", "dpacc ghost"}
    assert {cell.tool for cell in fewest if cell.compile != "none"} == {"PEFT"}


def test_a_plan_has_what_makes_dpacc_faster(gpu: ModuleType) -> None:
    """Compiled blocks everywhere, Triton's kernels where a GPU has them."""
    ours = [cell for cell in gpu.all_cells(rehearse=True) if cell.tool == "dpacc"]
    assert {cell.compile for cell in ours} == {"none", "blocks"}
    assert {cell.kernels for cell in ours} == {"torch", *(["triton"] if gpu.on_gpu() else [])}


class AskedError(Exception):
    """In place of an engine that is made, with what it is told."""


def engine(*_: Any, **settings: Any) -> None:
    """One that is never made."""
    raise AskedError(settings["compile"], settings["kernels"])


def test_what_a_cell_sets_reaches_the_engine(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled, and whose kernels; alone, and under a launch."""
    steps, launched = load("random_text_steps"), load("launched_steps")
    for script in (steps, launched):
        monkeypatch.setattr(script, "PrivacyEngine", engine)
    asked = {"compile": "blocks", "kernels": "triton"}
    work = steps.Work(examples=2, tokens=4, steps=1, micro_batch_tokens=8, **asked)
    with pytest.raises(AskedError) as alone:
        next(steps.TOOLS["dpacc"](torch.nn.Linear(1, 1), work))
    assert alone.value.args == ("blocks", "triton")
    words = "--shape small --base fp32 --compile blocks --kernels triton"
    ran = CliRunner().invoke(launched.main, words.split())
    assert isinstance(ran.exception, AskedError)
    assert ran.exception.args == ("blocks", "triton")


def server(pipe: Connection) -> None:
    """A cell's process without a model: it does what its cell says."""
    pipe.send("ready")
    told = pipe.recv()
    if told == "dies":
        return
    if told == "hangs":
        pipe.recv()
    pipe.send("warm")
    pipe.recv()
    pipe.send({"seconds": told})


def test_cells_are_measured_until_the_time_is_over(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies is told of; one that hangs at the end is not waited for."""
    # Another test may have put a script in its place, which each process would begin with.
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    gpu.EXPECTED_SECONDS = 1.0
    rows = list(gpu.measured([1.5, "dies"], time.monotonic() + 600, server))
    assert rows == [(1.5, {"seconds": 1.5}), ("dies", {"failed": "the process died"})]
    assert list(gpu.measured(["hangs", 1.5], time.monotonic() + 3, server)) == []
    assert list(gpu.measured([1.5], time.monotonic(), server)) == []


def stillborn(pipe: Connection) -> None:
    """A process that ends before it is ready, as where a package cannot be imported."""
    pipe.close()


def test_a_process_that_never_was_ready_costs_its_cell_alone(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent to it, which would end the whole measurement."""
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    rows = list(gpu.measured([1.5, 2.5], time.monotonic() + 600, stillborn))
    assert rows == [(cell, {"failed": "the process died"}) for cell in (1.5, 2.5)]


def test_a_finished_cell_is_not_measured_again(gpu: ModuleType, tmp_path: Path) -> None:
    """Nor one that found no room; whatever else failed is tried again."""
    first, second, third = ({"shape": name} for name in "abc")
    results = gpu.Results(tmp_path / "new")
    results.keep(first, {"seconds": 1.0})
    results.keep(second, {"failed": "out of memory"})
    results.keep(third, {"failed": "the process died"})
    again = gpu.Results(tmp_path / "new")
    assert [again.has(cell) for cell in (first, second, third)] == [True, True, False]
    again.keep(third, {"seconds": 2.0})
    assert again.has(third)
    assert again.rows[0] == {"cell": first, "seconds": 1.0}


def test_the_table_compares_with_peft(gpu: ModuleType, load: Any, tmp_path: Path) -> None:
    """Of the same model, base and length; tests stand above it."""
    one = {"shape": "small", "base": "bf16", "tokens": 8}
    cells = [load("gpu_cells").Cell(**one, tool=tool) for tool in ("PEFT", "dpacc", "Opacus hooks")]
    told = [(2.0, 4.0, 0.5), (1.0, 3.0, 0.96), None]
    rows = [{"cell": {"tests": "test_gpu.py"}, "said": "1 failed", "bad": ["FAILED it"]}]
    for cell, each in zip(cells, told, strict=True):
        row = {"failed": "out of memory"} if each is None else dict(
            zip(("seconds", "peak_gib", "busy"), each, strict=True)
        )  # fmt: skip
        rows.append({"cell": asdict(cell), **row})
    text = gpu.write_tables(tmp_path, rows)
    assert (
        "| small | bf16 | 8 | dpacc | torch, compile none | 1.000 | 0.50 | 3.00 | 0.75 | 96% |"
        in text
    )
    assert "| Opacus hooks | torch, compile none | out of memory |" in text
    assert text.index("1 failed") < text.index("FAILED it") < text.index("| model |")
    assert json.loads((tmp_path / "gpu.json").read_text())["rows"] == rows


def test_what_is_missing_is_named_in_one_line(
    gpu: ModuleType, load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With how to install it."""
    monkeypatch.setitem(load("gpu_sessions").NEEDED, "nowhere_to_be_found", "nowhere")
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    for script in (gpu, load("many_gpus")):
        with pytest.raises(SystemExit) as end:
            script.main()
        assert end.value.code == "error: not installed here: pip install nowhere"


def test_every_launch_is_one_that_can_be_started(load: Any) -> None:
    """Its file is in launch_configs, its options are the measured script's."""
    many, launched = load("many_gpus"), load("launched_steps")
    known = {word for option in launched.main.params for word in option.opts}
    for cell in many.cells(gpus=8, settings=("compile", "kernels"), deepspeed=True):
        for rehearse in (False, True):
            words = many.launch(cell, rehearse=rehearse)
            script = words.index("benchmarks/launched_steps.py")
            assert (many.ROOT / words[words.index("--config_file") + 1]).exists()
            assert {word for word in words[script + 1 :] if word.startswith("--")} <= known


@pytest.mark.parametrize(
    ("program", "row"),
    [
        ('print("x"); print(\'{"seconds": 1}\')', {"seconds": 1}),
        ("raise ValueError('why')", {"failed": "ValueError: why"}),
        ("raise Exception('torch.OutOfMemoryError')", {"failed": "out of memory"}),
        ("import signal; signal.pause()", None),
    ],
)
def test_a_launch_ends_in_a_row(
    load: Any, monkeypatch: pytest.MonkeyPatch, program: str, row: Any
) -> None:
    """The last line that is one; else the error; nothing where it did not end in time."""
    many = load("many_gpus")
    monkeypatch.setattr(many, "launch", lambda *_, **__: [sys.executable, "-c", program])
    seconds = 0.5 if row is None else 600
    found = many.measure({}, rehearse=True, seconds=seconds)
    assert found == row


@pytest.mark.parametrize("tool", ["dpacc", "PEFT"])
def test_launched_steps_say_what_they_took(load: Any, tool: str) -> None:
    """Alone on a processor, in one line that the tables read."""
    words = f"--shape small --base fp32 --examples 2 --tokens 4 --steps 2 --json --tool {tool}"
    ran = CliRunner().invoke(load("launched_steps").main, words.split(), catch_exceptions=False)
    said = [line for line in ran.output.splitlines() if line.startswith('{"seconds"')]
    found = json.loads(said[0])
    assert found["ranks"] == 1
    assert found["examples_per_second"] == pytest.approx(2 / found["seconds"])
