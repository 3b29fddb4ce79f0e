"""What the page on serving shows runs, or is read by its recipe."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from dpacc.recipe.settings import read_settings
from tests.recipes.training import WORDS
from tests.scripts import load_script
from tests.tiny_models import save_tiny_llama, tiny_tokenizer, with_lora

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/serving.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny base and a run's folder under the page's names."""
    from transformers import AutoModelForCausalLM

    base, run = tmp_path / "data/smollm2-135m-instruct", tmp_path / "runs/smollm2-reviews"
    save_tiny_llama(base, words=["The", *WORDS])
    adapted = with_lora(AutoModelForCausalLM.from_pretrained(base), "llama")
    adapted.save_pretrained(run)
    tiny_tokenizer(["The", *WORDS]).save_pretrained(run)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_adapter_runs_in_peft(served: Path) -> None:
    """The block on PEFT and transformers writes on from its prompt."""
    (block,) = [each for each in BLOCKS if "PeftModel" in each]
    names: dict[str, torch.Tensor] = {}
    exec(compile(block, "serving.md", "exec"), names)
    assert names["said"].shape[1] > 2


def test_the_block_on_vllm_names_what_the_recipe_uses() -> None:
    """It is Python; by its classes `--engine vllm` writes, whose test takes vLLM where it is."""
    (block,) = [each for each in BLOCKS if "vllm" in each]
    compile(block, "serving.md", "exec")
    code = (ROOT / "dpacc/artifacts/synthetic/vllm_writer.py").read_text()
    for name in ("LLM", "SamplingParams", "LoRARequest", "enable_lora", "max_lora_rank"):
        assert name in block
        assert name in code


def test_every_command_is_read_by_its_recipe(served: Path) -> None:
    """Up to where the adapter would be read."""
    commands = re.findall(r"^python (recipes/merge.py .*)$", PAGE, re.MULTILINE)
    kind = load_script(ROOT / "recipes/merge.py").MergeConfig
    found = [read_settings(kind=kind, arguments=shlex.split(each)[1:]) for each in commands]
    assert [each.gguf for each in found] == ["none", "q8_0"]
    for file in re.findall(r"merged/(\S+\.gguf)", PAGE):
        assert file == "smollm2-reviews-q8_0.gguf"


def test_the_comparison_with_llama_cpp_sees_a_difference(
    served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the page's own words: equal probabilities are ok, one moved by a half is not."""
    (line,) = re.findall(r"^\$ python (benchmarks/served_tokens.py .*)$", PAGE, re.MULTILINE)
    words = shlex.split(line)
    script = load_script(ROOT / words[0])
    model = script.AutoModelForCausalLM.from_pretrained(served / "data/smollm2-135m-instruct")
    tokenizer = script.AutoTokenizer.from_pretrained(served / "runs/smollm2-reviews")
    model.save_pretrained("merged")
    tokenizer.save_pretrained("merged")
    moves = {"by": 0.0}

    def answer(server: str, what: str, **given: Any) -> Any:
        if what == "tokenize":
            return {"tokens": tokenizer(given["content"])["input_ids"]}
        logits = model(torch.tensor([given["prompt"]])).logits[0, -1].log_softmax(dim=-1).detach()
        top = [
            {"id": n, "logprob": float(logits[n]) - moves["by"]} for n in range(given["n_probs"])
        ]
        return {"completion_probabilities": [{"top_logprobs": top}]}

    monkeypatch.setattr(script, "ask", answer)
    monkeypatch.setattr(script, "PROMPTS", ("The film",))
    for moves["by"], ended in ((0.0, 0), (0.51, 1)):
        with pytest.raises(SystemExit) as told:
            script.main(words[1:])
        assert told.value.code == ended
