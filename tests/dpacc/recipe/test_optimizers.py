"""The optimizer that the settings name, over the parameters it is given."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig, load_config
from dpacc.recipe.optimizers import optimizer_for, rate_under_noise


def config(**changes: object) -> TrainingConfig:
    values = {"model": "m", "train_data": "d.jsonl", "epsilon": 8.0, "steps": 4}
    return TrainingConfig(**{**values, "expected_batch_size": 8, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_the_named_one_takes_rate_and_decay(name: str, kind: type[torch.optim.Optimizer]) -> None:
    """Both settings reach it, and every parameter."""
    weights = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))]
    asked = config(optimizer=name, learning_rate=0.3, weight_decay=0.1)
    found = optimizer_for(weights, config=asked, rate=0.3)
    assert type(found) is kind
    (group,) = found.param_groups
    assert group["params"] == weights
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.1)


def test_momentum_carries_on() -> None:
    """A gradient that was seen once moves the next step by 0.9 of what it moved the first."""
    weight = nn.Parameter(torch.zeros(1))
    asked = config(optimizer="sgd", learning_rate=1.0)
    optimizer = optimizer_for([weight], config=asked, rate=1.0)
    weight.grad = torch.tensor([-1.0])
    optimizer.step()
    weight.grad = torch.tensor([0.0])
    optimizer.step()
    assert weight.item() == pytest.approx(1.9)


def test_noise_alone_moves_adapters_of_any_size_equally_far() -> None:
    """AdamW at the usual rate, fed with noise, ends as far from where it began for few parameters
    in many steps as for many in few, within the noise's own spread."""
    generator, ends = torch.Generator().manual_seed(1), []
    for width, steps in ((50_000, 90), (450_000, 10)):
        weight = nn.Parameter(torch.zeros(width))
        rate = rate_under_noise(trained=width, steps=steps)
        optimizer = optimizer_for([weight], config=config(), rate=rate)
        for _ in range(steps):
            weight.grad = torch.randn(width, generator=generator)
            optimizer.step()
        ends.append(float(weight.detach().norm()))
    assert ends[0] == pytest.approx(ends[1], rel=0.15)
    assert ends[0] == pytest.approx(48, rel=0.3)


def test_sgd_needs_a_rate() -> None:
    """Its own depends on the task, and no default serves."""
    with pytest.raises(ConfigurationError, match="optimizer=sgd without learning_rate"):
        config(optimizer="sgd")


def test_another_name_is_refused() -> None:
    """The known ones are listed."""
    given = ["--model=m", "--train_data=d.jsonl", "--epsilon=8", "--steps=4"]
    with pytest.raises(ConfigurationError, match=r"adamw\|sgd"):
        load_config(arguments=[*given, "--expected_batch_size=8", "--optimizer=lion"])
