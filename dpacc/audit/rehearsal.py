"""Run a plan with the real engine on nothing but canaries, and see whether it keeps its word."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from dpacc.audit.claims import Claim
from dpacc.audit.gradient_canaries import DiracCanaries, turn_weights
from dpacc.audit.verdict import Audit, Coins, Scores, judge
from dpacc.errors import ConfigurationError
from dpacc.plan import PrivacyPlan
from dpacc.randomness.sampling import sampler_for
from dpacc.step.engine import PrivacyEngine

_MOST_CANARIES = 10_000


def rehearse(
    *,
    plan: PrivacyPlan,
    canaries: int | None = None,
    confidence: float = 0.95,
    seed: int | None = None,
    tracked: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> Audit:
    """Train a small model under `plan` on Dirac canaries alone, and audit what was released.

    Every step draws, clips, sums, charges, noises and updates as a real run does; examples that
    are no canary contribute zero. No private data is read. Where examples are drawn and a unit is
    protected whole, a canary is a unit of as many examples as are kept, all alike.

    Args:
        plan: what to carry out, its noise multiplier and adjacency included.
        canaries: how many, at most as many as the plan's dataset_size holds; by default that, up to
            10,000.
        confidence: of the verdict.
        seed: of the coins and of the engine's draws, for tests; by default both are fresh.
        tracked: passes the numbers of the steps on, and may show how far they are.

    Raises:
        ConfigurationError: the plan is for replace-one adjacency, or has fewer examples.
    """
    if plan.adjacency != "add-or-remove":
        raise ConfigurationError(
            f"the audit adds and removes canaries, and the plan is for {plan.adjacency} "
            "neighbours; audit the same plan with adjacency add-or-remove"
        )
    weights = turn_weights(plan=plan)
    most, each = plan.dataset_size // _examples_of_a_canary(plan), ""
    if most < plan.dataset_size:
        each = f" / {_examples_of_a_canary(plan)} examples of each {plan.unit}"
    count = min(most, _MOST_CANARIES) if canaries is None else canaries
    if not 2 <= count <= most:
        raise ConfigurationError(
            f"canaries={count} must lie between 2 and the plan's dataset_size={plan.dataset_size}"
            f"{each}"
        )
    event = plan.event()
    claim = Claim.of_event(event=event, delta=plan.target_delta, unit=plan.unit)
    included = np.random.default_rng(seed).random(count) < 0.5
    scores = _train(plan, included, seed, tracked)
    # Half of what a canary adds on average: known beforehand, because nothing else adds there.
    share = 1 / math.sqrt(2) if plan.clipping == "per-layer" else 1.0
    taken = np.arange(plan.steps) % plan.bands == np.arange(plan.bands)[:, None]
    looked_for = (weights * taken).sum(axis=1).mean()
    moved = _chance_in_turn(plan) * _examples_of_a_canary(plan)
    threshold = share * float(looked_for) * moved / 2
    return judge(
        included=included,
        scores=scores,
        claim=claim,
        confidence=confidence,
        threshold=None if plan.clipping == "adaptive" else threshold,
    )


def _chance_in_turn(plan: PrivacyPlan) -> float:
    """With which a canary joins a step that it may join."""
    return plan.bands * plan.sampling_probability


def _examples_of_a_canary(plan: PrivacyPlan) -> int:
    """Where examples are drawn one by one, as many of a unit's as are kept."""
    return plan.unit_cap or 1 if plan.sampling == "examples" else 1


class _TwoFactors(nn.Module):
    """A LoRA's two factors and nothing beneath them."""

    def __init__(self, elements: int) -> None:
        super().__init__()
        width = math.isqrt(elements) + 1
        rank = width // 2 + 1
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, width, bias=False)


def _train(
    plan: PrivacyPlan,
    included: Coins,
    seed: int | None,
    tracked: Callable[[Sequence[int]], Iterable[int]],
) -> Scores:
    model = _TwoFactors(len(included))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    canaries = DiracCanaries(model=model, optimizer=optimizer, canaries=len(included))
    examples = canaries.examples(included=included)
    owned = [example for example in examples for _ in range(_examples_of_a_canary(plan))]
    others = [{"canary": 0, "canary_weight": 0.0}] * (plan.dataset_size - len(owned))
    data = [*owned, *others]
    owners = [example["canary"] for example in owned]
    owners += range(len(examples), len(examples) + len(others))
    units = None if plan.unit_cap is None else owners
    losses, collate = canaries.losses(), canaries.collate()
    with tempfile.TemporaryDirectory() as folder:
        engine = PrivacyEngine(
            Accelerator(), plan, ledger=Path(folder) / "ledger.jsonl", fixed_seed=seed
        )
        model, optimizer = engine.prepare(model, optimizer)
        groups = sampler_for(plan=plan, secret=engine._secret).turns()[: len(included)]
        canaries.weigh(weights=turn_weights(plan=plan), groups=groups)
        steps = engine.steps(data, collate, units=units)
        for step, _ in zip(steps, tracked(range(plan.steps)), strict=False):
            for batch in step:
                step.backward(losses(model, batch))
            step.update()
        engine.close()
    return canaries.scores(
        expected_batch_size=plan.expected_batch_size, max_grad_norm=plan.max_grad_norm
    )
