"""The coordinates that the frontier tries: clipped in, public, and what they say they are."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.test_frontier_benchmark import frontier  # noqa: F401

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
LOWER, UPPER = "layer.lora_A.default.weight", "layer.lora_B.default.weight"


@pytest.fixture
def geometry(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark's part."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("gradient_geometry")


class Factors(nn.Module):
    """Nothing but the A [2, 5] and B [4, 2] of one layer."""

    def __init__(self, lower: Tensor, upper: Tensor) -> None:
        super().__init__()
        self.weights = {LOWER: nn.Parameter(lower.clone()), UPPER: nn.Parameter(upper.clone())}

    def named_parameters(self, *_: Any, **__: Any) -> Any:
        """By the names that PEFT gives."""
        return iter(self.weights.items())


def product_step(coordinates: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """What a step does to B·A, to first order, and what is clipped."""
    lower, upper = (coordinates.learned[name].detach() for name in (LOWER, UPPER))
    with coordinates.point():
        ours = {LOWER: upper.T @ gradient, UPPER: gradient @ lower.T}
        ours = {name: coordinates._before_clipping(name, g[None])[0] for name, g in ours.items()}
        size = torch.cat([g.flatten() for g in ours.values()]).norm()
        steps = {name: coordinates._after_noise(name, g) for name, g in ours.items()}
    return steps[UPPER] @ lower + upper @ steps[LOWER], size


def test_the_tangent_step_is_the_same_for_all_factors_of_a_product(
    geometry: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A → RA and B → BR⁻¹ change neither the step of B·A nor the norm that is clipped."""
    draw = torch.Generator().manual_seed(0)
    lower, upper, gradient, turn = (
        torch.randn(shape, generator=draw, dtype=torch.float64)
        for shape in ((2, 5), (4, 2), (4, 5), (2, 2))
    )
    monkeypatch.setattr(geometry, "_SMALLEST", 0.0)
    for kind, alike in ((geometry.Tangent, True), (geometry.Geometry, False)):
        one = kind(model=Factors(lower, upper), public=None)
        other = kind(model=Factors(turn @ lower, upper @ turn.inverse()), public=None)
        (step, size), (other_step, other_size) = (
            product_step(each, gradient) for each in (one, other)
        )
        assert torch.allclose(step, other_step) is alike
        assert torch.allclose(size, other_size) is alike


def test_the_filter_asks_ahead_and_leaves_the_parameters_where_they_were(
    geometry: ModuleType,
) -> None:
    """At κ = ½ the gradient is wanted at x + (x − x before); what is released is a mean of two."""
    model = Factors(torch.ones(2, 5), torch.ones(4, 2))
    kalman = geometry.Kalman(model=model, public=None)
    with kalman.point():
        assert torch.equal(model.weights[LOWER], torch.ones(2, 5))
    with torch.no_grad():
        model.weights[LOWER].fill_(1.5)
    with kalman.point():
        assert torch.equal(model.weights[LOWER], torch.full((2, 5), 2.0))
    assert torch.equal(model.weights[LOWER], torch.full((2, 5), 1.5))
    first, second = (kalman._after_noise(LOWER, torch.full((2, 5), value)) for value in (1.0, 2.0))
    assert (first.mean().item(), second.mean().item()) == (1.0, 1.5)


def test_scales_weigh_public_gradients_alike_and_keep_their_size(geometry: ModuleType) -> None:
    """s²(v + mean v) is the same for all elements, and Σ s²v is Σ v."""
    moments = {"a": torch.tensor([1.0, 7.0]), "b": torch.tensor([[0.0, 4.0]])}
    scales = geometry.scales_of(moments)
    weights = torch.cat([(scales[n].square() * (v + 3.0)).flatten() for n, v in moments.items()])
    assert torch.allclose(weights, weights[0].expand(4))
    scaled = sum((scales[n].square() * v).sum() for n, v in moments.items())
    assert float(scaled) == pytest.approx(12.0)


def test_main_directions_of_output_gradients_become_as_large_as_the_next(
    geometry: ModuleType,
) -> None:
    """P leaves second moments flat at the top, and the rows as long as they were in the mean."""
    sizes = torch.tensor([50.0, 10.0, 3.0, 1.0, 0.5, 0.1])
    rows = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) * sizes
    whitened = rows @ geometry.whitener(rows, directions=2)
    values = torch.linalg.svdvals(whitened)
    assert torch.allclose(values[:3], values[0].expand(3), rtol=1e-3)
    assert values[3] < 0.5 * values[2]
    assert whitened.norm().item() == pytest.approx(rows.norm().item(), rel=1e-4)


def test_scaled_gradients_weigh_no_more_than_their_bound(
    frontier: ModuleType,  # noqa: F811
    geometry: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Coordinates a million times as long leave each example C, for clipping comes after them."""
    squares: list[float] = []

    class Long(geometry.Geometry):  # type: ignore[misc, name-defined]
        def _before_clipping(self, name: str, rows: Tensor) -> Tensor:
            return 1e6 * rows

        def _after_noise(self, name: str, gradient: Tensor) -> Tensor:
            squares.append(float(gradient.square().sum()))
            return gradient

    monkeypatch.setitem(geometry.GEOMETRIES, "long", Long)
    task, run = small_run(frontier, tmp_path, geometry="long")
    learn(task, replace(run, batch=40, max_grad_norm=0.25))
    first, second = np.array(squares).reshape(2, -1).sum(axis=1)
    assert 0.0 < first <= 0.25**2 * (1 + 1e-4)
    assert 0.0 < second <= 0.25**2 * (1 + 1e-4)


def test_each_geometry_learns_and_leaves_the_base_as_it_was(
    frontier: ModuleType,  # noqa: F811
    geometry: ModuleType,
    tmp_path: Path,
) -> None:
    """Whatever the coordinates, a run ends in another model, and without its adapter as before."""
    task, run = small_run(frontier, tmp_path)
    rows = task.texts.only(task.parts["validation"])
    untrained = task.texts.measured(task.base, rows)["loss"]
    for name in geometry.GEOMETRIES:
        trained = learn(task, replace(run, geometry=name))
        found = task.texts.measured(trained.model, rows)["loss"]
        assert found != untrained
        assert found == pytest.approx(untrained, abs=2.0)
        assert trained.base() is task.base
        assert task.texts.measured(task.base, rows)["loss"] == pytest.approx(untrained, abs=1e-6)


def small_run(script: ModuleType, folder: Path, **told: Any) -> tuple[Any, Any]:
    """Chats of the tiny model, and two steps over all of them without noise."""
    contenders, tasks = (
        importlib.import_module(each) for each in ("utility_contenders", "frontier_tasks")
    )
    sizes = {"layers": 1, "texts": 40, "held_out": 10, "validation": 10}
    run = contenders.Run(
        tool="dpacc", epsilon=None, batch=20, steps=2, learning_rate=0.1, momentum=0.9, **told
    )
    return tasks.load_task("chats", folder=folder, **sizes), run


def learn(task: Any, run: Any) -> Any:
    """One run."""
    contenders = importlib.import_module("utility_contenders")
    rows = task.texts.only(task.parts["train"])
    return contenders.train(run, base=task.base, texts=task.texts, rows=rows, public=task.public)
