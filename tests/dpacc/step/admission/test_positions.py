"""Examples longer than a model's table of positions are refused before it is read."""

from __future__ import annotations

import pytest
import torch
from transformers import DistilBertConfig, DistilBertModel

from dpacc.errors import ConfigurationError
from dpacc.step.admission.positions import most_tokens, require_positions
from tests.tiny_models import CLASSIFIERS, CONFIGURATIONS, tiny_base


def fits(model: torch.nn.Module, tokens: int) -> bool:
    """Whether the model reads so many tokens."""
    ids = torch.full((1, tokens), 5)
    try:
        with torch.no_grad():
            model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids))
    except (IndexError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize("family", [*CONFIGURATIONS, "distilbert"])
def test_the_most_tokens_are_those_that_a_model_can_read(family: str) -> None:
    """One more than the table holds is an error in the forward; families without one read on."""
    if family == "distilbert":
        config = DistilBertConfig(
            vocab_size=96, dim=16, n_layers=1, n_heads=2, hidden_dim=16, max_position_embeddings=20
        )
        model: torch.nn.Module = DistilBertModel(config)
    else:
        model = tiny_base(family)
    most = most_tokens(model)
    if most is None:
        assert family in ("llama", "mistral", "qwen2", "gpt_neox")
        assert fits(model, 300)
        return
    assert fits(model, most)
    assert not fits(model, most + 1)
    require_positions(model=model, max_length=most)
    with pytest.raises(ConfigurationError, match=f"set --max_length {most} or less"):
        require_positions(model=model, max_length=most + 1)
    assert family not in CLASSIFIERS or most <= 256
