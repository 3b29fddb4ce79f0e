"""Discrete noise from the plan to the optimizer: exact sums, known sensitivity, honest price."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dpacc_accounting import DiscreteGaussian, epsilon, read_ledger, statement

from dpacc.errors import PrivacyError
from dpacc.layers.gradient_buffer import Layout
from dpacc.plan import PrivacyPlan
from dpacc.randomness import discrete_gaussian
from dpacc.randomness.run_secret import RunSecret
from dpacc.step.accumulation import ClippedSum
from dpacc.step.integer_sum import POINTS, SENSITIVITY, Grid, SumOnGrid, grid_noise, whole_scale
from dpacc.step.strategies import Ghost, Materialize
from tests.dpacc.step.engine_runs import LENGTHS, noiseless, plan_for, received
from tests.dpacc.step.test_strategies import sums
from tests.tiny_models import examples

LAYOUT = Layout({"a": torch.nn.Parameter(torch.zeros(300)), "b": torch.nn.Parameter(torch.ones(9))})
CPU = torch.device("cpu")


def discrete(size: int, **changes: Any) -> PrivacyPlan:
    return plan_for(size, **{"noise": "discrete_gaussian"} | changes)


def clipped(rows: torch.Tensor, **changes: Any) -> torch.Tensor:
    plan = discrete(10, **changes)
    total = ClippedSum(plan=plan, layout=LAYOUT, max_grad_norm=plan.max_grad_norm, device=CPU)
    squares = torch.stack([rows[:, :300].square().sum(1), rows[:, 300:].square().sum(1)], dim=1)
    slots = LAYOUT.slots.values()
    total.add_kept({slot: rows[:, slot.offset : slot.end].clone() for slot in slots}, squares)
    return total.total


def test_sums_are_exact_in_any_order() -> None:
    """Whole numbers add up to the bit whatever the order, where fp32 sums differ."""
    rows = torch.randn(64, 309, generator=torch.Generator().manual_seed(0)) * 1e-2
    shuffled = rows[torch.randperm(64, generator=torch.Generator().manual_seed(1))]
    assert not torch.equal(rows.sum(0), shuffled.sum(0))
    whole = clipped(rows)
    assert whole.dtype == torch.int64
    assert torch.equal(whole, clipped(shuffled))
    assert torch.equal(whole, clipped(rows[:20]) + clipped(rows[20:]))


@pytest.mark.parametrize("clipping", ["flat", "per-layer", "automatic", "adaptive"])
def test_a_unit_never_weighs_more_than_the_sensitivity(clipping: str) -> None:
    """Of any size, NaN included: its whole numbers measure at most Δ, and large ones nearly C."""
    for size in (1e-6, 1.0, 1e6):
        row = size * torch.randn(1, 309, generator=torch.Generator().manual_seed(3))
        weight = float(clipped(row, clipping=clipping)[:309].double().norm())
        assert weight <= SENSITIVITY
        assert size < 1 or weight > 0.5 * POINTS
    assert not clipped(torch.full((1, 309), float("nan")), clipping=clipping)[:309].any()


@pytest.mark.parametrize("clipping", ["flat", "per-layer"])
def test_ghost_adds_the_same_whole_numbers(clipping: str) -> None:
    """Two passes that keep nothing give what one that keeps all does, but for fp32 rounding."""
    data, plan = examples([7, 3, 12, 1]), discrete(4, clipping=clipping, max_grad_norm=0.05)
    kept, passed = (sums(kind, "llama", plan, data) for kind in (Materialize, Ghost))
    assert kept.dtype == torch.int64
    assert int(kept.abs().max()) > POINTS // 1000
    assert int((kept - passed).abs().max()) <= POINTS * 2**-20


def test_rounding_that_went_too_far_is_refused() -> None:
    """A sink whose gradients outgrow the sensitivity stops the step."""
    total = ClippedSum(plan=discrete(3), layout=LAYOUT, max_grad_norm=1.0, device=CPU)
    sink = total.sink(torch.ones(1, 2))
    assert isinstance(sink, SumOnGrid)
    slot = next(iter(LAYOUT.slots.values()))
    sink.take(slot, torch.full((1, 300), 1 / np.sqrt(300)))
    total.require_bounded(sink)
    sink.take(slot, torch.full((1, 300), 0.03 / np.sqrt(300)))
    with pytest.raises(PrivacyError, match="second backward"):
        total.require_bounded(sink)


@pytest.mark.parametrize("sigma", [1e-9, 0.3, 1.0, 77.7])
def test_the_scale_hides_what_gaussian_noise_hides(sigma: float) -> None:
    """s² is at least (σΔ)² + 8, and hardly more; see the proof in `whole_scale`."""
    scale = whole_scale(multiplier=sigma, sensitivity=SENSITIVITY)
    wanted = (sigma * SENSITIVITY) ** 2 + 8
    assert wanted * (1 - 1e-12) <= scale**2 <= wanted + 2 * np.sqrt(wanted) + 1


@pytest.mark.parametrize("shift", [1, 5, 40])
def test_the_price_covers_the_exact_law(shift: int) -> None:
    """In one dimension, where the discrete law is tabulated: δ never exceeds the Gaussian's.

    P(k) − e^ε·P(k − Δ) summed where positive, against the closed form at (s² − 8)^½/Δ.
    """
    scale = whole_scale(multiplier=0.8, sensitivity=shift)
    sigma = np.sqrt(scale**2 - 8) / shift
    k = np.arange(-60 * scale, 60 * scale + 1)
    here, there = (np.exp(-((k - at) ** 2) / (2 * scale**2)) for at in (0, shift))
    from dpacc_accounting.gaussian import gaussian_delta

    for eps in (0.0, 0.5, 1.0, 3.0, 6.0):
        exact = np.maximum(here - np.exp(eps) * there, 0).sum() / here.sum()
        assert exact <= gaussian_delta(mu=1 / sigma, epsilon=eps) + 1e-15


def test_composed_and_sampled_it_costs_no_more_than_it_is_charged() -> None:
    """The accountant's own discrete Gaussian, under Poisson sampling, is within the charge."""
    plan = discrete(
        1000, expected_batch_size=10, steps=100, noise_multiplier=0.8, target_delta=1e-4
    )
    scale = whole_scale(multiplier=plan.noise_multiplier, sensitivity=64)
    from dpacc_accounting import PoissonSampled, Repeated

    one = PoissonSampled(probability=0.01, event=DiscreteGaussian(sigma=scale, sensitivity=64))
    exact = epsilon(event=Repeated(event=one, times=100), delta=plan.target_delta)
    assert exact.epsilon - exact.slack <= plan.guarantee().epsilon


def noise_of(plan: PrivacyPlan, folder: Path) -> torch.Tensor:
    """What the optimizer got beyond the clipped sum."""
    data = examples(LENGTHS)
    clean = plan_for(
        plan.dataset_size,
        **{name: getattr(plan, name) for name in ("steps", "clipping", "noise")},
        noise_multiplier=0.0,
        allow_no_privacy=True,
    )
    sums = [
        received(p, data, folder / f"{i}.jsonl", micro_batch_tokens=24)
        for i, p in enumerate((plan, clean))
    ]
    return sums[0] - sums[1]


def test_the_optimizer_gets_the_sum_with_noise_once(tmp_path: Path) -> None:
    """Noised minus clean sums have variance (σC)² within the sampling error, step by step."""
    plan = discrete(len(LENGTHS), steps=12)
    noise = noise_of(plan, tmp_path) / (plan.noise_multiplier * plan.max_grad_norm)
    assert abs(float(noise.square().mean()) - 1) < 4 * np.sqrt(2 / noise.numel()) + 1e-3
    assert abs(float(noise.mean())) < 4 / np.sqrt(noise.numel())
    assert abs(np.corrcoef(noise[0], noise[1])[0, 1]) < 4 / np.sqrt(noise.shape[1])


def test_without_noise_it_is_the_same_sum(tmp_path: Path) -> None:
    """Rounding to C/2²⁶ moves no element by more than half of that for each example."""
    data, size = examples(LENGTHS), len(LENGTHS)
    usual = received(noiseless(size, steps=1), data, tmp_path / "a.jsonl")
    whole = received(
        noiseless(size, steps=1, noise="discrete_gaussian"), data, tmp_path / "b.jsonl"
    )
    torch.testing.assert_close(whole, usual, rtol=1e-5, atol=size * 1e-2 / POINTS)


def test_adaptive_clipping_noises_its_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half-integers counted in 2²⁰ points a unit; noise of standard deviation σ_b of them."""
    plan = discrete(10, clipping="adaptive", expected_batch_size=4)
    rows = torch.zeros(5, 309)
    rows[:2, 0] = 1.0  # above C
    assert float(clipped(rows, clipping="adaptive")[-1]) == (3 - 2) / 2 * 2**20
    secret = RunSecret.from_fixed_seed(1)
    monkeypatch.setattr(discrete_gaussian, "_CHUNK", 1)
    last = [grid_noise(plan=plan, secret=secret, step=t, width=1)[-1] / 2**20 for t in range(100)]
    assert abs(np.std(last) / plan.count_noise - 1) < 4 / np.sqrt(2 * 100)


def test_the_books_and_the_statement_say_so(tmp_path: Path) -> None:
    """The plan in the ledger names the noise, and the words explain it and its price."""
    data = examples(LENGTHS)
    plan = discrete(len(data), steps=1)
    received(plan, data, tmp_path / "ledger.jsonl")
    record = read_ledger(path=tmp_path / "ledger.jsonl")
    assert record.plan["noise"] == "discrete_gaussian"
    assert record.releases[0].event == plan.charge(0)
    assert plan.fingerprint != plan_for(len(data), steps=1).fingerprint
    assert PrivacyPlan.from_json(plan.to_json()) == plan
    words = statement(plan=plan.to_json(), record=record)
    assert "discrete Gaussian distribution" in words
    assert "discrete Gaussian" not in statement(plan=plan_for(len(data)).to_json())


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"noise": "laplace"}, "noise='laplace'"),
        ({"noise_multiplier": 1e6}, "noise multiplier of 1e"),
        ({"dataset_size": 1 << 40, "target_delta": 1e-15}, "dataset_size=1099511627776"),
    ],
)
def test_plans_that_no_whole_numbers_hold_are_refused(
    changes: dict[str, Any], culprit: str
) -> None:
    """Unknown noise, and sums that could outgrow 64 bits."""
    with pytest.raises(ValueError, match=culprit):
        discrete(100, **changes)


def test_the_grid_rounds_to_the_nearest_point() -> None:
    """Half a spacing at most, in either direction."""
    grid = Grid(max_grad_norm=0.25)
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 0.1
    back = grid.rounded(values) * grid.spacing
    assert float((back - values.double()).abs().max()) <= grid.spacing / 2
