"""Every shipped launch configuration is one that Accelerate takes, and starts what it says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

ROOT = Path(__file__).parents[1]
SHIPPED = sorted((ROOT / "launch_configs").glob("*.yaml"))

REPORT = """\
import json, os, sys, torch
from functools import partial
from pathlib import Path
from accelerate import Accelerator
from transformers import LlamaConfig, LlamaForCausalLM
from dpacc.data import pad_examples
from dpacc.evaluation import held_out_perplexity

accelerator = Accelerator(cpu=True)
torch.manual_seed(0)
config = LlamaConfig(vocab_size=50, hidden_size=32, intermediate_size=32,
                     num_hidden_layers=1, num_attention_heads=2, initializer_range=0.3)
examples = [{"input_ids": list(range(n)), "labels": list(range(n))} for n in range(2, 30)]
perplexity = held_out_perplexity(
    model=LlamaForCausalLM(config), examples=examples, max_tokens=64, accelerator=accelerator,
    collate=partial(pad_examples, pad_token_id=0),
)
grouped = torch.distributed.is_initialized()
Path(sys.argv[1], f"rank-{accelerator.process_index}.json").write_text(json.dumps({
    "ranks": accelerator.num_processes,
    "backend": torch.distributed.get_backend() if grouped else None,
    "device": accelerator.device.type,
    "threads": torch.get_num_threads(),
    "perplexity": perplexity,
}))
accelerator.end_training()
"""


def launch(name, folder):
    """Start a script that reports on its rank, and return every rank's report."""
    script = folder / "report.py"
    script.write_text(REPORT)
    reports = folder / name
    reports.mkdir()
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    command += [str(ROOT / f"launch_configs/{name}.yaml"), str(script), str(reports)]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("ACCELERATE_")}
    environment = {**clean, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=180)
    return [json.loads(path.read_text()) for path in sorted(reports.iterdir())]


def test_the_shipped_set_is_complete():
    """One process and two on a processor, one GPU, and eight."""
    assert {"cpu", "cpu_2proc", "single_gpu", "ddp"} <= {path.stem for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_accelerate_takes_it(path):
    """Accelerate's own loader reads it and knows every key."""
    config = load_config_from_file(str(path))
    assert config.num_processes >= 1
    assert config.mixed_precision == "no"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_its_header_carries_its_launch_line(path):
    """The line names this file, the recipe, and a configuration that exists."""
    header = path.read_text(encoding="utf-8").split("compute_environment")[0]
    launch = re.search(r"accelerate launch --config_file (\S+) (\S+) --config (\S+)", header)
    assert launch is not None
    assert launch[1] == str(path.relative_to(ROOT))
    assert launch[2] == "recipes/train.py"
    assert (ROOT / launch[3]).is_file()


@pytest.mark.parametrize(
    ("name", "processes"), [("cpu", 1), ("cpu_2proc", 2), ("single_gpu", 1), ("ddp", 8)]
)
def test_it_asks_for_as_many_processes_as_it_says(name, processes):
    """The number of processes is the one its name and header promise."""
    config = load_config_from_file(str(ROOT / f"launch_configs/{name}.yaml"))
    assert config.num_processes == processes
    assert config.use_cpu is (name == "cpu")


def test_the_cpu_launches_start_the_ranks_they_promise(tmp_path):
    """cpu starts one process; cpu_2proc really starts two gloo ranks, which agree with the one.

    A MULTI_CPU configuration would silently start one where mpirun is missing.
    """
    (alone,) = launch("cpu", tmp_path)
    both = launch("cpu_2proc", tmp_path)
    assert (alone["ranks"], alone["backend"], alone["device"]) == (1, None, "cpu")
    assert [report["ranks"] for report in both] == [2, 2]
    assert {report["backend"] for report in both} == {"gloo"}
    assert {report["device"] for report in both} == {"cpu"}
    assert {report["threads"] for report in [alone, *both]} == {1}
    assert both[0]["perplexity"] == both[1]["perplexity"]
    assert both[0]["perplexity"] == pytest.approx(alone["perplexity"], rel=1e-5)
