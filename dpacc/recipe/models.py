"""Load a frozen, possibly quantized base and put trainable LoRA adapters on it."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.pytorch_utils import Conv1D

from dpacc.errors import ConfigurationError
from dpacc.layers.blocks import transformer_blocks
from dpacc.layers.dynamic_rank import keep_first
from dpacc.layers.lora_methods import freeze_lower
from dpacc.layers.memory_saving_layers import offload_block_inputs
from dpacc.layers.pooling import pool_by_mean, pools_by_mean, takes_mean
from dpacc.layers.whitening import fix_upper
from dpacc.recipe.precision import precision_for
from dpacc.recipe.pretrained import (
    first_line,
    load_tokenizer,
    locate,
    quiet_loading,
    read_once,
    unreadable,
)
from dpacc.recipe.settings import LoraMethod, Precision, Quantization, Task
from dpacc.step.admission.experts import names_in_every_block
from dpacc.step.admission.rotary import hold_rotary_embeddings

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

FAMILIES: dict[str, Any] = {
    "causal-lm": AutoModelForCausalLM,
    "sequence-classification": AutoModelForSequenceClassification,
    "token-classification": AutoModelForTokenClassification,
    "preference": AutoModelForCausalLM,
}
_PEFT_TASKS = {"ForSequenceClassification": "SEQ_CLS", "ForTokenClassification": "TOKEN_CLS"}


class Base(NamedTuple):
    """A frozen language model and the tokenizer it was trained with."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


@read_once
def load_base(
    *,
    model: str,
    quantization: Quantization = "none",
    dtype: Precision = "auto",
    device: torch.device | None = None,
    task: Task = "causal-lm",
    labels: Sequence[str] | None = None,
    seed: int = 0,
) -> Base:
    """Load a language model, frozen, and its tokenizer, from a folder or the hub.

    A text classifier on a sentence encoder reads the mean of its tokens, if that says so.

    Args:
        model: folder, or id on the hub (`HF_HUB_OFFLINE` is honoured).
        quantization: `nf4` stores the base in 4 bits with doubly quantized scales, `int8` in 8;
            both compute in bfloat16 unless `dtype` says otherwise.
        dtype: what an unquantized base is held and computed in; `auto` takes what it was saved in,
            or float32 on a processor without 16-bit arithmetic.
        device: where the base will be. A quantized one is put there at once, for it cannot be
            moved later; an unquantized one when Accelerate places it.
        task: what the model's head is for.
        labels: the names of a classification's classes.
        seed: seeds a classification head that the folder does not hold, equal on every rank.

    Raises:
        ConfigurationError: the folder or id cannot be read, or lacks some of the weights.
    """
    if quantization == "int8":
        # Each of its layers would warn, in each forward, that it rounds its input.
        logging.getLogger("bitsandbytes.autograd").setLevel(logging.ERROR)
    source = locate(model)
    tokenizer = load_tokenizer(model=model)
    options = _loading_options(quantization, dtype, device) | _naming(labels)
    try:
        with quiet_loading(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            base, report = FAMILIES[task].from_pretrained(
                source, output_loading_info=True, trust_remote_code=False, **options
            )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a damaged file raises whatever its parser raises
        raise unreadable(model, error) from error
    if task == "sequence-classification" and pools_by_mean(source):
        pool_by_mean(base)
    _refuse_missing_weights(model, base, report)
    base.requires_grad_(False)
    hold_rotary_embeddings(base)
    base.config.use_cache = False
    # A causal model's class is read off the last token that is no padding.
    if base.config.pad_token_id is None:
        base.config.pad_token_id = tokenizer.pad_token_id
    return Base(base, tokenizer)


def add_lora(
    *,
    model: PreTrainedModel,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    target_modules: Sequence[str] = ("all-linear",),
    seed: int = 0,
    gradient_checkpointing: bool = False,
    offload_activations: bool = False,
    top_layers: int | None = None,
    method: LoraMethod = "lora",
) -> PeftModel:
    """Put a fresh float32 LoRA adapter on the named linear layers of a frozen base.

    A classification head is trained whole, and saved with the adapter.

    Args:
        model: the base; it is changed in place.
        rank: r of the update s·B·A.
        alpha: s = alpha / rank, or alpha / sqrt(rank) for "rslora".
        dropout: dropout on the adapter's input.
        target_modules: last parts of layer names, such as `q_proj`, or `all-linear`.
        seed: seeds A's initial values, equal on every rank (B starts at zero).
        gradient_checkpointing: recompute activations in the backward pass.
        offload_activations: keep what they are recomputed from in the processor's memory.
        top_layers: adapt this many of the last transformer blocks only; no backward runs beneath.
        method: "lora"; "rslora", whose scale suits high ranks (arXiv 2312.03732); "ffa", which
            trains B alone (arXiv 2403.12313); or "whitened", which trains A alone
            ([`whiten`][dpacc.layers.whitening.whiten] it before training).

    Raises:
        ConfigurationError: a name that no linear layer has, nothing left to train, more top
            layers than there are, or nothing to offload.
    """
    with quiet_loading():  # PEFT imports bitsandbytes, which advertises a kernel
        from peft import LoraConfig

    _refuse_unknown_targets(model, target_modules)
    config = LoraConfig(
        task_type=_peft_task(model),
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        use_rslora=method == "rslora",
        **_where(model, target_modules, top_layers),
        **_beside(new_head(model), names_in_every_block(model)),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    adapted = _wrap(model, config, seed)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if method == "ffa":
        freeze_lower(adapted)
    if method == "whitened":
        fix_upper(adapted, seed=seed)
    if gradient_checkpointing:
        _enable_checkpointing(model)
    if offload_activations:
        offload_block_inputs(model)
    return adapted


def base_named_by(*, adapter: Path) -> str:
    """The base that an adapter's folder names.

    Raises:
        ConfigurationError: it holds no adapter, or names none.
    """
    try:
        named = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))[
            "base_model_name_or_path"
        ]
    except (OSError, ValueError, KeyError, TypeError):
        named = None
    if not isinstance(named, str):
        raise ConfigurationError(
            f"{adapter} holds no adapter (adapter_config.json) that names its base; give a run's "
            "folder, or name the base with --model"
        )
    return named


def load_adapter(*, model: PreTrainedModel, folder: Path, rank: int | None = None) -> PeftModel:
    """Put the adapter of a finished run on its base.

    Args:
        model: the base.
        folder: of the run.
        rank: how many of the first rows of A and columns of B to keep; by default all.

    Raises:
        ConfigurationError: the folder holds no adapter, a pickled one, that of another base, or one
            of a lower rank.
    """
    with quiet_loading():
        from peft import PeftModel

    if not (folder / "adapter_config.json").is_file():
        raise ConfigurationError(
            f"{folder} holds no adapter (adapter_config.json); give a run's folder"
        )
    if not (folder / "adapter_model.safetensors").is_file():
        raise ConfigurationError(
            f"{folder} holds no adapter_model.safetensors: nothing pickled is read; save the "
            "adapter again with save_pretrained"
        )
    try:
        with warnings.catch_warnings(action="ignore"):  # of names that PEFT still uses
            adapted = PeftModel.from_pretrained(model, str(folder))
    except RuntimeError as error:
        raise ConfigurationError(
            f"{folder} holds an adapter of another base, or a head of other classes: name those "
            f"that it was trained with (--model, --labels); {str(error).splitlines()[-1].strip()}"
        ) from error
    if rank is not None:
        keep_first(model=adapted, rank=rank)
    return adapted


# --- loading ------------------------------------------------------------------------------


def _loading_options(
    quantization: Quantization, dtype: Precision, device: torch.device | None
) -> dict[str, Any]:
    if quantization == "none":
        return {"dtype": precision_for(dtype, device=device, otherwise=None) or "auto"}
    compute = precision_for(dtype, device=device, otherwise=torch.bfloat16)
    storage = {
        "nf4": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
        ),
        # Columns with outliers, computed in 16 bits, would be sought over all examples at once.
        "int8": BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0),
    }[quantization]
    place = {"": device or torch.device("cpu")}
    return {"dtype": compute, "quantization_config": storage, "device_map": place}


def _naming(labels: Sequence[str] | None) -> dict[str, Any]:
    if labels is None:
        return {}
    names = dict(enumerate(labels))
    return {"id2label": names, "label2id": {name: place for place, name in names.items()}}


def _refuse_missing_weights(model: str, base: PreTrainedModel, report: dict[str, Any]) -> None:
    # A classification head lies outside the body, and is trained from scratch.
    body = f"{base.base_model_prefix}."
    new_head = not type(base).__name__.endswith(("ForCausalLM", "LMHeadModel"))
    # A pooler that the mean of tokens replaced is not missed.
    replaced = f"{body}pooler." if takes_mean(base) else None
    missing = sorted(
        name
        for name in report["missing_keys"]
        if (name.startswith(body) or not new_head) and not (replaced and name.startswith(replaced))
    )
    if missing:
        raise ConfigurationError(
            f"model={model} lacks {len(missing)} weights, {missing[0]} among them, which would be "
            "random: it must be a complete language model"
        )


# --- adapters -----------------------------------------------------------------------------


def _peft_task(model: PreTrainedModel) -> str:
    """PEFT's word for the model's head, by which it saves a classification's with the adapter."""
    name = type(model).__name__
    return next((t for head, t in _PEFT_TASKS.items() if name.endswith(head)), "CAUSAL_LM")


def new_head(model: PreTrainedModel) -> list[str]:
    """The layers that a classifier has above its body: new ones, which are trained whole.

    DistilBERT has two of them, ModernBERT a dense layer and a normalisation besides.
    """
    if _peft_task(model) == "CAUSAL_LM":
        return []
    above = (each for each in model.named_children() if each[0] != model.base_model_prefix)
    return [name for name, layer in above if any(True for _ in layer.parameters())]


def _beside(head: Sequence[str], experts: Sequence[str]) -> dict[str, Any]:
    """PEFT's words for what is trained whole and saved, and for what gets no adapters."""
    left_out = [rf"({'|'.join(head)})(\..*)?"] if head else []
    left_out += [rf".*\.({'|'.join(experts)})"] if experts else []
    trained = {"modules_to_save": list(head)} if head else {}
    return trained | {"exclude_modules": "|".join(left_out) or None}


def _where(
    model: PreTrainedModel, targets: Sequence[str], top_layers: int | None
) -> dict[str, Any]:
    """PEFT's words for the layers to adapt."""
    everywhere = "all-linear" in targets
    experts = names_in_every_block(model)
    if top_layers is None and not (everywhere and experts):
        return {"target_modules": "all-linear" if everywhere else list(targets)}
    blocks = transformer_blocks(model)
    leaves = {name.rpartition(".")[2] for name in _linear_names(blocks)}
    # By their names, for PEFT's `all-linear` takes in the experts of some families.
    names = sorted(leaves - {name.rpartition(".")[2] for name in experts})
    if top_layers is None:
        return {"target_modules": names}
    if top_layers > len(blocks):
        raise ConfigurationError(
            f"lora_top_layers={top_layers} exceeds the {len(blocks)} layers of this model"
        )
    return {
        "target_modules": names if everywhere else list(targets),
        "layers_to_transform": list(range(len(blocks) - top_layers, len(blocks))),
    }


def _wrap(model: PreTrainedModel, config: LoraConfig, seed: int) -> PeftModel:
    from peft import get_peft_model

    # Adapters are drawn on the CPU, so that no accelerator's generator changes them.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(action="ignore"):
        torch.default_generator.manual_seed(seed)
        try:
            return get_peft_model(model, config)
        except (ValueError, TypeError) as error:
            raise ConfigurationError(
                f"no trainable adapter on lora_target_modules={config.target_modules}: "
                f"{first_line(error)}"
            ) from error


def _enable_checkpointing(model: PreTrainedModel) -> None:
    # transformers 5.23 renamed it; both names also make the embeddings' output require grad, which
    # only reentrant checkpointing needs: a backward would run beneath the lowest adapter.
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    enable({"use_reentrant": False})
    if getattr(model, "_require_grads_hook", None) is not None:
        model.disable_input_require_grads()


def _linear_names(model: torch.nn.Module) -> list[str]:
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
    ]


def _refuse_unknown_targets(model: PreTrainedModel, targets: Sequence[str]) -> None:
    names = _linear_names(model)
    for target in targets:
        known = target == "all-linear" or any(f".{name}".endswith(f".{target}") for name in names)
        if not known:
            leaves = sorted({name.rpartition(".")[2] for name in names})
            raise ConfigurationError(
                f"lora_target_modules={target} names no linear layer of this model: "
                f"choose from {_listed(leaves)} or all-linear"
            )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
