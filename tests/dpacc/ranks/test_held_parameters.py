"""What a model holds is found as torch finds it, and anew each time."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dpacc.ranks.backends.held_parameters import named_modules, parameters
from tests.tiny_models import tiny_model


def entangled() -> nn.Sequential:
    """A module and a weight that are in two places, a child that is none, and a circle."""
    shared = nn.Linear(2, 2)
    tied = nn.Linear(2, 2, bias=False)
    tied.weight = shared.weight
    model = nn.Sequential(shared, nn.Sequential(nn.ReLU(), shared), tied, nn.LayerNorm(2))
    model.register_module("nothing", None)
    inner = model[1]
    inner.register_module("above", model)
    return model


@pytest.mark.parametrize("family", ["none", "llama", "bert"])
def test_a_model_is_walked_through_as_torch_does(family: str) -> None:
    """The same modules by the same names in the same order, and the same parameters, each once."""
    model = entangled() if family == "none" else tiny_model(family)
    assert named_modules(model) == list(model.named_modules())
    found = parameters(model)
    assert len(found) == len({id(p) for p in found}) > 1
    assert {id(p) for p in found} == {id(p) for p in model.parameters()}


def test_what_was_added_since_the_last_look_is_seen() -> None:
    """A parameter of a layer deep inside, and a layer."""
    model = entangled()
    before = len(parameters(model)), len(named_modules(model))
    (_, first), (_, relu) = named_modules(model)[1:4:2]
    first.register_parameter("extra", nn.Parameter(torch.zeros(1)))
    relu.register_module("late", nn.Linear(2, 2))
    assert (len(parameters(model)), len(named_modules(model))) == (before[0] + 3, before[1] + 1)
