"""Dirac canaries in a real LoRA model: each is one element of norm C, through the user's loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from dpacc.audit import Claim, DiracCanaries, judge
from dpacc.errors import ConfigurationError
from dpacc.losses.per_example import causal_lm_losses
from dpacc.plan import PrivacyPlan
from dpacc.step.admission.invented_examples import made_up_examples
from dpacc.step.engine import PrivacyEngine
from tests.dpacc.step.engine_runs import RecordingOptimizer, noiseless
from tests.tiny_models import collate, examples, tiny_model

CANARIES = 400


def trained(
    plan: PrivacyPlan, included: np.ndarray, ledger: Path, data: list[dict[str, Any]]
) -> tuple[DiracCanaries, RecordingOptimizer]:
    """Reviews and canaries side by side in a tiny Llama's training."""
    model = tiny_model("llama")
    optimizer = RecordingOptimizer([p for p in model.parameters() if p.requires_grad])
    canaries = DiracCanaries(model=model, optimizer=optimizer, canaries=len(included))
    like = made_up_examples(model=model, like=data[0])
    train = [*canaries.beside(data), *canaries.examples(included=included, like=like[0])]
    losses, with_canaries = canaries.losses(causal_lm_losses), canaries.collate(collate)
    engine = PrivacyEngine(Accelerator(cpu=True), plan, ledger=ledger, fixed_seed=5)
    engine.prepare(model, optimizer)
    for step in engine.steps(train, with_canaries, probe_examples=canaries.beside(like)):
        for batch in step:
            step.backward(losses(model, batch))
        step.update()
    engine.close()
    return canaries, optimizer


def scores_of(canaries: DiracCanaries, plan: PrivacyPlan) -> np.ndarray:
    return canaries.scores(
        expected_batch_size=plan.expected_batch_size, max_grad_norm=plan.max_grad_norm
    )


def test_each_canary_adds_c_to_one_element(tmp_path: Path) -> None:
    """Without noise and data: present canaries score 1, absent ones 0, nothing else moves."""
    included = np.arange(30) % 3 == 0
    data = [dict(each, labels=[-100] * len(each["labels"])) for each in examples([4, 6])]
    plan = noiseless(32, steps=1)
    canaries, optimizer = trained(plan, included, tmp_path / "a.jsonl", data)
    np.testing.assert_allclose(scores_of(canaries, plan), included, atol=1e-5)
    assert int((optimizer.received[0] != 0).sum()) == included.sum()


def test_an_optimizer_that_extends_another_is_observed_once(tmp_path: Path) -> None:
    """Torch calls a hook for the optimizer's step and for the one that it extends alike."""
    torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    data = [dict(each, labels=[-100] * len(each["labels"])) for each in examples([4, 6])]
    plan = noiseless(12, steps=1)
    canaries, _ = trained(plan, np.ones(10, bool), tmp_path / "a.jsonl", data)
    np.testing.assert_allclose(scores_of(canaries, plan), 1.0, atol=1e-5)


def test_ordinary_examples_train_as_without_canaries(tmp_path: Path) -> None:
    """The sum over reviews is the same, but for the canaries' elements, and each is still C."""
    data = examples([7, 3, 12, 5])
    plan = noiseless(24, steps=1, max_grad_norm=0.01)
    absent, without = trained(plan, np.zeros(20, bool), tmp_path / "a.jsonl", data)
    present, with_all = trained(plan, np.ones(20, bool), tmp_path / "b.jsonl", data)
    added = scores_of(present, plan) - scores_of(absent, plan)
    np.testing.assert_allclose(added, 1.0, atol=1e-4)
    assert without.received[0].norm() > 0
    difference = (with_all.received[0] - without.received[0]).abs() * 24 / 0.01
    assert int((difference > 1e-3).sum()) == 20


def test_the_engine_passes_its_audit_among_reviews(tmp_path: Path) -> None:
    """400 canaries in a tiny Llama beside reviews: not refuted, and a quarter of its ε is seen."""
    data = examples([5, 9, 7, 3] * 4)
    size = CANARIES + len(data)
    plan = PrivacyPlan(
        dataset_size=size,
        expected_batch_size=size,
        steps=2,
        noise_multiplier=1.0,
        max_grad_norm=0.1,
        target_delta=1e-5,
    )
    included = np.random.default_rng(0).random(CANARIES) < 0.5
    canaries, _ = trained(plan, included, tmp_path / "a.jsonl", data)
    claim = Claim.of_event(event=plan.event(steps=2), delta=1e-5)
    audit = judge(included=included, scores=scores_of(canaries, plan), claim=claim)
    assert not audit.refuted
    assert 0.25 * audit.claim.epsilon < audit.gaussian_epsilon < audit.claim.epsilon


def test_more_canaries_than_elements_are_refused() -> None:
    """The error says how many there are room for."""
    model = torch.nn.Linear(2, 3, bias=False)
    optimizer = torch.optim.SGD(model.parameters())
    DiracCanaries(model=model, optimizer=optimizer, canaries=6)
    with pytest.raises(ConfigurationError, match="there are 6"):
        DiracCanaries(model=model, optimizer=optimizer, canaries=7)
