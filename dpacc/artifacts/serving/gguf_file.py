"""A merged model as one GGUF file, which llama.cpp and Ollama read, with its statement inside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from dpacc.artifacts.serving.gguf_tokenizer import REMEDY, write_tokenizer
from dpacc.errors import ConfigurationError

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GgufKind = Literal["f16", "q8_0"]

_ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2"}
_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_OUTSIDE = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
Array = NDArray[np.float32]


def refusals(config: Any) -> list[str]:
    """What of a model llama.cpp would compute otherwise, or this file has no words for.

    Args:
        config: of the base, as transformers has it.

    >>> from transformers import GPT2Config, LlamaConfig
    >>> refusals(GPT2Config()), refusals(LlamaConfig())
    (['model_type=gpt2 is none of llama, mistral, qwen2'], [])
    """
    if config.model_type not in _ARCHITECTURES:
        return [f"model_type={config.model_type} is none of {', '.join(_ARCHITECTURES)}"]
    found = []
    kind = _rope(config).get("rope_type", "default")
    if kind != "default":
        found.append(f"its rotary embeddings are scaled ({kind})")
    window = getattr(config, "sliding_window", None)
    if window is not None and getattr(config, "use_sliding_window", True):
        found.append(f"its attention sees {window} tokens back and no further")
    if config.hidden_act not in ("silu", "swish"):
        found.append(f"its activation is {config.hidden_act}")
    return found


def write_gguf(
    *,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    path: Path,
    kind: GgufKind,
    name: str,
    said: Mapping[str, str],
) -> None:
    """Write a causal LM with its tokenizer.

    Matrices are in `kind`: f16, or q8_0, whose 32 numbers in a row share a scale; those whose rows
    are no multiple of 32 stay in f16. Vectors are in f32.

    Args:
        model: merged.
        tokenizer: the base's.
        path: of the file.
        kind: of the matrices.
        name: of the model, as programs show it.
        said: texts that go with it, by key: card and privacy statement.

    Raises:
        ConfigurationError: llama.cpp would compute something else, or knows no such tokenizer.

    Source: the GGUF specification, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
    """
    from gguf import GGUFWriter, LlamaFileType

    config = model.config
    if reasons := refusals(config):
        raise ConfigurationError(f"gguf={kind}: {'; '.join(reasons)}; {REMEDY}")
    writer = GGUFWriter(path, _ARCHITECTURES[config.model_type])
    writer.add_name(name)
    writer.add_file_type(LlamaFileType[f"MOSTLY_{kind.upper()}"])
    writer.add_quantization_version(2)
    for key, text in said.items():
        writer.add_string(key, text)
    _write_shape(writer, config)
    write_tokenizer(writer=writer, tokenizer=tokenizer, size=config.vocab_size)
    for given, array in _tensors(model):
        _write_tensor(writer, given, array, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_shape(writer: GGUFWriter, config: Any) -> None:
    width = _head_width(config)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(_rope(config)["rope_theta"])
    writer.add_rope_dimension_count(width)
    writer.add_vocab_size(config.vocab_size)


def _tensors(model: PreTrainedModel) -> Iterator[tuple[str, Array]]:
    """Each weight by its name in GGUF; a head that is tied to the embeddings is left out."""
    config = model.config
    turned = _ARCHITECTURES[config.model_type] == "llama"
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        if name.startswith("lm_head.") and config.tie_word_embeddings:
            continue
        stem, _, kind = name.rpartition(".")
        given = _named(stem, kind, name)
        array: Array = tensor.detach().float().cpu().numpy()
        short = given.split(".")[-2]
        if turned and short in heads:
            array = interleaved(array, heads[short])
        yield given, array


def _named(stem: str, kind: str, name: str) -> str:
    if stem in _OUTSIDE:
        return f"{_OUTSIDE[stem]}.{kind}"
    layer, _, part = stem.removeprefix("model.layers.").partition(".")
    if not (layer.isdigit() and part in _LAYER):
        raise ConfigurationError(f"gguf: {name} has no name in llama.cpp; {REMEDY}")
    return f"blk.{layer}.{_LAYER[part]}.{kind}"


def interleaved(rows: Array, heads: int) -> Array:
    """A query's or key's rows, head by head, with those in pairs that one angle turns.

    transformers turns row i with row i + w/2 of a head's w, llama.cpp's `llama` row 2i with 2i + 1.

    >>> interleaved(np.arange(4, dtype=np.float32)[:, None], 1).ravel().tolist()
    [0.0, 2.0, 1.0, 3.0]
    """
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


def _write_tensor(writer: GGUFWriter, name: str, array: Array, kind: GgufKind) -> None:
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    if array.ndim == 1:
        writer.add_tensor(name, array)
        return
    if kind == "q8_0" and array.shape[-1] % 32 == 0:
        stored = quantize(array, GGMLQuantizationType.Q8_0)
        writer.add_tensor(name, stored, raw_dtype=GGMLQuantizationType.Q8_0)
        return
    writer.add_tensor(name, array.astype(np.float16))


def _head_width(config: Any) -> int:
    given = getattr(config, "head_dim", None)
    return int(given or config.hidden_size // config.num_attention_heads)


def _rope(config: Any) -> dict[str, Any]:
    return dict(getattr(config, "rope_parameters", None) or {"rope_theta": config.rope_theta})
