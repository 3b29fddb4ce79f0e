"""The engine under a plan of several phases: draws, sums, noise, books and resumes of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dpacc_accounting import Phase, epsilon, read_ledger, statement
from dpacc_accounting.ledger.record import LedgerError
from scipy import stats

from dpacc.doctor.engine_room import engine_findings
from dpacc.errors import ConfigurationError
from dpacc.losses.per_example import causal_lm_losses
from dpacc.plan import PrivacyPlan
from dpacc.randomness.run_secret import RunSecret
from dpacc.randomness.sampling import PhasedSampler, sampler_for
from tests.dpacc.step.engine_runs import (
    LENGTHS,
    losses_without,
    plan_for,
    prepared,
    taken,
    updated,
)
from tests.tiny_models import examples

SIZE = len(LENGTHS)
STARTS = {0: (2, 3, 0.4), 2: (3, 9, 1.6), 5: (2, 6, 0.8)}
"""First step: steps, batch and noise of each phase."""


def phased(**changes: Any) -> PrivacyPlan:
    phases = tuple(
        Phase(steps=steps, expected_batch_size=batch, noise_multiplier=changes.get("sigma", sigma))
        for steps, batch, sigma in STARTS.values()
    )
    first = {"expected_batch_size": 3, "noise_multiplier": phases[0].noise_multiplier, "steps": 7}
    changes.pop("sigma", None)
    return plan_for(SIZE, phases=phases, **first, **changes)


def gradients(plan: PrivacyPlan, ledger: Path, losses: Any = causal_lm_losses) -> torch.Tensor:
    """[steps, width], as the optimizer got them."""
    engine, model, optimizer = prepared(plan, ledger)
    taken(engine, model, examples(LENGTHS), losses=losses)
    return torch.stack(optimizer.received)


def batches(plan: PrivacyPlan) -> torch.Tensor:
    """[steps, 1], the public denominator of each."""
    sizes = [plan.at(step).expected_batch_size for step in range(plan.steps)]
    return torch.tensor(sizes, dtype=torch.float32).unsqueeze(1)


@pytest.mark.parametrize("changes", [{}, {"clipping": "adaptive"}, {"noise": "discrete_gaussian"}])
def test_neighbours_move_a_sum_by_at_most_c_in_every_phase(
    ledgers: Iterator[Path], changes: dict[str, Any]
) -> None:
    """Whole gradients times the phase's own batch: the unit that is left out weighs C there."""
    clean = {"sigma": 0.0, "allow_no_privacy": True}
    if "noise" in changes:
        clean = {"sigma": 1e-6}
    plan = phased(**clean, quantile_learning_rate=0.0, **changes)
    without = losses_without(examples(LENGTHS)[7])
    whole, rest = gradients(plan, next(ledgers)), gradients(plan, next(ledgers), without)
    moved = ((whole - rest) * batches(plan)).norm(dim=1).numpy() / plan.max_grad_norm
    drawn = sampler_for(plan=plan, secret=RunSecret.from_fixed_seed(3))
    joined = np.array([7 in drawn.draw(step=step) for step in range(plan.steps)])
    assert joined[2:5].any()
    assert moved[joined] == pytest.approx(np.ones(joined.sum()), abs=2e-3)
    assert (moved[~joined] < 1e-3).all()


@pytest.mark.parametrize("changes", [{}, {"clipping": "adaptive"}, {"noise": "discrete_gaussian"}])
def test_every_phase_has_its_own_noise(ledgers: Iterator[Path], changes: dict[str, Any]) -> None:
    """Chi-square of each phase's released noise by its own σ; another phase's is rejected."""
    quiet: dict[str, Any] = {"quantile_learning_rate": 0.0, **changes}
    plan = phased(**quiet)
    clean = {"sigma": 1e-9} if "noise" in changes else {"sigma": 0.0, "allow_no_privacy": True}
    noise = gradients(plan, next(ledgers)) - gradients(phased(**clean, **quiet), next(ledgers))
    noise = (noise * batches(plan)).double() / plan.max_grad_norm
    for start, (steps, _, _) in STARTS.items():
        surprise = noise[start : start + steps].square()
        law = stats.chi2(surprise.numel())

        def likely(sigma: float, surprise: torch.Tensor = surprise, law: Any = law) -> bool:
            below = law.cdf(float(surprise.sum()) / sigma**2)
            return 1e-4 < below < 1 - 1e-4

        own = plan.at(start).gradient_noise_multiplier
        assert likely(own)
        assert not likely(own * 1.1)
        assert not likely(own / 1.1)


def test_units_join_at_the_rate_of_the_phase(ledgers: Iterator[Path]) -> None:
    """Over many secrets each step's share is its own phase's, and no two steps share coins."""
    plan = phased()
    joined = np.zeros(plan.steps)
    for seed in range(400):
        sampler = sampler_for(plan=plan, secret=RunSecret.from_fixed_seed(seed))
        assert isinstance(sampler, PhasedSampler)
        joined += [len(sampler.draw(step=step)) for step in range(plan.steps)]
    shares = joined / (400 * SIZE)
    assert shares == pytest.approx([0.3, 0.3, 0.9, 0.9, 0.9, 0.6, 0.6], abs=0.035)
    alike = replace(plan, phases=tuple(replace(p, expected_batch_size=3) for p in plan.phases))
    drawn = sampler_for(plan=alike, secret=RunSecret.from_fixed_seed(1))
    sets = {tuple(drawn.draw(step=step)) for step in range(plan.steps)}
    assert len(sets) == plan.steps


def test_the_books_are_right_after_every_step(tmp_path: Path) -> None:
    """Each step is charged with its own phase's rate and noise; the statement shows all phases."""
    plan = phased(target_delta=1e-2)
    engine, model, _ = prepared(plan, tmp_path / "ledger.jsonl", seed=None)
    for done, _ in enumerate(updated(engine, model, examples(LENGTHS)), start=1):
        record = read_ledger(path=engine.ledger)
        priced = epsilon(event=record.event, delta=plan.target_delta)
        assert priced.epsilon == pytest.approx(engine.guarantee().epsilon, rel=1e-9)
        assert engine.guarantee() == plan.guarantee(steps=done)
    engine.close()
    charged = [(r.event.probability, r.event.event.noise_multiplier) for r in record.releases]
    assert charged == [(0.3, 0.4)] * 2 + [(0.9, 1.6)] * 3 + [(0.6, 0.8)] * 2
    said = statement(plan=record.plan, record=record)
    assert "in 3 phases" in said
    assert "| 3–5 | 9 | 0.9 | 1.6 |" in said
    assert "not the plan's step" not in said


def continued(folder: Path, plan: PrivacyPlan, *, at_most: int, resume: bool) -> torch.Tensor:
    """The adapters after so many steps, of a run that is resumed or new."""
    engine, model, _ = prepared(
        plan, folder / "ledger.jsonl", lr=0.5, checkpoints=folder / "checkpoints"
    )
    if resume:
        engine.resume()
    taken(engine, model, examples(LENGTHS), at_most=at_most)
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


def test_a_run_goes_on_in_the_phase_where_it_stopped(tmp_path: Path) -> None:
    """Resumed amid the second phase it ends where it would have; other phases are refused."""
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    plan = phased(clipping="adaptive")
    whole = continued(tmp_path / "whole", plan, at_most=7, resume=False)
    continued(tmp_path / "cut", plan, at_most=3, resume=False)
    first, second, third = plan.phases
    other = replace(plan, phases=(first, third, second))
    with pytest.raises((LedgerError, ConfigurationError), match="phases"):
        continued(tmp_path / "cut", other, at_most=7, resume=True)
    resumed = continued(tmp_path / "cut", plan, at_most=7, resume=True)
    assert torch.equal(resumed, whole)
    assert len(read_ledger(path=tmp_path / "cut" / "ledger.jsonl").releases) == 7


def test_the_doctor_looks_at_every_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    """A healthy engine is found healthy; draws or noise of a later phase alone are found."""
    phases = (
        Phase(steps=20, expected_batch_size=60, noise_multiplier=0.7),
        Phase(steps=9, expected_batch_size=120, noise_multiplier=1.4),
    )
    first = {"expected_batch_size": 60, "noise_multiplier": 0.7, "steps": 29}
    plan = plan_for(3000, target_delta=1e-5, phases=phases, **first)

    def ailing() -> set[str]:
        return {each.subject for each in engine_findings(plan=plan) if not each.healthy}

    assert ailing() == set()
    honest = PrivacyPlan.at
    with monkeypatch.context() as patched:
        patched.setattr(PrivacyPlan, "at", lambda self, step: honest(self, 0))
        assert ailing() == {"sampling"}
