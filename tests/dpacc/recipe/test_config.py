"""A run's configuration is checked before anything heavy is loaded."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig, load_config

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((ROOT / "recipes/configs").glob("*.yaml"))
LEAST = {
    "model": "gpt2",
    "train_data": "notes.jsonl",
    "epsilon": 8.0,
    "expected_batch_size": 64,
    "steps": 20,
}


def configure(**changes):
    """A valid configuration with these changes; None for `steps` or `epochs` unsets it."""
    return TrainingConfig(**{**LEAST, **changes})


def test_there_are_shipped_configurations():
    """The tests below have something to parse."""
    assert "smollm2_reviews.yaml" in {path.name for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_are_valid(path):
    """Every YAML in recipes/configs parses into a TrainingConfig as it is."""
    assert load_config(arguments=["--config", str(path)]).epsilon > 0


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_carry_their_launch_line(path):
    """Each header holds the exact line that runs it, and the launch file in it exists."""
    header = path.read_text(encoding="utf-8").split("\n\n")[0]
    launch = re.search(r"accelerate launch --config_file (\S+) (\S+) --config (\S+)", header)
    assert launch is not None
    assert (ROOT / launch[1]).is_file()
    assert launch[2] == "recipes/train.py"
    assert launch[3] == str(path.relative_to(ROOT))


def test_the_demo_is_the_promised_one():
    """The demo asks for ε = 8, N^-1.1, twenty steps of 96 examples on average."""
    config = load_config(arguments=["--config", str(ROOT / "recipes/configs/smollm2_reviews.yaml")])
    assert (config.epsilon, config.delta, config.steps) == (8.0, None, 20)
    assert (config.expected_batch_size, config.lora_rank) == (96, 8)
    assert config.lora_target_modules == ("q_proj", "v_proj")
    assert config.learning_rate is None


def test_overrides_reach_the_configuration():
    """`--epsilon 4 --quantization nf4 --lora-rank 8` change exactly these."""
    path = str(SHIPPED[0])
    before = load_config(arguments=["--config", path])
    after = load_config(
        arguments=["--config", path, "--epsilon", "4", "--quantization=nf4", "--lora-rank", "3"]
    )
    assert after == dataclasses.replace(before, epsilon=4.0, quantization="nf4", lora_rank=3)


def test_the_configuration_is_frozen():
    """What was read cannot change during the run."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        configure().epsilon = 9.0


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"epsilon": 0.0}, ["epsilon=0.0", "above 0"]),
        ({"epsilon": -1.0}, ["epsilon=-1.0", "above 0"]),
        ({"delta": 0.0}, ["delta=0.0", "above 0"]),
        ({"delta": 1.0}, ["delta=1.0", "below 1"]),
        ({"expected_batch_size": 0}, ["expected_batch_size=0", "at least 1"]),
        ({"steps": 0}, ["steps=0", "at least 1"]),
        ({"steps": None}, ["epochs=None", "steps=None", "exactly one"]),
        ({"epochs": 3.0}, ["epochs=3.0", "steps=20", "exactly one"]),
        ({"steps": None, "epochs": 0.0}, ["epochs=0.0", "above 0"]),
        ({"max_grad_norm": 0.0}, ["max_grad_norm=0.0", "above 0"]),
        ({"lora_rank": 0}, ["lora_rank=0", "at least 1"]),
        ({"lora_dropout": 1.0}, ["lora_dropout=1.0", "below 1"]),
        ({"max_length": 1}, ["max_length=1", "at least 2"]),
        ({"learning_rate": 0.0}, ["learning_rate=0.0", "above 0"]),
        ({"warmup_steps": 20}, ["warmup_steps=20", "below steps=20"]),
        ({"micro_batch_tokens": 0}, ["micro_batch_tokens=0", "at least 1"]),
        ({"seed": -1}, ["seed=-1", "at least 0"]),
        ({"seed": 2**32}, ["seed=4294967296", "below 4294967296"]),
        ({"prompt_field": "question"}, ["prompt_field=question", "completion_field=None"]),
        ({"completion_field": "answer"}, ["completion_field=answer", "both or neither"]),
        (
            {"messages_field": "m", "prompt_field": "q", "completion_field": "a"},
            ["messages_field=m", "prompt_field=q", "one of them"],
        ),
        ({"answers": ("a", "b")}, ["answers=['a', 'b']", "completion_field", "--learn_end false"]),
        ({"answers": ("a", "a"), "learn_end": False}, ["answers=['a', 'a']", "two different"]),
        (
            {"lora_method": "dylora", "correlation": "banded"},
            ["correlation=banded", "lora_method=dylora", "--correlation none"],
        ),
        ({"lora_method": "whitened"}, ["lora_method=whitened", "held_out_data"]),
        ({"offload_activations": True}, ["offload_activations", "--gradient_checkpointing true"]),
        (
            {"offload_activations": True, "gradient_checkpointing": True, "compile": "blocks"},
            ["offload_activations", "compile=blocks", "--compile none"],
        ),
        ({"name": ""}, ["name=''", "folder name"]),
        ({"name": "a/b"}, ["name='a/b'", "output_dir"]),
        ({"name": ".."}, ["name='..'", "folder name"]),
    ],
)
def test_what_cannot_be_meant_is_refused(changes, parts):
    """A value outside its limits, or two that contradict each other, is a one-line error."""
    with pytest.raises(ConfigurationError) as refusal:
        configure(**changes)
    message = str(refusal.value)
    assert all(part in message for part in parts), message
    assert "\n" not in message


def test_delta_defaults_to_a_little_less_than_one_over_n():
    """δ = N^-1.1 when none is set, and the set one otherwise."""
    assert configure().delta_for(dataset_size=9603) == pytest.approx(9603**-1.1)
    assert configure(delta=1e-6).delta_for(dataset_size=9603) == 1e-6


def test_every_setting_says_what_it_means():
    """No field is left without words for --help."""
    fields = dataclasses.fields(TrainingConfig)
    assert len(fields) > 20
    assert all(len(field.metadata["meaning"]) > 10 for field in fields)


def test_reading_a_configuration_loads_no_torch():
    """Bad settings are refused in well under a second, for torch is not imported."""
    heavy = "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    code = f"import sys, dpacc.recipe.config; {heavy}"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
