"""What is planned from shapes is what is really held, stored and trained."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

from dpacc.layers.adapters import attach_gradient_buffer
from dpacc.losses.per_example import causal_lm_losses
from dpacc.plan import PrivacyPlan
from dpacc.planning.architectures import KNOWN, read_architecture
from dpacc.planning.forecast import Forecast, Machine, forecast
from dpacc.planning.launch import recommend
from dpacc.planning.live_memory import LiveMemory
from dpacc.planning.memory import cost_of_probe, device_memory, most_that_fits
from dpacc.planning.skeleton import build_skeleton, nf4_bytes
from dpacc.planning.traffic import Rates, sent_bytes
from dpacc.planning.weightless_step import cost_of_micro_batch
from dpacc.recipe.config import Task, TrainingConfig, load_config
from dpacc.recipe.models import FAMILIES, add_lora
from dpacc.step.accumulation import ClippedSum
from dpacc.step.strategies import Ghost, Materialize
from tests.tiny_models import CLASSIFIERS, CONFIGURATIONS, collate, examples

ROOT = Path(__file__).parents[3]
PLAN = PrivacyPlan(
    dataset_size=8,
    expected_batch_size=8,
    steps=2,
    noise_multiplier=1.0,
    max_grad_norm=1.0,
    target_delta=1e-5,
)
ONE_GPU = Machine(gpus=1, memory=24 * 10**9, rates=Rates(operations=120e12, network=25e9))

PROCESSOR = Machine(gpus=0, memory=24 * 10**9, rates=Rates(operations=0.1e12, network=25e9))


def config_of(model: str, **settings: object) -> TrainingConfig:
    needed = {"train_data": "none.jsonl", "epsilon": 8.0, "expected_batch_size": 8, "steps": 2}
    return TrainingConfig(model=model, **{**needed, **settings})


def tiny_folder(folder: Path, family: str = "llama") -> str:
    CONFIGURATIONS[family].save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("strategy", ["materialize", "ghost", "probe"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_planned_peak_is_what_torch_allocates(
    tmp_path: Path, strategy: Any, checkpointing: bool
) -> None:
    """A real micro-batch on the CPU, every allocation counted, peaks within 15% of its shapes'."""
    model = tiny_folder(tmp_path)
    config = config_of(model, gradient_checkpointing=checkpointing, dtype="float32")
    architecture = read_architecture(model=model)
    skeleton = build_skeleton(config=config, architecture=architecture)
    planned = cost_of_micro_batch(
        skeleton=skeleton, plan=PLAN, strategy=strategy, examples=4, tokens=96
    )
    base = AutoModelForCausalLM.from_config(architecture).requires_grad_(False)
    real = add_lora(model=base, rank=8, alpha=16, gradient_checkpointing=checkpointing).train()
    buffer = attach_gradient_buffer(real)
    batch = collate(examples([96, 95, 94, 93]))
    cpu = torch.device("cpu")
    causal_lm_losses(real, batch)  # what it finds out once is no part of a micro-batch
    live = LiveMemory()
    live.ignore(iter([*real.parameters(), *real.buffers()]))
    with live:
        total = ClippedSum(plan=PLAN, layout=buffer.layout, max_grad_norm=1.0, device=cpu)
        way = (Ghost if strategy == "ghost" else Materialize)(
            buffer, lambda loss, keep: loss.backward(retain_graph=keep), cpu
        )
        losses = causal_lm_losses(real, batch)
        way.first(losses) if strategy == "probe" else way.add(losses, None, total)
    assert live.peak > 4 * skeleton.trainable
    assert planned.peak == pytest.approx(live.peak, rel=0.15)


def test_parameters_and_optimizer_are_counted_exactly(tmp_path: Path) -> None:
    """Trainable parameters, the base's bytes and AdamW's averages are those of the real model."""
    model = tiny_folder(tmp_path)
    architecture = read_architecture(model=model)
    skeleton = build_skeleton(config=config_of(model), architecture=architecture)
    base = AutoModelForCausalLM.from_config(architecture).requires_grad_(False)
    real = add_lora(model=base, rank=8, alpha=16)
    adapters = [p for p in real.parameters() if p.requires_grad]
    frozen = [*(p for p in real.parameters() if not p.requires_grad), *real.buffers()]
    assert skeleton.trainable == sum(p.numel() for p in adapters) > 0
    assert skeleton.base_bytes == sum(t.nbytes for t in frozen)
    optimizer = torch.optim.AdamW(adapters)
    for adapter in adapters:
        adapter.grad = torch.ones_like(adapter)
    optimizer.step()
    state = [t for s in optimizer.state.values() for t in s.values() if t.ndim]
    cost = cost_of_micro_batch(
        skeleton=skeleton, plan=PLAN, strategy="materialize", examples=50, tokens=1
    )
    memory = device_memory(
        skeleton=skeleton,
        step=cost,
        probe=replace(cost, peak=0),
        placement="whole",
        ranks=1,
        on_processor=True,
    )
    assert memory.moment == "micro-batch"
    assert memory.parts["optimizer"] == sum(t.nbytes for t in state)
    # One token each: the peak is at the end, where all gradients are kept but the one being made.
    kept = memory.parts["per-example gradients"] // (50 * 4)
    largest = max(p.numel() for p in adapters)
    assert skeleton.trainable - largest <= kept <= skeleton.trainable


def test_nf4_is_counted_as_bitsandbytes_stores_it() -> None:
    """Packed weights, scales, scales of scales and code tables, to the byte but their offset."""
    import bitsandbytes as bnb

    weight = torch.randn(192, 320)
    packed = bnb.nn.Params4bit(
        weight, requires_grad=False, quant_type="nf4", compress_statistics=True
    ).to("cpu")
    state = packed.quant_state
    tensors = [packed.data, state.absmax, state.code, state.state2.absmax, state.state2.code]
    stored = sum(t.nbytes for t in tensors) + state.offset.nbytes
    assert nf4_bytes(elements=weight.numel()) == pytest.approx(stored, abs=8)


@pytest.mark.parametrize("family", sorted(set(CONFIGURATIONS) - set(CLASSIFIERS)))
def test_every_family_is_planned_from_its_configuration(tmp_path: Path, family: str) -> None:
    """Each causal family runs on shapes, from nothing but a config.json."""
    found = forecast(
        config=config_of(tiny_folder(tmp_path, family), max_length=64),
        dataset_size=100,
        machine=ONE_GPU,
    )
    assert found.trainable > 0
    assert found.spreads["whole"].memory.parts["activations"] > 0
    assert found.launch is not None


@pytest.mark.parametrize(
    ("model", "published"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 134_515_008),
        ("meta-llama/Llama-2-7b-hf", 6_738_415_616),
        ("meta-llama/Llama-3.1-70B", 70_553_706_496),
        ("EleutherAI/gpt-j-6b", 6_053_381_344),
        ("distilbert/distilbert-base-cased", 65_190_912),
    ],
)
def test_known_shapes_have_the_published_number_of_parameters(model: str, published: int) -> None:
    """The numbers known by heart make models of the published sizes (GPT-J's card: within 0.1%)."""
    assert model in KNOWN
    with torch.device("meta"):
        family = AutoModel if "distilbert" in model else AutoModelForCausalLM
        real = family.from_config(read_architecture(model=model))
    count = sum(p.numel() for p in real.parameters())
    assert count == pytest.approx(published, rel=1e-3 if "gpt-j" in model else 0)


@pytest.mark.parametrize(
    ("row", "model"),
    [("Llama-7B", "meta-llama/Llama-2-7b-hf"), ("GPT-J-6B", "EleutherAI/gpt-j-6b")],
)
def test_the_plan_agrees_with_the_measured_seven_billion(row: str, model: str) -> None:
    """Within 15% of the peaks in docs/benchmarks.md: rank 16, ghost, 8×64, checkpointing, CPU."""
    page = (ROOT / "docs/benchmarks.md").read_text()
    (line,) = re.findall(rf"^\| {row} \|.*$", page, flags=re.MULTILINE)
    measured = float(re.findall(r"([\d.]+) GiB", line)[0]) * 2**30
    config = config_of(
        model, quantization="nf4", lora_rank=16, gradient_checkpointing=True, dtype="bfloat16"
    )
    skeleton = build_skeleton(config=config, architecture=read_architecture(model=model))
    step = cost_of_micro_batch(
        skeleton=skeleton, plan=PLAN, strategy="ghost", examples=8, tokens=64
    )
    probe = cost_of_probe(skeleton=skeleton, plan=PLAN)
    planned = device_memory(
        skeleton=skeleton, step=step, probe=probe, placement="whole", ranks=1, on_processor=True
    )
    assert planned.peak == pytest.approx(measured, rel=0.15)
    page = (ROOT / "docs/plan.md").read_text()
    told = re.findall(rf"^\| {row}, NF4, rank 16, 8×64 \| ([\d.]+) \| ([\d.]+) \|$", page, re.M)
    assert told == [(f"{measured / 2**30:.2f}", f"{planned.peak / 2**30:.2f}")]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out what takes longest, for who looks at other figures."""
    monkeypatch.setattr("dpacc.planning.forecast.most_that_fits", lambda **_: 1)
    monkeypatch.setattr("dpacc.planning.forecast._activations", lambda *_: {})


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("checkpointing", "row"), [(False, ""), (True, ", checkpointing")])
def test_the_plan_agrees_with_what_a_gpu_held(checkpointing: bool, row: str) -> None:
    """Within 5% of the peaks in docs/plan.md: Llama-7B, rank 16, 8×512, but for the libraries."""
    page = (ROOT / "docs/plan.md").read_text()
    named = "Llama-7B, NF4, rank 16, 8×512, materialize"
    (measured, told) = re.findall(rf"^\| {named}{row} \| ([\d.]+) \| ([\d.]+) \|$", page, re.M)[0]
    found = forecast(
        config=config_of(
            "meta-llama/Llama-2-7b-hf",
            quantization="nf4",
            lora_rank=16,
            gradient_checkpointing=checkpointing,
            dtype="bfloat16",
            max_length=512,
            micro_batch_tokens=4096,
            per_example_gradients="materialize",
        ),
        dataset_size=9603,
        machine=ONE_GPU,
    )
    memory = found.spreads["whole"].memory
    planned = (memory.peak - memory.parts["runtime"]) / 2**30
    assert planned == pytest.approx(float(measured), rel=0.05)
    assert planned == pytest.approx(float(told), abs=0.006)


DEMO = ["--dtype", "float32", "--model", "HuggingFaceTB/SmolLM2-135M-Instruct"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("name", "machine", "words", "examples"),
    [
        ("llama2_7b", ONE_GPU, [], 9603),
        ("gptj_6b", ONE_GPU, [], 9603),
        ("token_classification", ONE_GPU, [], 9603),
        ("smollm2_reviews", PROCESSOR, DEMO, 9603),
        ("smollm2_sentiment", PROCESSOR, DEMO, 9568),
        ("smollm2_classifier", PROCESSOR, DEMO, 9568),
    ],
)
def test_the_heads_of_configurations_say_what_is_planned(
    name: str, machine: Machine, words: list[str], examples: int
) -> None:
    """The estimate in each YAML's header is the one that its settings give today."""
    path = ROOT / f"recipes/configs/{name}.yaml"
    found = forecast(
        config=load_config(arguments=["--config", str(path), *words]),
        dataset_size=examples,
        machine=machine,
    )
    assert f"#   {found.in_one_line()}\n" in path.read_text()


@pytest.mark.usefixtures("quick")
def test_auto_is_planned_as_it_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that only emulates 16 bits holds the base in 32, and a GPU as it was saved."""
    saved = copy.deepcopy(CONFIGURATIONS["llama"])
    saved.dtype = torch.bfloat16
    saved.save_pretrained(tmp_path)
    held = {}
    for machine, arithmetic in ((ONE_GPU, False), (PROCESSOR, True), (PROCESSOR, False)):
        monkeypatch.setattr(
            "dpacc.planning.forecast.computes_in_16_bits", lambda _, has=arithmetic: has
        )
        found = forecast(
            config=config_of(str(tmp_path), max_length=8), dataset_size=100, machine=machine
        )
        held[machine.gpus, arithmetic] = found.spreads["whole"].memory.parts["base"]
    assert held[1, False] == held[0, True]
    assert held[0, False] > 1.9 * held[0, True]


def test_what_is_offloaded_leaves_a_gpu_and_no_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There it lies where it lay; either way activations that are all kept are counted beside."""
    monkeypatch.setattr("dpacc.planning.forecast.most_that_fits", lambda **_: 1)
    model = tiny_folder(tmp_path)

    def planned(machine: Machine, **settings: object) -> Forecast:
        config = config_of(model, gradient_checkpointing=True, max_length=64, **settings)
        return forecast(config=config, dataset_size=100, machine=machine)

    assert planned(PROCESSOR, offload_activations=True) == planned(PROCESSOR)
    kept, left = planned(ONE_GPU), planned(ONE_GPU, offload_activations=True)
    assert left.activations[True] < kept.activations[True]
    assert left.activations[False] == kept.activations[False]


def test_the_largest_micro_batch_is_the_last_that_fits() -> None:
    """Also where nothing fits, everything does, or the line bends."""

    def bent(count: int) -> int:
        return max(100 + 3 * count, 9 * count)

    assert most_that_fits(peak=bent, limit=901, at_most=1000) == 100
    assert most_that_fits(peak=bent, limit=10**6, at_most=1000) == 1000
    assert most_that_fits(peak=bent, limit=50, at_most=1000) == 0


def test_the_largest_micro_batch_fills_the_device_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given exactly what five examples take, five fit; with one byte less, four."""
    monkeypatch.setattr("dpacc.planning.forecast._activations", lambda *_: {})  # slow
    config = config_of(
        tiny_folder(tmp_path),
        max_length=32,
        micro_batch_tokens=5 * 32,
        per_example_gradients="ghost",
    )
    found = forecast(config=config, dataset_size=100, machine=ONE_GPU)
    assert found.examples == 5
    assert found.largest_micro_batch == config.expected_batch_size
    for short, fits in ((0, 5), (1, 4)):
        machine = replace(ONE_GPU, memory=found.spreads["whole"].memory.peak - short)
        told = forecast(config=config, dataset_size=100, machine=machine)
        assert told.largest_micro_batch == fits


def test_a_base_that_is_cut_crosses_for_every_pass() -> None:
    """Two passes gather a cut base once more for each micro-batch than one; whole ones never."""
    sent = {
        (placement, strategy): sent_bytes(
            trainable=10,
            base_bytes=1000,
            placement=placement,
            ranks=2,
            wire="fp32",
            micro_batches=3,
            strategy=strategy,
        )
        for placement in ("whole", "fsdp2")
        for strategy in ("materialize", "ghost")
    }
    assert sent["whole", "ghost"] == sent["whole", "materialize"] == 40
    assert sent["fsdp2", "ghost"] - sent["fsdp2", "materialize"] == 3 * 500


def test_recommendations_name_files_that_exist() -> None:
    """Every launch that is recommended is in launch_configs/; an int8 base is never cut."""
    asked = [(0, {"whole"}), (1, {"whole"}), (4, {"whole"}), (32, {"whole"})]
    asked += [(8, {"zero2"}), (8, {"fsdp2", "zero3"}), (8, {"zero3"})]
    files = []
    for gpus, fitting in asked:
        launch = recommend(gpus=gpus, fitting=fitting, quantization="nf4", config="c.yaml")  # type: ignore[arg-type]
        assert launch is not None
        assert (ROOT / launch.file).exists()
        files.append(launch.file)
    assert len(set(files)) == 7
    assert recommend(gpus=8, fitting={"fsdp2"}, quantization="int8", config="c.yaml") is None


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "bert"])
@pytest.mark.parametrize("task", ["sequence-classification", "token-classification"])
def test_classifiers_are_planned_with_their_heads(tmp_path: Path, task: Task, family: str) -> None:
    """What learns is what the recipe trains: adapters on every layer, and the new head whole."""
    model = tiny_folder(tmp_path, family)
    labels = ("other", "person", "place")
    architecture = read_architecture(model=model)
    planned = build_skeleton(
        config=config_of(model, task=task, labels=labels, dtype="float32", lora_rank=2),
        architecture=architecture,
    )
    cost = cost_of_micro_batch(skeleton=planned, plan=PLAN, strategy="ghost", examples=4, tokens=16)
    base = FAMILIES[task].from_config(architecture)
    base.requires_grad_(False)
    real = add_lora(model=base, rank=2, alpha=4)
    assert planned.trainable == sum(p.numel() for p in real.parameters() if p.requires_grad)
    heads = [name for name, p in real.named_parameters() if "modules_to_save" in name]
    assert heads
    assert not [name for name in heads if "lora_" in name]
    assert cost.peak > 0
