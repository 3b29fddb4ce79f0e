"""vLLM writes by the same law as transformers: by itself where it is installed, else by a stand-in
that reads the few of its parameters that are given.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from dpacc.artifacts.synthetic import vllm_writer
from dpacc.artifacts.synthetic.generation import Sampling, write_batch
from dpacc.artifacts.synthetic.requests import Request
from dpacc.artifacts.synthetic.vllm_writer import Served, load_served, write_batch_by_vllm
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig
from tests.tiny_models import LLAMA_LIKE, tiny_tokenizer, with_lora

WORDS = [f"word{i}" for i in range(80)]


@dataclass(kw_only=True)
class Parameters:
    """What vLLM's SamplingParams are given; another name is a TypeError, as there."""

    temperature: float
    top_p: float
    seed: int
    max_tokens: int
    min_tokens: int
    ignore_eos: bool
    stop_token_ids: list[int]
    allowed_token_ids: list[int] | None
    detokenize: bool


class StandIn:
    """Token by token and row by row, without a cache."""

    def __init__(self, *, model: str, dtype: str, max_model_len: int, **options: Any) -> None:
        assert options["enable_lora"]
        assert not options["enable_prefix_caching"]
        self.base = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype))
        self.most = max_model_len
        size = self.base.config.vocab_size
        told = SimpleNamespace(get_vocab_size=lambda: size)
        self.llm_engine = SimpleNamespace(add_lora=self._add, model_config=told)

    def _add(self, adapter: Any) -> None:
        self.model = PeftModel.from_pretrained(self.base, adapter.path).eval()

    def generate(
        self, prompts: Sequence[Any], parameters: Sequence[Parameters], **_: Any
    ) -> list[Any]:
        rows = (
            self._row(each["prompt_token_ids"], how)
            for each, how in zip(prompts, parameters, strict=True)
        )
        return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=row)]) for row in rows]

    @torch.no_grad()
    def _row(self, prompt: list[int], how: Parameters) -> list[int]:
        assert len(prompt) + how.max_tokens <= self.most
        drawn, row = torch.Generator().manual_seed(how.seed), []
        while len(row) < how.max_tokens and not {*row} & {*how.stop_token_ids}:
            logits = self.model(torch.tensor([[*prompt, *row]])).logits[0, -1]
            kept = torch.full_like(logits, -torch.inf)
            allowed = how.allowed_token_ids or range(len(logits))
            kept[[*allowed]] = logits[[*allowed]]
            if len(row) < how.min_tokens:
                kept[how.stop_token_ids] = -torch.inf
            if how.temperature == 0:
                row.append(int(kept.argmax()))
            else:
                law = torch.softmax(kept / how.temperature, dim=-1)
                row.append(int(torch.multinomial(law, 1, generator=drawn)))
        return row


@pytest.fixture(scope="module")
def vllm() -> Any:
    """The installed one, or the stand-in."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("VLLM_NO_USAGE_STATS", "VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_LOGGING_LEVEL"):
            patch.setenv(name, "0" if name != "VLLM_LOGGING_LEVEL" else "ERROR")  # put back after
        if find_spec("vllm") is None:
            package, lora = ModuleType("vllm"), ModuleType("vllm.lora.request")
            package.LLM, package.SamplingParams = StandIn, Parameters  # type: ignore[attr-defined]
            lora.LoRARequest = lambda name, number, path: SimpleNamespace(path=path)  # type: ignore[attr-defined]
            patch.setitem(sys.modules, "vllm", package)
            patch.setitem(sys.modules, "vllm.lora.request", lora)
            patch.setattr(vllm_writer, "packages_distributions", lambda: {"vllm": ["dpacc"]})
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose heads are as wide as vLLM wants, and a run's adapter of two ranks for it."""
    folder = tmp_path_factory.mktemp("served")
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(
        LlamaConfig(**LLAMA_LIKE, head_dim=32, initializer_range=0.2)
    )
    base.save_pretrained(folder / "base")
    tiny_tokenizer(WORDS).save_pretrained(folder / "base")
    adapted = with_lora(
        base,
        "llama",
        rank=3,
        targets=["q_proj", "v_proj", "down_proj"],
        rank_pattern={"v_proj": 5},
        layers_to_transform=[1],
    )
    adapted.save_pretrained(folder / "run")
    return folder


def config(folder: Path, **changes: Any) -> TrainingConfig:
    shared = {"model": str(folder / "base"), "train_data": "gone", "epsilon": 8.0, "steps": 1}
    shared |= {"expected_batch_size": 1, "max_length": 40, "dtype": "float32"}
    return TrainingConfig(**shared | changes)


@pytest.fixture(scope="module")
def served(vllm: None, folder: Path) -> Served:
    return load_served(config=config(folder), folder=folder / "run")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(folder / "base")


REQUESTS = [
    Request(fields={}, tokens=tokens, ends=(2,))
    for tokens in [(1, 5, 9, 11, 30), (1, 7), (1, 40, 41), (8, 9, 10, 11, 12, 13, 14)]
]


def sampling(**changes: Any) -> Sampling:
    shared: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "kept": 5, "room": 12, "least": 0}
    return Sampling(**shared | {"among": None, "seed": 0} | changes)


@pytest.mark.parametrize(
    "how",
    [
        sampling(temperature=0.0),
        sampling(temperature=0.0, least=9, room=30),
        sampling(temperature=0.0, among=(17, 23)),
    ],
    ids=["free", "at least", "answers"],
)
def test_the_likeliest_tokens_are_those_of_transformers(
    served: Served, tokenizer: PreTrainedTokenizerFast, folder: Path, how: Sampling
) -> None:
    """With the adapter, its rank pattern and its layers; prompts cut alike, ends and answers too,
    and never a token without words, of which this base has twelve.
    """
    given: dict[str, Any] = {"tokenizer": tokenizer, "requests": REQUESTS, "sampling": how}
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    bare = write_batch(model=base, number=0, **given)
    model = PeftModel.from_pretrained(base, folder / "run")
    expected = write_batch(model=model, number=0, **given)
    assert write_batch_by_vllm(served=served, number=0, **given) == expected
    assert expected != bare or how.among
    assert {token for each in expected for token in each.tokens} <= {*range(4, 84)}


def test_each_record_has_a_seed_of_its_own(
    served: Served, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Equal prompts are gone on with differently, the same batch alike, and others otherwise."""
    given: dict[str, Any] = {"served": served, "tokenizer": tokenizer}
    given["requests"] = [REQUESTS[0]] * 6
    first = write_batch_by_vllm(sampling=sampling(), number=3, **given)
    assert len({str(each) for each in first}) > 1
    assert write_batch_by_vllm(sampling=sampling(), number=3, **given) == first
    assert write_batch_by_vllm(sampling=sampling(), number=4, **given) != first
    assert write_batch_by_vllm(sampling=sampling(seed=1), number=3, **given) != first


def test_nothing_is_told_to_the_makers_of_vllm(served: Served) -> None:
    """Their count of starts is switched off before vLLM is imported."""
    assert os.environ["VLLM_NO_USAGE_STATS"] == "1"


@pytest.mark.parametrize(
    ("setting", "told", "words"),
    [
        ({"quantization": "nf4"}, {}, "another base than the one"),
        ({}, {"modules_to_save": ["lm_head"]}, "whole modules that were trained"),
        ({}, {"use_dora": True}, "DoRA"),
        ({}, {"r": 600}, "600, is above vLLM's 512"),
    ],
    ids=["quantized", "saved modules", "DoRA", "rank"],
)
def test_what_vllm_would_not_compute_as_training_did_is_refused(
    vllm: None,
    folder: Path,
    tmp_path: Path,
    setting: dict[str, Any],
    told: dict[str, Any],
    words: str,
) -> None:
    """Before anything is loaded, with the reason and what to use instead."""
    known = json.loads((folder / "run/adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(known | told))
    with pytest.raises(ConfigurationError, match=f"{words}.*--engine transformers"):
        load_served(config=config(folder, **setting), folder=tmp_path)


def test_without_vllm_the_package_is_named(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """One line, with what to install."""
    monkeypatch.setattr(vllm_writer, "packages_distributions", dict)
    with pytest.raises(ConfigurationError, match="vLLM is not installed: install it"):
        load_served(config=config(folder), folder=folder / "run")
