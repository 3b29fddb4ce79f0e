"""How large the inputs of a base's upper linear layers are beside their outputs.

    python benchmarks/layer_gains.py

The root mean square of what enters each kind of linear layer of the top six, over that of what
leaves it, for the bases that `recipes/fetch_demo.py`, `fetch_gemma.py` and `fetch_coder.py` bring,
on paragraphs of README.md. The larger it is, the farther a step of an adapter turns an output.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).parents[1]
BASES = ("smollm2-135m-instruct", "gemma-3-270m", "qwen2.5-coder-0.5b-instruct")
LAYERS, PARAGRAPHS, CHARACTERS = 6, 12, 300


@torch.no_grad()
def ratios_of(base: str) -> dict[str, float]:
    """By a layer's own name, the mean over layers and paragraphs."""
    folder = ROOT / "data" / base
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=False
    )
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
