"""`dpacc plan`: a table, a document, and errors that say what to do."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from dpacc_accounting.factorization.banded import relative_error

from dpacc.cli.subcommands.launch_line import line_for
from dpacc.recipe.assembly import plan_for, workload_of
from dpacc.recipe.config import load_config
from tests.cli.conftest import Run
from tests.tiny_models import CONFIGURATIONS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration of a tiny model and ten examples."""
    CONFIGURATIONS["llama"].save_pretrained(tmp_path / "model")
    (tmp_path / "train.jsonl").write_text('{"text": "a secret"}\n' * 10)
    path = tmp_path / "run.yaml"
    path.write_text(
        f"model: {tmp_path}/model\ntrain_data: {tmp_path}/train.jsonl\nmax_length: 32\n"
        "epsilon: 8\nexpected_batch_size: 4\nsteps: 3\n"
    )
    return path


def test_an_owner_in_two_spellings_is_refused(dpacc: Run, config: Path, tmp_path: Path) -> None:
    """Units are counted as the run would count them."""
    records = [{"text": "a secret", "who": who} for who in ("Ann", "ann ", "Bob")]
    lines = "".join(json.dumps(each) + "\n" for each in records)
    (tmp_path / "train.jsonl").write_text(lines)
    outcome = dpacc("plan", config, "--unit_field", "who")
    assert outcome.code == 2
    assert "differ only in case" in outcome.err
    assert "Ann" not in outcome.err


def test_people_are_priced_both_ways(dpacc: Run, config: Path, tmp_path: Path) -> None:
    """Units drawn and examples drawn, at as many gradients, and when which is the better."""
    records = [{"text": "a secret", "who": place % 20} for place in range(100)]
    lines = "".join(json.dumps(each) + "\n" for each in records)
    (tmp_path / "train.jsonl").write_text(lines)
    asked = ("plan", config, "--unit_field", "who", "--unit_cap", 4, "--gpus", 0)
    outcome = dpacc(*asked, "--json")
    assert outcome.code == 0, outcome.err
    said = json.loads(outcome.out)
    both = said["unit_sampling"]
    assert (said["dataset_size"], both["units"]["expected_batch_size"]) == (20, 4)
    assert both["units"]["noise_multiplier"] == said["noise_multiplier"]
    assert both["examples"]["expected_batch_size"] == 16
    assert 0.5 < both["break_even"] < 1
    assert both["better"] == "either"
    drawn = json.loads(dpacc(*asked, "--sampling", "examples", "--json").out)
    assert drawn["dataset_size"] == 80
    table = dpacc(*asked)
    for words in ("One who, several examples", "whos drawn", "examples drawn", "of a single one"):
        assert words in table.out
    assert "unit_sampling" not in json.loads(dpacc("plan", config, "--json").out)


def test_the_document_holds_the_plan(dpacc: Run, config: Path) -> None:
    """Examples are counted, settings overridden, four ways to spread it priced."""
    outcome = dpacc("plan", config, "--gpus", 4, "--lora_rank", 4, "--json")
    assert outcome.code == 0, outcome.err
    said = json.loads(outcome.out)
    assert said["dataset_size"] == 10
    assert said["noise_multiplier"] > 0
    assert said["guarantee"]["epsilon"] <= 8
    assert set(said["spreads"]) == {"whole", "zero2", "zero3", "fsdp2"}
    for spread in said["spreads"].values():
        assert sum(spread["parts_bytes"].values()) == spread["peak_bytes"] > 0
        assert spread["sent_bytes_per_step"]["bf16"] < spread["sent_bytes_per_step"]["fp32"]
    more = json.loads(dpacc("plan", config, "--lora_rank", 8, "--json").out)
    assert more["trainable_parameters"] == 2 * said["trainable_parameters"]
    assert "secret" not in outcome.out


def test_the_table_ends_with_a_launch_line(dpacc: Run, config: Path) -> None:
    """Noise, memory by part, and the line that starts the run."""
    outcome = dpacc("plan", config, "--gpus", 0)
    assert outcome.code == 0, outcome.err
    for words in ("noise multiplier σ", "add-or-remove", "optimizer", "launch_configs/cpu.yaml"):
        assert words in outcome.out
    assert "times the longest that the mean gradient" in " ".join(outcome.out.split())


def test_memory_is_told_by_part(dpacc: Run, config: Path) -> None:
    """What is kept of each example and what does not grow with them have names of their own."""
    told = json.loads(dpacc("plan", config, "--gpus", 4, "--json").out)
    always = {"runtime", "base", "adapters", "optimizer", "clipped sum", "per-example gradients"}
    for name, spread in told["spreads"].items():
        assert spread["moment"] == "micro-batch"
        gathered = {"gathered"} if name in ("zero3", "fsdp2") else set()
        rest = {"noise", "activations", "logits and losses", "backward"}
        assert set(spread["parts_bytes"]) == always | rest | gathered
    one, ghost = (
        json.loads(dpacc("plan", config, "--per_example_gradients", way, "--json").out)
        for way in ("materialize", "ghost")
    )
    kept = "per-example gradients"
    trainable, examples = one["trainable_parameters"], one["micro_batch"]["examples"]
    parts = one["spreads"]["whole"]["parts_bytes"]
    assert parts["adapters"] == 4 * trainable
    assert parts["optimizer"] == 8 * trainable
    assert 0 < parts[kept] <= 4 * trainable * examples
    assert ghost["spreads"]["whole"]["parts_bytes"][kept] == 0


def test_one_sum_a_step_crosses_between_ranks(dpacc: Run, config: Path) -> None:
    """A ring of n ranks sends (n−1)/n of twice the sum in fp32, and of 4 + 2 bytes in bf16."""
    told = json.loads(dpacc("plan", config, "--gpus", 4, "--json").out)
    width, sent = told["trainable_parameters"], told["spreads"]["whole"]["sent_bytes_per_step"]
    assert sent == {"fp32": 8 * width * 3 // 4, "bf16": 6 * width * 3 // 4}


def test_time_follows_the_rates(dpacc: Run, config: Path) -> None:
    """Operations at the rate of the device, half as long at twice the rate, then what is sent."""
    slow, fast, sending = (
        json.loads(dpacc("plan", config, *words, "--json").out)
        for words in (
            ("--gpus", 0),
            ("--gpus", 1, "--tflops", 0.2),
            ("--gpus", 2, "--tflops", 0.2, "--network", 1e-3),
        )
    )
    assert [each["assumed"]["sustained_tflops"] for each in (slow, fast)] == [0.1, 0.2]
    arithmetic = slow["spreads"]["whole"]["seconds_per_step"] / 2
    assert fast["spreads"]["whole"]["seconds_per_step"] == pytest.approx(arithmetic)
    whole, batches = sending["spreads"]["whole"], sending["micro_batch"]
    assert batches["per_logical_step_and_rank"] == 1
    assert whole["seconds_per_step"] == pytest.approx(
        arithmetic + whole["sent_bytes_per_step"]["fp32"] / 1e6
    )


def test_the_launch_line_repeats_what_was_overridden(dpacc: Run, config: Path) -> None:
    """A plan for another ε than the configuration's is launched with that ε."""
    told = json.loads(dpacc("plan", config, "--json", "--epsilon", "3").out)
    assert told["guarantee"]["epsilon"] <= 3
    assert told["launch"]["line"].endswith(f"--config {config} --epsilon 3")


def test_the_document_recommends_a_launch(dpacc: Run, config: Path) -> None:
    """A file that exists, why, and a line that names file and configuration; null if none fits."""
    told = json.loads(dpacc("plan", config, "--gpus", 16, "--json").out)
    launch = told["launch"]
    assert set(launch) == {"file", "why", "line"}
    assert launch["file"] == "launch_configs/multi_node.yaml"
    assert (ROOT / launch["file"]).is_file()
    words = shlex.split(launch["line"])
    assert words[:3] == ["dpacc", "train", "--launch"]
    assert words[4:] == ["--config", str(config)]
    started = line_for(recipe="train", launch=words[3], settings=words[4:])
    assert str(ROOT / launch["file"]) in started
    assert started[-3:] == [str(ROOT / "recipes/train.py"), "--config", str(config)]
    told = json.loads(dpacc("plan", config, "--memory-per-gpu", "100MB", "--json").out)
    assert told["launch"] is None
    assert told["micro_batch"]["largest_examples"] == 0


def test_the_table_has_traffic_and_time(
    dpacc: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row for each wire, for a step and for the whole run, a column for each way to spread it."""
    monkeypatch.setenv("COLUMNS", "160")
    lines = dpacc("plan", config, "--gpus", 4).out.splitlines()
    shown = {name: cells for name, *cells in (re.split(r"\s{2,}", x.strip()) for x in lines if x)}
    told = json.loads(dpacc("plan", config, "--gpus", 4, "--json").out)["spreads"].values()
    for wire in ("fp32", "bf16"):
        sizes = [f"{each['sent_bytes_per_step'][wire] / 2**20:.2f} MiB" for each in told]
        assert shown[f"sent a step, {wire}"] == sizes
    seconds = [each["seconds_per_step"] for each in told]
    assert shown["seconds a step"] == [f"{each:.3g}" for each in seconds]
    assert shown["hours in all"] == [f"{each * 3 / 3600:.2g}" for each in seconds]
    for name in ("base", "adapters", "activations", "per-example gradients", "peak"):
        assert len(shown[name]) == 4


def test_too_little_memory_is_said_with_remedies(dpacc: Run, config: Path) -> None:
    """Nothing is recommended that would not fit."""
    outcome = dpacc("plan", config, "--memory-per-gpu", "100MB")
    assert outcome.code == 0
    assert "nothing fits; try" in outcome.out


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["--memory-per-gpu", "much"], "24GB"),
        (["--model", "./nowhere"], "check the path"),
        (["--lora_rnak", "4"], "did you mean lora_rank"),
        (["--train_data", "some/dataset"], "--dataset-size"),
        (["--lora_target_modules", "no_such"], "choose from"),
    ],
)
def test_mistakes_are_one_line_with_the_remedy(
    dpacc: Run, config: Path, words: list[str], remedy: str
) -> None:
    """Exit code 2, one line on stderr."""
    outcome = dpacc("plan", config, *words)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert remedy in outcome.err


def test_allocated_examples_are_planned_in_epochs(dpacc: Run, config: Path) -> None:
    """Less noise than Poisson sampling's for the same steps, and how long an epoch is."""
    words = ("--dataset-size", 400, "--steps", 20, "--gpus", 2)
    told, usual = (
        json.loads(dpacc("plan", config, "--sampling", sampling, *words, "--json").out)
        for sampling in ("allocated", "poisson")
    )
    assert (told["sampling"], usual["sampling"]) == ("allocated", "poisson")
    assert told["noise_multiplier"] < usual["noise_multiplier"]
    assert told["guarantee"]["epsilon"] <= usual["guarantee"]["epsilon"] * 1.001
    shown = " ".join(dpacc("plan", config, "--sampling", "allocated", *words).out.split())
    each = -(-400 // told["expected_batch_size"])
    assert f"an epoch {each} steps, each example in one of them" in shown


CORRELATED = ("--correlation", "banded", "--dataset-size", 400, "--steps", 40)


def test_correlated_noise_is_planned_with_what_it_gains(dpacc: Run, config: Path) -> None:
    """Bands, what they leave in the run's own workload at the same ε, and the rows they keep."""
    told = json.loads(dpacc("plan", config, *CORRELATED, "--gpus", 2, "--json").out)
    usual = json.loads(
        dpacc("plan", config, "--dataset-size", 400, "--steps", 40, "--gpus", 2, "--json").out
    )
    noise, width = told["correlated_noise"], told["trainable_parameters"]
    settings = load_config(arguments=["--config", str(config), "--correlation", "banded"])
    settings = replace(settings, steps=40)
    workload = workload_of(config=settings, dataset_size=400)
    assert workload is not None
    plan = plan_for(config=settings, dataset_size=400)
    assert noise["bands"] == plan.bands > 1
    assert told["noise_multiplier"] == plan.noise_multiplier
    left = relative_error(workload=workload, coefficients=plan.noise_coefficients)
    scale = plan.noise_multiplier / usual["noise_multiplier"]
    assert noise["left"] == pytest.approx(scale * left)
    assert noise["left"] < 1 < noise["largest_step"]
    assert noise["host_bytes"] == 4 * width * (noise["bands"] + 1)
    assert "correlated_noise" not in usual
    assert "earlier noise" not in told["spreads"]["whole"]["parts_bytes"]
    on_processor = json.loads(dpacc("plan", config, *CORRELATED, "--gpus", 0, "--json").out)
    parts = on_processor["spreads"]["whole"]["parts_bytes"]
    assert parts["earlier noise"] == 4 * width * noise["bands"]


def test_the_table_says_what_each_rank_keeps_of_noise(
    dpacc: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bands and their gain, and the host's memory; one line where independent noise is best."""
    monkeypatch.setenv("COLUMNS", "160")
    shown = " ".join(dpacc("plan", config, *CORRELATED, "--bands", 4, "--gpus", 2).out.split())
    assert "4 bands leave" in shown
    assert "host memory of each of 2 ranks" in shown
    usual = dpacc("plan", config, "--correlation", "banded", "--expected_batch_size", 8)
    assert "1 band: here independent noise is best" in " ".join(usual.out.split())


def test_what_fits_is_said_of_every_launch(dpacc: Run, config: Path) -> None:
    """Each part is what the plan of that machine has; lengths and GPUs are those asked for."""
    asked = ("plan", config, "--memory-per-gpu", "80GB", "--micro_batch_tokens", 16, "--fits")
    table = dpacc(*asked)
    assert table.code == 0, table.err
    for words in ("FSDP2", "ZeRO-3", "8,192", "2,048", "yes"):
        assert words in table.out
    one = ("--gpus", 2, "--tokens-per-example", 16, "--json")
    found = json.loads(dpacc(*asked, *one).out)["fits"]
    assert [each["placement"] for each in found] == ["whole", "zero2", "zero3", "fsdp2"]
    spreads = json.loads(dpacc(*asked[:-1], *one).out)["spreads"]
    assert {each["placement"]: each["parts_bytes"] for each in found} == {
        name: spread["parts_bytes"] for name, spread in spreads.items()
    }
    assert all(each["fits"] and each["tokens"] == 16 for each in found)
    small = json.loads(dpacc(*asked, *one, "--memory-per-gpu", "1GB").out)["fits"]
    assert not any(each["fits"] for each in small)


def test_what_fits_is_asked_of_gpus(dpacc: Run, config: Path) -> None:
    """A processor is planned without it."""
    outcome = dpacc("plan", config, "--fits", "--gpus", 0)
    assert outcome.code == 2
    assert "--fits compares GPUs" in outcome.err
