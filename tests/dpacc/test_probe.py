"""The coupling probe: made-up examples, real forward and loss, a clear verdict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dpacc.errors import PrivacyError
from dpacc.probe import CouplingProbe, made_up_examples
from tests.tiny_models import VOCABULARY, tiny_base


def test_made_up_examples_have_the_fields_and_types_of_real_ones() -> None:
    """Lists stay lists, arrays arrays, tensors tensors; ids lie in the vocabulary."""
    real = {
        "input_ids": [5, 6, 7],
        "labels": torch.tensor([5, 6, 7]),
        "attention_mask": np.array([1, 1, 1]),
        "class": 2,
        "weight": 0.25,
        "text": "secret",
        "note": None,
    }
    made = made_up_examples(model=tiny_base("llama"), like=real)
    assert len({len(example["input_ids"]) for example in made}) == 3
    for example in made:
        assert example.keys() == real.keys()
        assert isinstance(example["input_ids"], list)
        assert max(example["input_ids"]) < VOCABULARY
        assert isinstance(example["labels"], torch.Tensor)
        assert len(example["labels"]) == len(example["input_ids"])
        assert example["attention_mask"].tolist() == [1] * len(example["input_ids"])
        assert isinstance(example["class"], int)
        assert example["text"] == "made up"
        assert example["note"] is None


def test_made_up_examples_say_nothing_of_real_ones() -> None:
    """Two datasets with the same fields get the same made-up examples."""
    model = tiny_base("llama")
    first = made_up_examples(model=model, like={"input_ids": [5, 6], "labels": [5, 6]})
    second = made_up_examples(model=model, like={"input_ids": [9] * 50, "labels": []})
    assert first == second


@pytest.mark.parametrize("like", ["a string", {"image": np.zeros((3, 4))}, {"odd": object()}])
def test_what_cannot_be_made_up_is_refused_with_the_remedy(like: Any) -> None:
    """The caller is asked for probe_examples."""
    with pytest.raises(PrivacyError, match="pass probe_examples"):
        made_up_examples(model=tiny_base("llama"), like=like)


def verdict(first: list[float], second: list[float], *, dtype: torch.dtype = torch.float32) -> None:
    probe = CouplingProbe(model=nn.Linear(1, 1).to(dtype), examples=[{}, {}])
    probe.observe(torch.tensor([first]))
    probe.observe(torch.tensor([second, [9.0, 9.0]]))
    probe.conclude()
    assert probe._watched == []  # it keeps no gradient, not even of made-up examples


def test_the_verdict_allows_rounding_and_nothing_more() -> None:
    """fp32 rounding passes, a tenth of a percent does not; 16-bit bases get their own tolerance."""
    verdict([1.0, 2.0], [1.0, 2.000001])
    with pytest.raises(PrivacyError, match=r"changed by 0\.4%"):
        verdict([1.0, 2.0], [1.0, 2.01])
    verdict([1.0, 2.0], [1.0, 2.01], dtype=torch.bfloat16)
    with pytest.raises(PrivacyError, match="changed by"):
        verdict([1.0, 2.0], [0.5, 1.0], dtype=torch.bfloat16)


@pytest.mark.parametrize("gradient", [[0.0, 0.0], [float("nan"), 1.0]])
def test_a_gradient_that_shows_nothing_is_refused(gradient: list[float]) -> None:
    """Zero or NaN on the made-up example proves nothing, so training does not start."""
    with pytest.raises(PrivacyError, match="shows nothing"):
        verdict(gradient, gradient)


def test_a_gradient_that_becomes_nan_among_neighbours_is_refused() -> None:
    """NaN in company counts as a change."""
    with pytest.raises(PrivacyError, match="with the examples beside it"):
        verdict([1.0, 2.0], [float("nan"), 2.0])


def test_one_example_alone_is_no_probe() -> None:
    """Without neighbours there is nothing to compare."""
    with pytest.raises(PrivacyError, match="at least two"):
        CouplingProbe(model=nn.Linear(1, 1), examples=[{}])
