"""The installed engine under a plan, on made-up data: its draws, its noise, and its clip."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from dpacc.data.sequences import as_rows
from dpacc.doctor.finding import Finding
from dpacc.doctor.statistics import draws_finding, noise_finding, uncorrelated
from dpacc.plan import INDEPENDENT, PrivacyPlan, Sampling
from dpacc.randomness.run_secret import RunSecret
from dpacc.randomness.sampling import sampler_for
from dpacc.step.engine import PrivacyEngine

_STEPS, _WIDTH, _UNITS = 20, 64, 8
_SEED = 0
_ROUNDING = 1e-4

ODD_EXAMPLES = {
    "an ordinary one": 1.0,
    "one with an enormous gradient": 1e30,
    "one with a tiny gradient": 1e-30,
    "one whose gradient is NaN": float("nan"),
    "one whose gradient is infinite": float("inf"),
}


def engine_findings(*, plan: PrivacyPlan) -> list[Finding]:
    """Sampling, noise and sensitivity of the engine that is installed here, under `plan`."""
    return [_sampling(plan), _noise(plan), _sensitivity(plan)]


def _sampling(plan: PrivacyPlan) -> Finding:
    sampler = sampler_for(plan=plan, secret=RunSecret.from_fixed_seed(_SEED))
    return draws_finding(sampler=sampler, plan=plan, least=10 * _STEPS)


def _noise(plan: PrivacyPlan) -> Finding:
    """Examples without a gradient leave the noise alone to be released."""
    silent = _small(plan, units=_UNITS, steps=max(_STEPS, plan.bands))
    noise = _released(silent, [0.0] * silent.dataset_size)
    multipliers = [silent.at(at).gradient_noise_multiplier for at in range(silent.steps)]
    if not all(multipliers):
        return Finding(subject="noise", healthy=False, words="the plan adds none: NOT private")
    alike = noise.numpy() / np.array(multipliers)[:, None]
    return noise_finding(
        noise=uncorrelated(noise=alike, coefficients=plan.noise_coefficients),
        standard_deviation=silent.max_grad_norm,
        gaussian=plan.noise == "gaussian",
    )


def _sensitivity(plan: PrivacyPlan) -> Finding:
    """Un-noised sums of neighbours differ by at most C, whatever the example is."""
    clean = _one_step(plan, drawn=_UNITS)
    others = [float(i + 1) for i in range(_UNITS - 1)]
    without = _released(clean, [*others, 0.0])
    moved = {
        name: float((_released(clean, [*others, scale]) - without).norm())
        for name, scale in ODD_EXAMPLES.items()
    }
    # Each of its two rows would weigh C if they were clipped apart.
    with_pair, without_pair = (
        _released(clean, [*others, scale], answers=2) for scale in (1e3, 0.0)
    )
    moved["a pair of answers that pull alike"] = float((with_pair - without_pair).norm())
    if plan.unit_cap is not None:
        moved[f"a {plan.unit} with more examples than count"] = _moved_by_a_unit(plan)
    worst = max(moved, key=lambda name: moved[name] if moved[name] == moved[name] else np.inf)
    healthy = moved[worst] <= plan.max_grad_norm * (1 + _ROUNDING)
    words = (
        f"no example of {len(moved)} odd kinds moves the sum by more than C"
        if healthy
        else f"{worst} moves the sum by {moved[worst]:.4g}, and C is {plan.max_grad_norm:g}"
    )
    return Finding(subject="sensitivity", healthy=healthy, words=words)


def _moved_by_a_unit(plan: PrivacyPlan) -> float:
    """By how much a unit with two examples more than count moves the sum, over what is hidden.

    Its examples pull alike. Where they are drawn one by one, the noise hides k of them.
    """
    cap = plan.unit_cap or 1
    hidden = cap if plan.sampling == "examples" else 1
    others = range(_UNITS - 1)
    owners = [*others, *[_UNITS - 1] * (cap + 2)]
    sampling: Sampling = "examples" if plan.sampling == "examples" else "poisson"
    clean = _one_step(plan, drawn=len(others) + hidden, sampling=sampling)
    there, away = (
        _released(clean, [*[1.0] * len(others), *[scale] * (cap + 2)], owners=owners)
        for scale in (1e3, 0.0)
    )
    return float((there - away).norm()) / hidden


def _one_step(plan: PrivacyPlan, *, drawn: int, sampling: Sampling = "poisson") -> PrivacyPlan:
    """The plan's clip without its noise, in one step that all take part in."""
    first = replace(plan.at(0), sampling=sampling, noise_coefficients=INDEPENDENT)
    return _small(first, units=drawn, steps=1, noise_multiplier=0.0, allow_no_privacy=True)


def _small(plan: PrivacyPlan, *, units: int, steps: int, **changes: Any) -> PrivacyPlan:
    """The plan's mechanism on a few made-up examples, all of which join each step of theirs.

    Each of its phases, if it has any, takes that many steps.
    """
    phases = tuple(replace(p, expected_batch_size=units, steps=steps) for p in plan.phases)
    return replace(
        plan,
        dataset_size=units * plan.bands,
        expected_batch_size=units,
        steps=steps * len(plan.each_phase),
        phases=phases,
        quantile_learning_rate=0.0,
        count_noise_multiplier=max(each.count_noise for each in plan.each_phase),
        **{"noise": "gaussian", **changes} if "noise_multiplier" in changes else changes,
    )


def _released(
    plan: PrivacyPlan,
    scales: Sequence[float],
    *,
    answers: int = 1,
    owners: Sequence[int] | None = None,
) -> Tensor:
    """[steps, width], the noised sums of examples whose gradients have these scales.

    Args:
        plan: how many steps, and how they are clipped.
        scales: one an example.
        answers: rows of each example, as a preference pair has two.
        owners: whose each example is, who pull alike; by default each is a unit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model: nn.Module = _TwoLayers()
    optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    received: list[Tensor] = []
    weights = list(model.parameters())

    def keep(*_: Any) -> None:
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        received.append(torch.cat([each.detach().flatten().cpu() for each in gradients]))

    optimizer.register_step_pre_hook(keep)
    owners = range(len(scales)) if owners is None else owners
    data = [{"number": own, "scale": scale} for own, scale in zip(owners, scales, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        engine = PrivacyEngine(
            Accelerator(), plan, ledger=Path(folder) / "ledger.jsonl", fixed_seed=_SEED
        )
        model, optimizer = engine.prepare(model, optimizer)
        probes = [{"number": at, "scale": 1.0} for at in range(2)]
        collate = partial(_collate, answers=answers)
        units = None if plan.unit_cap is None else owners
        for step in engine.steps(data, collate, units=units, probe_examples=probes):
            for batch in step:
                step.backward(_losses(model, batch))
            step.update()
        engine.close()
    return torch.stack(received) * plan.expected_batch_size


class _TwoLayers(nn.Module):
    """Two layers side by side, so that one that is left out of the norm is missed."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(_WIDTH, _WIDTH, bias=False)
        self.second = nn.Linear(_WIDTH, _WIDTH, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Both outputs, added."""
        outputs: Tensor = self.first(inputs) + self.second(inputs)
        return outputs


def _collate(examples: list[Any], *, answers: int) -> dict[str, Tensor]:
    numbers = torch.tensor([each["number"] % _WIDTH for each in examples])
    shape = (len(examples), answers, 1) if answers > 1 else (len(examples), 1)
    return {
        "input_ids": numbers.view(-1, *[1] * (len(shape) - 1)).expand(shape).clone(),
        "attention_mask": torch.ones(shape),
        "scales": torch.tensor([each["scale"] for each in examples]),
    }


def _losses(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    ids = as_rows(batch)["input_ids"][:, 0]
    outputs: Tensor = model(torch.eye(_WIDTH, device=ids.device)[ids])
    return outputs.view(len(batch["scales"]), -1).sum(dim=1) * batch["scales"]
