"""How large the inputs of a base's upper linear layers are beside their outputs.

    python benchmarks/layer_gains.py

The root mean square of what enters each kind of linear layer of the top six, over that of what
leaves it, for the bases that `recipes/fetch_demo.py`, `fetch_gemma.py` and `fetch_coder.py` bring,
on paragraphs of README.md. The larger it is, the farther a step of an adapter turns an output.
Then g, what the weights alone say of it, of the top layer and of the top six.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from dpacc.recipe.models import add_lora
from dpacc.recipe.optimizers import gain_beneath

ROOT = Path(__file__).parents[1]
BASES = ("smollm2-135m-instruct", "gemma-3-270m", "qwen2.5-coder-0.5b-instruct")
LAYERS, PARAGRAPHS, CHARACTERS = 6, 12, 300


def loaded(base: str) -> Any:
    """In fp32."""
    return AutoModelForCausalLM.from_pretrained(
        ROOT / "data" / base, dtype=torch.float32, trust_remote_code=False
    )


def gain_of(base: str, *, layers: int) -> float:
    """g of so many top layers, by which the rate is made where none is said."""
    return gain_beneath(add_lora(model=loaded(base), rank=8, alpha=16.0, top_layers=layers))


@torch.no_grad()
def ratios_of(base: str) -> dict[str, float]:
    """By a layer's own name, the mean over layers and paragraphs."""
    model = loaded(base)
    folder = ROOT / "data" / base
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    found: dict[str, list[float]] = defaultdict(list)

    def look(name: str, entering: torch.Tensor, leaving: torch.Tensor) -> None:
        found[name].append(float(entering.square().mean().sqrt() / leaving.square().mean().sqrt()))

    lowest = model.config.num_hidden_layers - LAYERS
    for name, module in model.named_modules():
        place = re.search(r"layers\.(\d+)\.", name)
        if isinstance(module, nn.Linear) and place and int(place[1]) >= lowest:
            own = name.rpartition(".")[2]
            module.register_forward_hook(lambda _, a, out, own=own: look(own, a[0], out))
    paragraphs = (ROOT / "README.md").read_text(encoding="utf-8").split("\n\n")
    for text in [each for each in paragraphs if len(each) > 80][:PARAGRAPHS]:
        model(**tokenizer(text[:CHARACTERS], return_tensors="pt"))
    return {name: sum(each) / len(each) for name, each in found.items()}


if __name__ == "__main__":
    for base in BASES:
        ratios = ratios_of(base)
        print(base, ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))
        print("  g", *(f"{gain_of(base, layers=layers)} of {layers}" for layers in (1, LAYERS)))
