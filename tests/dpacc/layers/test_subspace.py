"""A second phase within few directions: which they are, what is clipped there, what leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from dpacc_accounting import Phase, epsilon, read_ledger
from scipy import stats

from dpacc.errors import ConfigurationError
from dpacc.layers.subspace import Subspace, principal_directions
from dpacc.losses.per_example import causal_lm_losses
from dpacc.plan import PrivacyPlan
from dpacc.randomness.run_secret import RunSecret
from dpacc.randomness.sampling import sampler_for
from dpacc.step.engine import PrivacyEngine
from dpacc.step.release import Release
from tests.dpacc.step.engine_runs import LENGTHS, losses_without, plan_for, prepared, taken
from tests.tiny_models import examples

FIRST, SECOND, RANK = 5, 4, 3
SIZE = len(LENGTHS)
DATA = examples(LENGTHS)


def phased(sigma: float = 0.5, **changes: Any) -> PrivacyPlan:
    """Five steps with noise, then four with `sigma`."""
    phases = (
        Phase(steps=FIRST, expected_batch_size=6, noise_multiplier=0.5),
        Phase(steps=SECOND, expected_batch_size=8, noise_multiplier=sigma),
    )
    first = {"expected_batch_size": 6, "noise_multiplier": 0.5, "steps": FIRST + SECOND}
    return plan_for(SIZE, phases=phases, **first, **changes)


def run(
    plan: PrivacyPlan,
    folder: Path,
    *,
    losses: Any = causal_lm_losses,
    at_most: int = FIRST + SECOND,
    resume: bool = False,
    **settings: Any,
) -> tuple[torch.Tensor, torch.Tensor, PrivacyEngine]:
    """The gradients that the optimizer got, [steps, width], the adapters after, and the engine."""
    folder.mkdir(exist_ok=True)
    engine, model, optimizer = prepared(
        plan, folder / "ledger.jsonl", **{"subspace_rank": RANK, **settings}
    )
    if resume:
        engine.resume()
    taken(engine, model, DATA, losses=losses, at_most=at_most)
    return (
        torch.stack(optimizer.received),
        torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad]),
        engine,
    )


def test_what_a_second_phase_releases_lies_within_the_subspace(tmp_path: Path) -> None:
    """Every gradient of it is V times k numbers, up to rounding; the first phase's are not."""
    received, _, engine = run(phased(), tmp_path)
    assert engine._subspace is not None
    basis = engine._subspace.basis
    assert basis is not None
    assert torch.allclose(basis.T @ basis, torch.eye(RANK), atol=1e-5)
    outside = received - received @ basis @ basis.T
    share = outside.norm(dim=1) / received.norm(dim=1)
    assert share[FIRST:].max() < 1e-5
    assert share[:FIRST].max() > 0.1


def test_the_directions_are_those_of_what_was_released(tmp_path: Path) -> None:
    """V is the singular vectors of the first phase's noised gradients, and of nothing else."""
    received, _, engine = run(phased(), tmp_path)
    assert engine._subspace is not None
    basis = engine._subspace.basis
    assert basis is not None
    directions = torch.linalg.svd(received[:FIRST].double(), full_matrices=False).Vh[:RANK]
    cosines = torch.linalg.svdvals(directions @ basis.double())
    assert cosines.min() > 1 - 1e-6


@pytest.mark.parametrize("strategy", ["materialize", "ghost"])
@pytest.mark.parametrize("changes", [{}, {"clipping": "automatic"}, {"noise": "discrete_gaussian"}])
def test_a_unit_weighs_at_most_c_within_the_subspace(
    tmp_path: Path, strategy: str, changes: dict[str, Any]
) -> None:
    """Neighbours whose first phases found the same directions: each projection moves by C."""
    quiet = {"sigma": 1e-6} if changes.get("noise") else {"sigma": 0.0, "allow_no_privacy": True}
    plan = phased(**quiet, **changes)
    whole, _, engine = run(plan, tmp_path / "a", per_example_gradients=strategy)
    sampler = sampler_for(plan=plan, secret=RunSecret.from_fixed_seed(3))
    for gone in (2, 7):
        rest = run_second_phase_alike(plan, tmp_path / str(gone), engine, gone, strategy)
        moved = ((whole[FIRST:] - rest[FIRST:]) * 8).norm(dim=1) / plan.max_grad_norm
        joined = np.array([gone in sampler.draw(step=step) for step in range(FIRST, 9)])
        assert joined.any()
        assert (moved <= 1 + 1e-3).all()
        assert (moved[torch.tensor(~joined)] < 1e-3).all()
        assert (moved[torch.tensor(joined)] > 0.4).all()


def run_second_phase_alike(
    plan: PrivacyPlan, folder: Path, engine: PrivacyEngine, gone: int, strategy: str
) -> torch.Tensor:
    """Without one example, in the directions that the run with it found."""
    assert engine._subspace is not None
    basis = engine._subspace.basis
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("dpacc.layers.subspace.principal_directions", lambda *_, **__: basis)
        losses = losses_without(DATA[gone])
        received, _, _ = run(plan, folder, losses=losses, per_example_gradients=strategy)
    return received


def test_noise_within_the_subspace_is_the_second_phases_own(tmp_path: Path) -> None:
    """Chi-square of k numbers a step; a third more or less is rejected."""
    first = Phase(steps=FIRST, expected_batch_size=6, noise_multiplier=0.5)
    shared = {"expected_batch_size": 6, "noise_multiplier": 0.5, "steps": FIRST + 60}
    received = []
    for sigma in (0.9, 0.0):
        second = Phase(steps=60, expected_batch_size=8, noise_multiplier=sigma)
        plan = plan_for(SIZE, phases=(first, second), allow_no_privacy=True, **shared)
        found, _, engine = run(plan, tmp_path / f"{sigma}", at_most=65, subspace_rank=5)
        received.append(found)
    assert engine._subspace is not None
    assert engine._subspace.basis is not None
    noise = ((received[0] - received[1])[FIRST:] * 8) @ engine._subspace.basis
    surprise = float((noise.double() / plan.max_grad_norm).square().sum())
    law = stats.chi2(60 * 5)
    assert 1e-4 < law.cdf(surprise / 0.9**2) < 1 - 1e-4
    for wrong in (0.9 * 1.3, 0.9 / 1.3):
        assert not 1e-4 < law.cdf(surprise / wrong**2) < 1 - 1e-4


def test_both_strategies_and_any_cut_release_the_same(tmp_path: Path) -> None:
    """One micro-batch or one example at a time, kept or in two passes: equal to rounding."""
    whole, _, _ = run(phased(), tmp_path / "a", lr=0.5)
    for name, settings in {
        "b": {"per_example_gradients": "ghost"},
        "c": {"micro_batch_tokens": 1},
        "d": {"wire": "fp32", "micro_batch_units": 2},
    }.items():
        other, _, _ = run(phased(), tmp_path / name, lr=0.5, **settings)
        torch.testing.assert_close(other, whole, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("killed_after", [3, FIRST, FIRST + 2])
def test_a_resumed_run_ends_where_it_would_have(tmp_path: Path, killed_after: int) -> None:
    """Killed in the first phase, between both, and in the second: the same V and adapters."""
    plan = phased(clipping="adaptive")
    _, whole, _ = run(plan, tmp_path / "a", lr=0.5, checkpoints=tmp_path / "a" / "kept")
    settings = {"lr": 0.5, "checkpoints": tmp_path / "b" / "kept"}
    run(plan, tmp_path / "b", at_most=killed_after, **settings)
    with pytest.raises(ConfigurationError, match="rank of the subspace=3"):
        run(plan, tmp_path / "b", resume=True, **settings | {"subspace_rank": 2})
    _, resumed, _ = run(plan, tmp_path / "b", resume=True, **settings)
    assert torch.equal(resumed, whole)


def test_a_checkpoint_in_the_second_phase_holds_the_directions(tmp_path: Path) -> None:
    """Saved there and resumed twice: the first phase's sums are gone, and V is what it was."""
    plan = phased()
    settings = {"lr": 0.5, "checkpoints": tmp_path / "b" / "kept"}
    _, whole, engine = run(plan, tmp_path / "a", lr=0.5)
    run(plan, tmp_path / "b", at_most=FIRST + 1, **settings)
    # A resume keeps a checkpoint of where it stands.
    run(plan, tmp_path / "b", resume=True, at_most=1, **settings)
    _, resumed, again = run(plan, tmp_path / "b", resume=True, **settings)
    assert torch.equal(resumed, whole)
    assert engine._subspace is not None
    assert again._subspace is not None
    assert torch.equal(engine._subspace.basis, again._subspace.basis)


def test_as_many_directions_as_elements_are_lifted_back() -> None:
    """Where k is the number of elements, what is released is still in their coordinates."""
    release = object.__new__(Release)
    release._subspace = Subspace(rank=2, width=2, begins=2, accelerator=Accelerator(cpu=True))
    turned = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    release._subspace.load({"basis": turned})
    release._elements = 2
    torch.testing.assert_close(release._lifted(torch.tensor([1.0, 0.0])), turned[:, 0])


def test_the_price_is_the_plans(tmp_path: Path) -> None:
    """k numbers with noise cost what all with noise cost: the same Gaussian a step."""
    plan = phased(sigma=0.9)
    run(plan, tmp_path)
    spent = epsilon(event=read_ledger(path=tmp_path / "ledger.jsonl").event, delta=1e-3)
    assert spent.epsilon == pytest.approx(plan.guarantee().epsilon, rel=1e-9)


def test_a_gradient_that_is_not_finite_counts_as_zero(tmp_path: Path) -> None:
    """In the second phase too, and it spoils no other unit's."""
    without = losses_without(DATA[7])

    def infinite(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        # Zero where the example is left out, so infinite or NaN there alone.
        mine = without(model, batch) == 0
        return causal_lm_losses(model, batch) * torch.where(mine, float("inf"), 1.0)

    received, _, _ = run(phased(), tmp_path / "a", losses=infinite)
    assert received.isfinite().all()
    left_out, _, _ = run(phased(), tmp_path / "b", losses=without)
    torch.testing.assert_close(received, left_out, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("plan", "settings", "told"),
    [
        (phased(), {"subspace_rank": 6}, "at least as many steps, which has 5"),
        (phased(), {"subspace_rank": 0}, "lower it"),
        (plan_for(SIZE), {}, "subspace_rank=3 with 0 phases"),
        (phased(clipping="per-layer"), {}, "no layer has a norm of its own"),
        (phased(), {"dynamic_rank": 1}, "choose one of the two"),
    ],
)
def test_a_subspace_that_cannot_be_is_refused(
    tmp_path: Path, plan: PrivacyPlan, settings: dict[str, Any], told: str
) -> None:
    """Before the first step, with what to change."""
    with pytest.raises(ConfigurationError, match=told):
        run(plan, tmp_path, **settings)


def test_principal_directions_are_orthonormal_and_deterministic() -> None:
    """Of wide rows in parts, of rows that depend on each other, and of none at all."""
    torch.manual_seed(0)
    rows = torch.randn(8, 70_000) * torch.logspace(0, -3, 8).unsqueeze(1)
    found = principal_directions(rows, rank=4)
    assert torch.allclose(found.T @ found, torch.eye(4), atol=1e-5)
    exact = torch.linalg.svd(rows.double(), full_matrices=False).Vh[:4]
    assert torch.linalg.svdvals(exact @ found.double()).min() > 1 - 1e-6
    assert torch.equal(found, principal_directions(rows.clone(), rank=4))
    for poor in (torch.ones(6, 50), torch.zeros(6, 50)):
        few = principal_directions(poor, rank=4)
        assert torch.allclose(few.T @ few, torch.eye(4), atol=1e-5)


def test_another_runs_directions_are_refused() -> None:
    """A checkpoint of other adapters, or of another k."""
    subspace = Subspace(rank=2, width=10, begins=4, accelerator=Accelerator(cpu=True))
    for state in ({"basis": torch.zeros(9, 2)}, {"sums": torch.zeros(3, 10)}, {}):
        with pytest.raises(ConfigurationError, match="of other adapters or another rank"):
            subspace.load(state)
