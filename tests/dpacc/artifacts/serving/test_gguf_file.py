"""A GGUF file computes what the merged model does, and carries its statement."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from dpacc.artifacts.serving.gguf_file import refusals, write_gguf
from dpacc.artifacts.serving.gguf_tokenizer import name_of
from dpacc.errors import ConfigurationError
from tests.recipes.training import RECIPE, WORDS, as_arguments, refusal
from tests.scripts import load_script
from tests.tiny_models import LLAMA_LIKE, tiny_tokenizer, with_lora

TEXT = " ".join(WORDS)
_SIZE = 320
# Wide enough for q8_0, whose blocks are 32 numbers; two queries share a key.
_SHAPE = LLAMA_LIKE | {"vocab_size": _SIZE, "hidden_size": 64, "intermediate_size": 96}
_MODELS = {
    "llama": LlamaConfig(**_SHAPE, head_dim=16, initializer_range=0.2),
    "tied": LlamaConfig(**_SHAPE, head_dim=32, tie_word_embeddings=True, initializer_range=0.2),
    "qwen2": Qwen2Config(**_SHAPE, initializer_range=0.2, use_sliding_window=False),
}


def byte_level(pre: Any = None) -> PreTrainedTokenizerFast:
    """Trained on a sentence; fewer tokens than the models have logits."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre or pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def made(name: str) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(_MODELS[name]).eval()
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize(("kind", "within"), [("f16", 2e-3), ("q8_0", 5e-2)])
@pytest.mark.parametrize("name", _MODELS)
def test_the_next_tokens_are_as_likely(tmp_path: Path, name: str, kind: Any, within: float) -> None:
    """Read back by transformers' own loader, which turns queries and keys back by itself, to the
    rounding of half floats, or of 8 bits.
    """
    model, tokenizer = made(name), byte_level()
    path = tmp_path / f"tiny-{kind}.gguf"
    write_gguf(model=model, tokenizer=tokenizer, path=path, kind=kind, name="tiny", said={})
    again = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name).eval()
    ids = torch.tensor([tokenizer(TEXT)["input_ids"]])
    with torch.no_grad():
        wanted, found = (each(ids).logits.softmax(-1) for each in (model, again))
    assert (wanted - found).abs().max() < within
    read = AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    assert read(TEXT)["input_ids"][-20:] == tokenizer(TEXT)["input_ids"][-20:]


def test_the_statement_is_in_the_file(tmp_path: Path) -> None:
    """Card and proof by their keys, whole; matrices in 8 bits, vectors in 32."""
    path, said = tmp_path / "tiny.gguf", {"dpacc.card": "# ε\n\n“quoted”", "dpacc.privacy": "{}"}
    write_gguf(
        model=made("llama"), tokenizer=byte_level(), path=path, kind="q8_0", name="n", said=said
    )
    reader = GGUFReader(path)
    assert {key: reader.fields[key].contents() for key in said} == said
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert kinds["blk.0.attn_q.weight"] == "Q8_0"
    assert kinds["output_norm.weight"] == "F32"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (GPT2Config(), "gpt2 is none of"),
        (
            LlamaConfig(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}),
            "scaled .linear.",
        ),
        (Qwen2Config(use_sliding_window=True, sliding_window=64, max_window_layers=1), "64 tokens"),
        (LlamaConfig(hidden_act="gelu"), "gelu"),
    ],
    ids=["family", "rotary", "window", "activation"],
)
def test_what_llama_cpp_would_compute_otherwise_is_told(config: Any, words: str) -> None:
    """In words, and before anything is written."""
    (told,) = refusals(config)
    assert re.search(words, told)


def test_a_tokenizer_is_named_by_how_it_cuts(tmp_path: Path) -> None:
    """Digits one by one are SmolLM2's; words in one token, and cuts without a name, are refused."""
    digits = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    told = json.loads(byte_level(digits).backend_tokenizer.to_str())
    assert name_of(told) == "smollm"
    told["pre_tokenizer"]["pretokenizers"][0]["individual_digits"] = False
    with pytest.raises(ConfigurationError, match=r"no name in llama\.cpp"):
        name_of(told)
    words = json.loads(tiny_tokenizer(WORDS).backend_tokenizer.to_str())
    with pytest.raises(ConfigurationError, match="no byte-level BPE"):
        name_of(words)


def test_the_recipe_writes_a_file_and_what_ollama_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--gguf: base and adapter together, in the merged folder; a classifier is refused."""
    base = made("llama")
    base.save_pretrained(tmp_path / "base")
    byte_level().save_pretrained(tmp_path / "base")
    adapted = with_lora(base, "llama", targets=["q_proj", "v_proj"], rank_pattern={"v_proj": 5})
    adapted.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    adapted.save_pretrained(tmp_path / "run")
    (tmp_path / "run/privacy.json").write_text('{"guarantee": "as stated"}')
    merging, output = load_script(RECIPE.with_name("merge.py")), tmp_path / "merged"
    given = {"adapter": tmp_path / "run", "output": output, "gguf": "f16", "dtype": "float32"}
    merging.main(as_arguments(given))
    found = AutoModelForCausalLM.from_pretrained(output, gguf_file="run-f16.gguf").eval()
    ids = torch.tensor([[5, 9, 200, 31]])
    with torch.no_grad():
        wanted, bare = adapted.eval()(ids).logits, made("llama")(ids).logits
        torch.testing.assert_close(found(ids).logits, wanted, atol=0.02, rtol=0.02)
    assert (wanted - bare).abs().max() > 0.1
    reader = GGUFReader(output / "run-f16.gguf")
    assert reader.fields["dpacc.privacy"].contents() == '{"guarantee": "as stated"}'
    assert "FROM ./run-f16.gguf\nTEMPLATE" in (output / "Modelfile").read_text()
    config = tmp_path / "run/adapter_config.json"
    config.write_text(config.read_text().replace("CAUSAL_LM", "SEQ_CLS"))
    said = refusal(merging.main, as_arguments(given | {"output": tmp_path / "no"}), capsys)
    assert "leave --gguf out" in " ".join(said.split())
