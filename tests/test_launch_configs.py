"""Every shipped launch configuration is one that Accelerate takes, and starts what it says."""

import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import FullyShardedDataParallelPlugin
from dpacc_accounting import read_ledger
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.ranks import require_success
from tests.tiny_models import save_tiny_llama

ROOT = Path(__file__).parents[1]
SHIPPED = sorted((ROOT / "launch_configs").glob("*.yaml"))

WORDS = ["the", "film", "was", "dull", "but", "its", "music", "and", "every", "face", "a", "joy"]
PROCESSES = {
    "cpu": 1,
    "cpu_2proc": 2,
    "single_gpu": 1,
    "ddp": 8,
    "deepspeed_zero1": 8,
    "deepspeed_zero2": 8,
    "deepspeed_zero3": 8,
    "fsdp2": 8,
    "multi_node": 32,
}

REPORT = """\
import json, os, runpy, sys, torch
from pathlib import Path
from accelerate import Accelerator

def report(accelerator):
    grouped = torch.distributed.is_initialized()
    Path(os.environ["REPORTS"], f"rank-{accelerator.process_index}.json").write_text(json.dumps({
        "ranks": accelerator.num_processes,
        "backend": torch.distributed.get_backend() if grouped else None,
        "device": accelerator.device.type,
        "threads": torch.get_num_threads(),
    }))
    end(accelerator)

end, Accelerator.end_training = Accelerator.end_training, report
if sys.argv[1:]:
    runpy.run_path("recipes/train.py", run_name="__main__")
else:
    Accelerator(cpu=True).end_training()
"""
"""What each rank was, told as it ends: the recipe's, or one that has done nothing else."""


def launch(name, folder, *arguments):
    """Start the recipe, or nothing, and return every rank's report and what was printed."""
    script, reports = folder / "report.py", folder / name
    script.write_text(REPORT)
    reports.mkdir()
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    command += [str(ROOT / f"launch_configs/{name}.yaml"), str(script), *arguments]
    environment = clean_environment() | {"REPORTS": str(reports)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200
    )
    require_success(done)
    return [json.loads(path.read_text()) for path in sorted(reports.iterdir())], done.stdout


def clean_environment():
    """This one without the tests' own launch settings."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("ACCELERATE_")}
    return {**clean, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def test_the_shipped_set_is_complete():
    """From one process on a processor to four machines, with each way to cut over GPUs."""
    assert {path.stem for path in SHIPPED} == set(PROCESSES)


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
    launch = re.search(
        r"accelerate launch --config_file (\S+) (?:--machine_rank 0 "
        r"--main_process_ip \S+ )?(\S+) --config (\S+)",
        header,
    )
    assert launch is not None
    assert launch[1] == str(path.relative_to(ROOT))
    assert launch[2] == "recipes/train.py"
    assert (ROOT / launch[3]).is_file()


@pytest.mark.parametrize(("name", "processes"), list(PROCESSES.items()))
def test_it_asks_for_as_many_processes_as_it_says(name, processes):
    """The number of processes is the one its name and header promise."""
    config = load_config_from_file(str(ROOT / f"launch_configs/{name}.yaml"))
    assert config.num_processes == processes
    assert config.use_cpu is (name == "cpu")
    assert config.num_machines == (4 if name == "multi_node" else 1)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_deepspeed_gets_what_the_engine_runs_under(stage):
    """Each DeepSpeed configuration is of its stage, and DeepSpeed neither accumulates nor clips."""
    config = load_config_from_file(str(ROOT / f"launch_configs/deepspeed_zero{stage}.yaml"))
    assert config.distributed_type == "DEEPSPEED"
    assert config.deepspeed_config["zero_stage"] == stage
    assert config.deepspeed_config["gradient_accumulation_steps"] == 1
    assert "gradient_clipping" not in config.deepspeed_config
    assert config.deepspeed_config["offload_optimizer_device"] == "none"


def test_every_fsdp_setting_is_one_that_accelerate_knows():
    """No key is misspelt, version 2 is chosen, and nothing asks for what the engine refuses."""
    config = load_config_from_file(str(ROOT / "launch_configs/fsdp2.yaml"))
    known = {field.name for field in fields(FullyShardedDataParallelPlugin)}
    renamed = {"offload_params": "cpu_offload", "version": "fsdp_version"}
    names = {key.removeprefix("fsdp_") for key in config.fsdp_config}
    assert {renamed.get(name, name) for name in names} <= known
    assert config.fsdp_config["fsdp_version"] == 2
    assert config.fsdp_config["fsdp_offload_params"] is False
    assert config.fsdp_config["fsdp_activation_checkpointing"] is False


def run_of(folder, **changes):
    """The arguments of a run on a tiny model and little texts."""
    save_tiny_llama(folder / "model", words=WORDS)
    for name, count in (("private", 60), ("held_out", 9)):
        first = "" if name == "private" else f"{WORDS[-1]} "
        rows = ({"text": first + " ".join(WORDS[i % 5 : i % 5 + 2 + i % 6])} for i in range(count))
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
    settings = {
        "model": folder / "model",
        "train_data": folder / "private.jsonl",
        "held_out_data": folder / "held_out.jsonl",
        "output_dir": folder,
        "name": "run",
        "epsilon": 8,
        "expected_batch_size": 12,
        **changes,
    }
    return [text for name, value in settings.items() for text in (f"--{name}", str(value))]


def test_the_recipe_runs_under_zero3(tmp_path):
    """Two ranks that hold half the model each evaluate, train, and save whole adapters."""
    arguments = run_of(
        tmp_path,
        steps=2,
        micro_batch_tokens=16,
        gradient_checkpointing="true",
        learning_rate=0.1,
    )
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2"]
    command += ["--config_file", str(ROOT / "launch_configs/deepspeed_zero3.yaml")]
    done = subprocess.run(
        [*command, str(ROOT / "recipes/train.py"), *arguments],
        cwd=ROOT,
        env=clean_environment() | {"DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    require_success(done)
    assert len(read_ledger(path=tmp_path / "run/ledger.jsonl").releases) == 2
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    adapted = PeftModel.from_pretrained(base, tmp_path / "run")
    learned = [p for name, p in adapted.named_parameters() if "lora_B" in name]
    assert len(learned) > 4
    assert all(p.abs().sum() > 0 for p in learned)


def test_the_cpu_launches_start_the_ranks_they_promise(tmp_path):
    """cpu starts one process; cpu_2proc really starts two gloo ranks, and they train one adapter.

    A MULTI_CPU configuration would silently start one where mpirun is missing. The recipe charges
    each step once, speaks once and saves once.
    """
    (alone,), _ = launch("cpu", tmp_path)
    arguments = run_of(tmp_path, steps=4, evaluate_every=2, dtype="float32")
    both, printed = launch("cpu_2proc", tmp_path, *arguments)
    assert (alone["ranks"], alone["backend"], alone["device"]) == (1, None, "cpu")
    assert [report["ranks"] for report in both] == [2, 2]
    assert {report["backend"] for report in both} == {"gloo"}
    assert {report["device"] for report in both} == {"cpu"}
    assert {report["threads"] for report in [alone, *both]} == {1}
    assert printed.count("Private fine-tuning") == 1
    releases = read_ledger(path=tmp_path / "run/ledger.jsonl").releases
    assert [release.step for release in releases] == [0, 1, 2, 3]
    assert (tmp_path / "run/adapter_model.safetensors").exists()
