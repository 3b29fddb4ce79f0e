"""A rank for each step: what does not learn has no gradient, no noise, and stays as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from dpacc_accounting import epsilon, read_ledger
from dpacc_accounting.factorization.workload import Workload
from torch import nn

from dpacc.errors import ConfigurationError, PrivacyError
from dpacc.layers.dynamic_rank import DynamicRank, RankOf, keep_first, rank_axis
from dpacc.layers.gradient_buffer import GradientBuffer, Layout
from dpacc.losses.per_example import causal_lm_losses
from dpacc.plan import PrivacyPlan
from dpacc.step.engine import PrivacyEngine
from tests.dpacc.step.engine_runs import LENGTHS, RecordingOptimizer, noiseless, plan_for
from tests.tiny_models import collate, examples, tiny_base, with_lora

SEED = 4
DATA = examples(LENGTHS)


def model_of(rank: int = 4) -> nn.Module:
    torch.manual_seed(0)
    model = with_lora(tiny_base("llama"), "llama", rank=rank)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model


def run(
    plan: PrivacyPlan,
    ledger: Path,
    *,
    model: nn.Module | None = None,
    dynamic_rank: int | RankOf | None = SEED,
    lr: float = 0.0,
    strategy: Any = "materialize",
) -> tuple[torch.Tensor, nn.Module]:
    """The gradients, [steps, width], times the expected batch size, and the model."""
    model = model or model_of()
    optimizer = RecordingOptimizer([p for p in model.parameters() if p.requires_grad], lr=lr)
    engine = PrivacyEngine(
        Accelerator(cpu=True),
        plan,
        ledger=ledger,
        fixed_seed=3,
        dynamic_rank=dynamic_rank,
        per_example_gradients=strategy,
    )
    engine.prepare(model, optimizer)
    for step in engine.steps(DATA, collate):
        for batch in step:
            step.backward(causal_lm_losses(model, batch))
        step.update()
    engine.close()
    return torch.stack(optimizer.received) * plan.expected_batch_size, model


def learners(steps: int, seed: int = SEED) -> torch.Tensor:
    """[steps, width], what learns in each step."""
    model = model_of()
    buffer = GradientBuffer(Layout({n: p for n, p in model.named_parameters() if p.requires_grad}))
    ranks = DynamicRank(model=model, buffer=buffer, ranks=seed)
    return torch.stack([ranks.learns(step) for step in range(steps)])


def ranks_of(steps: int, seed: int = SEED) -> list[int]:
    model = model_of()
    buffer = GradientBuffer(Layout({n: p for n, p in model.named_parameters() if p.requires_grad}))
    ranks = DynamicRank(model=model, buffer=buffer, ranks=seed)
    return [ranks.rank(step) for step in range(steps)]


@pytest.mark.parametrize("strategy", ["materialize", "ghost"])
def test_a_step_has_the_gradients_of_the_adapter_cut_to_its_rank(
    tmp_path: Path, strategy: str
) -> None:
    """Clipped by the norm of what learns, and zero beyond it, for every rank that was drawn."""
    steps = 6
    found, _ = run(noiseless(len(DATA), steps=steps), tmp_path / "a", strategy=strategy)
    ranks = ranks_of(steps)
    assert len({*ranks}) > 2
    for step, rank in enumerate(ranks):
        cut = model_of()
        keep_first(model=cut, rank=rank)
        alone, _ = run(
            noiseless(len(DATA), steps=1), tmp_path / f"{step}", model=cut, dynamic_rank=None
        )
        torch.testing.assert_close(found[step], alone[0], rtol=1e-4, atol=1e-7)
        assert not found[step][~learners(steps)[step]].any()


def test_noise_falls_on_what_learns_alone(tmp_path: Path) -> None:
    """As much as the plan says there, and none beyond; an untouched element tells nothing."""
    plan = plan_for(len(DATA), steps=6)
    noised, _ = run(plan, tmp_path / "a")
    clean, _ = run(noiseless(len(DATA), steps=6), tmp_path / "b")
    noise, active = noised - clean, learners(6)
    assert not noise[~active].any()
    scale = plan.noise_multiplier * plan.max_grad_norm
    assert noise[active].std() == pytest.approx(scale, rel=0.03)


def test_what_does_not_learn_stays_as_it_was(tmp_path: Path) -> None:
    """Under SGD the elements that no step drew keep their values to the last bit."""
    before = torch.cat([p.detach().flatten() for p in model_of().parameters() if p.requires_grad])
    seed = next(seed for seed in range(99) if max(ranks_of(3, seed)) < 4)
    _, model = run(plan_for(len(DATA)), tmp_path / "a", lr=0.5, dynamic_rank=seed)
    after = torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])
    ever = learners(3, seed).any(dim=0)
    assert torch.equal(after[~ever], before[~ever])
    assert not torch.equal(after[ever], before[ever])


def test_a_step_that_is_left_leaves_the_adapter_whole(tmp_path: Path) -> None:
    """Whoever breaks out of a step finds all rows where they were."""
    model = model_of()
    before = [p.detach().clone() for p in model.parameters() if p.requires_grad]
    optimizer = RecordingOptimizer([p for p in model.parameters() if p.requires_grad])
    plan = plan_for(len(DATA), steps=9)
    engine = PrivacyEngine(
        Accelerator(cpu=True), plan, ledger=tmp_path / "a", fixed_seed=3, dynamic_rank=SEED
    )
    engine.prepare(model, optimizer)
    steps = engine.steps(DATA, collate)
    next(steps)
    assert min(ranks_of(1)) < 4
    narrowed = [p for p in model.parameters() if p.requires_grad]
    assert not all(torch.equal(a, b) for a, b in zip(narrowed, before, strict=True))
    steps.close()
    now = [p for p in model.parameters() if p.requires_grad]
    assert all(torch.equal(a, b) for a, b in zip(now, before, strict=True))
    engine.close()


def test_ranks_are_public_and_uniform() -> None:
    """The same for everyone who knows the seed, each as often as any other."""
    drawn = ranks_of(400)
    assert drawn == ranks_of(400)
    counts = [drawn.count(rank) for rank in range(1, 5)]
    assert min(counts) > 70
    assert sum(counts) == 400


def test_the_price_is_the_plans(tmp_path: Path) -> None:
    """Fewer elements get noise; what is charged is the same Gaussian in every step."""
    plan = plan_for(len(DATA), steps=4)
    run(plan, tmp_path / "a")
    spent = epsilon(event=read_ledger(path=tmp_path / "a").event, delta=plan.target_delta)
    assert spent == plan.guarantee()


def test_a_gradient_beyond_the_rank_is_never_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If what should not learn had one, it would leave without noise: refused."""
    honest = DynamicRank.begin

    def begin(self: DynamicRank, step: int) -> None:
        honest(self, step)
        # Neither put aside nor masked.
        self.end()

    monkeypatch.setattr(DynamicRank, "begin", begin)
    with pytest.raises(PrivacyError, match="without noise"):
        run(plan_for(len(DATA), steps=4), tmp_path / "a")


def test_what_is_no_adapter_learns_in_every_step(tmp_path: Path) -> None:
    """A trained head has its noise at every rank, and the first rows have theirs."""
    model = model_of()
    head: Any = model.get_submodule("base_model.model.lm_head").weight
    head.requires_grad_(True)
    plan = plan_for(len(DATA), steps=3)
    noised, _ = run(plan, tmp_path / "a", model=model)
    assert max(ranks_of(3)) == 4
    assert not learners(3).all()
    of_head = noised[:, -head.numel() :]
    assert (of_head != 0).all()
    assert torch.equal(noised[:, : -head.numel()] != 0, learners(3))


def test_what_has_no_first_rows_is_refused(tmp_path: Path) -> None:
    """Another kind of adapter, a rank that there is not, and adapters that are cut."""
    with pytest.raises(ConfigurationError, match="has no first rows"):
        rank_axis("base_model.model.embed_tokens.lora_embedding_A.default")
    with pytest.raises(ConfigurationError, match="rank=5 of step 0 must lie between 1 and"):
        run(plan_for(len(DATA)), tmp_path / "a", dynamic_rank=lambda _: 5)
    for rank in (0, 5):
        with pytest.raises(ConfigurationError, match="between 1 and that of the adapters, 4"):
            keep_first(model=model_of(), rank=rank)
    with pytest.raises(ConfigurationError, match="DeepSpeed cuts them"):
        DynamicRank(model=model_of(), buffer=GradientBuffer(Layout({})), ranks=0, cut=True)


def test_correlated_noise_stays_in_rows_that_do_not_always_learn() -> None:
    """In the mean of the last half of 48 steps with momentum, noise that is taken back leaves row k
    of 8, which learns with chance p = (9 - k)/8, √(p²‖aC⁻¹‖² + p(1 - p)·Σ a_t²‖(C⁻¹)_t‖²)·σ: more
    than independent noise from the second on, by as much as docs/recipes.md says.
    """
    steps, momentum = 48, 0.9
    shared: dict[str, Any] = {
        "dataset_size": 2048,
        "expected_batch_size": 128,
        "steps": steps,
        "target_epsilon": 8.0,
        "target_delta": 2048**-1.1,
        "max_grad_norm": 1.0,
    }
    workload = Workload.constant(steps=steps, momentum=momentum, averaged=0.5)
    lag = np.subtract.outer(np.arange(steps), np.arange(steps))
    moved = np.where(lag >= 0, (1 - momentum ** (lag + 1.0)) / (1 - momentum), 0.0)
    weights = moved[steps // 2 :].mean(axis=0)
    left = []
    kinds: list[dict[str, Any]] = [{"correlation": "banded", "workload": workload}, {}]
    for more in kinds:
        plan = PrivacyPlan.calibrate(**shared, **more)
        column = np.zeros(steps)
        column[: plan.bands] = plan.noise_coefficients
        inverse = np.linalg.inv(np.where(lag >= 0, column[lag], 0.0))
        together = np.square(weights @ inverse).sum()
        apart = np.square(weights) @ np.square(inverse).sum(axis=1)
        chances = (9 - np.array([1, 2, 8])) / 8
        each = chances**2 * together + chances * (1 - chances) * apart
        left.append(plan.noise_multiplier * np.sqrt(each))
    ratios = left[0] / left[1]
    assert ratios[0] < 0.5
    page = (Path(__file__).parents[3] / "docs/recipes.md").read_text(encoding="utf-8")
    assert f"leave {ratios[1]:.1f} times" in page
    assert f"and {ratios[2]:.0f} times in the eighth" in page


def test_cutting_keeps_the_first_rows(tmp_path: Path) -> None:
    """B·A of the cut adapter is that of its first rows and columns."""
    model, whole = model_of(), model_of()
    keep_first(model=model, rank=2)
    cut, full = dict(model.named_parameters()), dict(whole.named_parameters())
    for name in (name for name in full if "lora_A" in name):
        a, b = full[name], full[name.replace("lora_A", "lora_B")]
        kept = cut[name.replace("lora_A", "lora_B")] @ cut[name]
        assert torch.allclose(kept, b[:, :2] @ a[:2])
