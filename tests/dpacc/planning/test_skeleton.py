"""A model without weights weighs, and trains, what the real one would."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from dpacc.planning.forecast import Machine, forecast
from dpacc.planning.skeleton import Skeleton, build_skeleton
from dpacc.planning.traffic import Rates
from dpacc.recipe.config import LoraMethod, TrainingConfig
from dpacc.recipe.models import add_lora
from tests.tiny_models import CONFIGURATIONS

EIGHT_GPUS = Machine(gpus=8, memory=24 * 10**9, rates=Rates(operations=120e12, network=25e9))


def config_of(model: str, **settings: object) -> TrainingConfig:
    needed = {"train_data": "none.jsonl", "epsilon": 8.0, "expected_batch_size": 8, "steps": 2}
    return TrainingConfig(model=model, **{**needed, **settings})


def skeleton_of(architecture: PretrainedConfig, **settings: object) -> Skeleton:
    return build_skeleton(
        config=config_of("tiny", held_out_data="public.jsonl", **settings),
        architecture=architecture,
    )


@pytest.mark.parametrize(
    ("method", "learned"), [("lora", "AB"), ("rslora", "AB"), ("ffa", "B"), ("whitened", "A")]
)
def test_a_method_trains_in_the_plan_what_it_trains(method: LoraMethod, learned: str) -> None:
    """Under "ffa" only B is counted, under "whitened" only A; the number is the real model's."""
    architecture = CONFIGURATIONS["llama"]
    planned = skeleton_of(architecture, lora_method=method, lora_rank=4, dtype="float32")
    base = AutoModelForCausalLM.from_config(architecture).requires_grad_(False)
    real = add_lora(model=base, rank=4, alpha=8, method=method)
    trained = {n: p.numel() for n, p in real.named_parameters() if p.requires_grad}
    assert {name.split("lora_")[1][0] for name in trained} == set(learned)
    assert planned.trainable == sum(trained.values()) > 0


def test_an_int8_base_is_counted_as_bitsandbytes_stores_it() -> None:
    """A byte for each weight and a scale for each row; embeddings, head and norms as they were."""
    import bitsandbytes as bnb

    architecture = CONFIGURATIONS["llama"]
    planned = skeleton_of(architecture, quantization="int8", dtype="float32")
    base = AutoModelForCausalLM.from_config(architecture)
    held = sum(t.nbytes for t in [*base.parameters(), *base.buffers()])
    for name, layer in base.named_modules():
        if isinstance(layer, torch.nn.Linear) and name != "lm_head":
            stored = bnb.nn.Int8Params(layer.weight.data, requires_grad=False).to("cpu")
            held += stored.CB.nbytes + stored.SCB.nbytes - layer.weight.nbytes
    assert planned.base_bytes == held
    assert planned.element_bytes == 1


def test_an_int8_base_is_planned_but_never_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is whole on every GPU, and where that does not fit no launch cuts it instead."""
    monkeypatch.setattr("dpacc.planning.forecast.most_that_fits", lambda **_: 1)  # slow
    monkeypatch.setattr("dpacc.planning.forecast._activations", lambda *_: {})
    deep = copy.deepcopy(CONFIGURATIONS["llama"])
    deep.intermediate_size, deep.num_hidden_layers = 4096, 6
    deep.save_pretrained(tmp_path)
    config = config_of(str(tmp_path), quantization="int8", lora_rank=1, max_length=16)
    fits = forecast(config=config, dataset_size=100, machine=EIGHT_GPUS)
    assert fits.launch is not None
    assert fits.launch.file == "launch_configs/ddp.yaml"
    peaks = {name: spread.memory.peak for name, spread in fits.spreads.items()}
    assert peaks["fsdp2"] < min(peaks["whole"], peaks["zero2"])
    less = replace(EIGHT_GPUS, memory=peaks["fsdp2"])
    assert forecast(config=config, dataset_size=100, machine=less).launch is None
