"""Every way in which dpacc trains an adapter leaves one that other programs read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from dpacc.artifacts.serving.plain_lora import not_plain
from dpacc.recipe.models import add_lora
from dpacc.recipe.settings import LoraMethod
from tests.tiny_models import tiny_base


@pytest.mark.parametrize("method", get_args(LoraMethod))
def test_each_method_saves_plain_lora(tmp_path: Path, method: Any) -> None:
    """A and B on linear layers, and nothing else in the file."""
    add_lora(model=tiny_base("llama"), rank=2, alpha=4, method=method).save_pretrained(tmp_path)
    assert not_plain(json.loads((tmp_path / "adapter_config.json").read_text())) == []


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"modules_to_save": ["score"]}, "whole modules"),
        ({"bias": "all"}, "biases of the base"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4, changed the base"),
        ({"peft_type": "IA3"}, "of the kind IA3"),
        ({"kasa_config": {}, "velora_config": {"x": 1}}, "more than B·A"),
    ],
)
def test_what_is_more_than_that_is_told(told: dict[str, Any], words: str) -> None:
    """One reason each, in words."""
    (said,) = not_plain({"peft_type": "LORA", "r": 8} | told)
    assert words in said
