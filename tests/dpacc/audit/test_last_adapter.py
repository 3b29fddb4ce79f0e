"""Text canaries in a real engine's run, read off the last adapter and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from dpacc.audit import Audit, Claim, judge
from dpacc.audit.last_adapter import SOUGHT, CanaryGradients, presence
from dpacc.audit.membership import membership_report
from dpacc.audit.text_canaries import (
    add_new_tokens,
    as_if_all_in,
    canary_texts,
    left_out,
    planted,
)
from dpacc.errors import ConfigurationError
from dpacc.layers.adapters import attach_gradient_buffer
from dpacc.losses.per_example import causal_lm_losses
from dpacc.plan import PrivacyPlan
from dpacc.randomness import correlated_noise
from dpacc.recipe.models import add_lora
from dpacc.step.engine import PrivacyEngine
from tests.tiny_models import VOCABULARY, collate, tiny_base

CANARIES = 250


def plan_of(epsilon: float) -> PrivacyPlan:
    """Two steps that all canaries join."""
    return PrivacyPlan.calibrate(
        dataset_size=CANARIES,
        expected_batch_size=CANARIES,
        steps=2,
        target_epsilon=epsilon,
        target_delta=1e-5,
        max_grad_norm=1.0,
        clipping="automatic",
    )


def audited(plan: PrivacyPlan, folder: Path, read: Any, *, coins: int = 0) -> Audit:
    """A tiny Llama trained on canaries alone, and what one reading of its adapter proves."""
    base = tiny_base("llama", hidden=64)
    add_new_tokens(model=base, known=VOCABULARY, tokens=CANARIES)
    model = add_lora(model=base, rank=8, alpha=16, dropout=0.0, target_modules=["all-linear"])
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    texts = canary_texts(
        kind="new-tokens", canaries=CANARIES, tokens=4, vocabulary=VOCABULARY, avoid=(0, 1, 2)
    )
    included = np.random.default_rng(coins).random(CANARIES) < 0.5
    data = planted(texts, included)
    engine = PrivacyEngine(
        Accelerator(cpu=True), plan, ledger=folder / "ledger.jsonl", fixed_seed=coins
    )
    model, optimizer = engine.prepare(model, optimizer)
    whole = as_if_all_in(standing=data, texts=texts)
    gradients = CanaryGradients(model=model, texts=whole, collate=collate)
    for step in engine.steps(data, collate):
        for batch in step:
            step.backward(causal_lm_losses(model, batch))
        step.update()
    engine.close()
    claim = Claim.of_event(event=plan.event(), delta=plan.target_delta)
    scores = gradients.scores(read=read, mu=SOUGHT * claim.mu)
    return judge(included=included, scores=scores, claim=claim)


def separation(audit: Audit) -> float:
    """The chance that a present canary scores above an absent one."""
    inside = audit.included
    found = membership_report(members=audit.scores[inside], strangers=audit.scores[~inside])
    return found.auc


@pytest.fixture
def a_third_of_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the ledger charges for stays as it is."""
    honest: Callable[..., Any] = correlated_noise.standard_normals
    monkeypatch.setattr(correlated_noise, "standard_normals", lambda **words: honest(**words) / 3)


def judged_together(audits: Sequence[Audit], plan: PrivacyPlan) -> Audit:
    """Runs with canaries of their own are one run to each coin."""
    return judge(
        included=np.concatenate([each.included for each in audits]),
        scores=np.concatenate([each.scores for each in audits]),
        claim=Claim.of_event(event=plan.event(), delta=plan.target_delta),
    )


def test_last_adapters_alone_bound_epsilon(tmp_path: Path) -> None:
    """At a claimed 4 they show 1, and nothing is refuted; of losses alone almost as much is seen.

    What canaries have in common hides most of it where it is not taken out.
    """
    plan = plan_of(4.0)
    runs = [audited(plan, tmp_path / str(coins), "weights", coins=coins) for coins in range(5)]
    together = judged_together(runs, plan)
    assert together.epsilon >= 1
    assert not together.refuted
    by_losses = separation(audited(plan, tmp_path / "losses", "losses"))
    assert abs(by_losses - separation(runs[0])) < 0.01
    assert separation(audited(plan, tmp_path / "fall", "fall")) < by_losses


def test_a_third_of_the_noise_is_refuted_by_last_adapters(
    a_third_of_the_noise: None, tmp_path: Path
) -> None:
    """The ledger claims 4 and two thirds of its noise are missing: seen in the models alone.

    Half of it takes more adapters than these to be sure of, as docs/assurance.md has.
    """
    plan = plan_of(4.0)
    runs = [audited(plan, tmp_path / str(coins), "weights", coins=coins) for coins in range(5)]
    together = judged_together(runs, plan)
    assert together.refuted


def test_scores_know_no_coin_but_through_the_adapter(tmp_path: Path) -> None:
    """Under noise that hides everything, guesses are right half the time; no two scores agree."""
    audit = audited(plan_of(0.05), tmp_path, "weights")
    assert len(set(audit.scores)) == CANARIES
    assert audit.epsilon == 0
    assert abs(separation(audit) - 0.5) < 0.1


def test_what_canaries_share_is_taken_out() -> None:
    """Each has its share of one direction, which blinds the products and not the estimate."""
    rng = np.random.default_rng(0)
    shared = rng.uniform(size=(200, 1)) * rng.standard_normal(2000)
    directions = rng.standard_normal((200, 2000)) + shared
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    included = rng.random(200) < 0.5
    along = directions @ (3 * included @ directions + rng.standard_normal(2000))
    scores = presence(along=along, overlaps=directions @ directions.T, mu=3.0)

    def gap(values: np.ndarray) -> float:
        return float((values[included].mean() - values[~included].mean()) / values.std())

    assert gap(scores) > 1.2
    assert gap(along) < 0.4


def test_a_model_without_the_engines_layers_is_refused() -> None:
    """Its gradients are those of whole batches: told, with what to hand in."""
    model = add_lora(model=tiny_base("llama"), rank=2, alpha=2, target_modules=["q_proj"])
    texts = canary_texts(kind="unique-tokens", canaries=4, tokens=3, vocabulary=VOCABULARY)
    with pytest.raises(ConfigurationError, match=r"what engine\.prepare returned"):
        CanaryGradients(model=model, texts=texts, collate=collate)


def test_a_canary_without_anything_to_learn_is_refused() -> None:
    """One that was left out has no gradient: its score would tell the coin."""
    model = add_lora(model=tiny_base("llama"), rank=2, alpha=2, target_modules=["q_proj"])
    attach_gradient_buffer(model)
    texts = canary_texts(kind="unique-tokens", canaries=4, tokens=3, vocabulary=VOCABULARY)
    with pytest.raises(ConfigurationError, match="teaches these adapters nothing"):
        CanaryGradients(model=model, texts=[*texts[:3], left_out(texts[3])], collate=collate)
