"""The engine audited on Dirac canaries: honest plans pass, closely; every planted leak is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from dpacc.audit import rehearse
from dpacc.errors import ConfigurationError
from dpacc.plan import PrivacyPlan
from dpacc.randomness import correlated_noise
from dpacc.randomness.sampling import AllocatedSampler, PoissonSampler


def plan_of(**changes: Any) -> PrivacyPlan:
    settings: dict[str, Any] = {
        "dataset_size": 3000,
        "expected_batch_size": 3000,
        "steps": 2,
        "noise_multiplier": 1.5,
        "max_grad_norm": 0.7,
        "target_delta": 1e-5,
    }
    return PrivacyPlan(**settings | changes)


BANDED: dict[str, Any] = {
    "expected_batch_size": 1000,
    "steps": 6,
    "sampling": "cyclic-poisson",
    "noise_coefficients": (0.8, 0.5, 0.3),
}
WHOLE: dict[str, Any] = {"unit": "patient", "unit_cap": 3}
SINGLY: dict[str, Any] = WHOLE | {"noise_multiplier": 4.5, "sampling": "examples"}
ALLOCATED: dict[str, Any] = {"expected_batch_size": 1500, "steps": 4, "sampling": "allocated"}


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({}, 0.75),
        ({"clipping": "automatic"}, 0.75),
        ({"clipping": "per-layer"}, 0.4),
        ({"expected_batch_size": 1000, "steps": 9}, 0.3),
        (BANDED, 0.4),
        (ALLOCATED, 0.5),
        (WHOLE, 0.75),
        (SINGLY, 0.6),
    ],
    ids=["flat", "automatic", "per-layer", "Poisson", "correlated", "allocated", "whole", "singly"],
)
def test_an_honest_engine_keeps_its_claim_narrowly(changes: Any, share: float) -> None:
    """Not refuted; the bounds order themselves and reach a good share of the claimed ε."""
    audit = rehearse(plan=plan_of(**changes), seed=1)
    assert not audit.refuted
    assert audit.independent_epsilon is not None
    assert 0 < audit.epsilon < audit.gaussian_epsilon < audit.independent_epsilon
    assert share * audit.claim.epsilon < audit.independent_epsilon < audit.claim.epsilon


def test_an_adapting_norm_leaves_no_independent_scores() -> None:
    """Adaptive clipping ties the canaries together: the bound that needs independence is absent."""
    audit = rehearse(plan=plan_of(clipping="adaptive"), seed=1)
    assert not audit.refuted
    assert audit.independent_epsilon is None
    assert audit.epsilon > 0


def too_little_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = correlated_noise.standard_normals
    monkeypatch.setattr(correlated_noise, "standard_normals", lambda **words: 0.8 * honest(**words))


def clip_at_twice_the_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    from dpacc.step import accumulation

    honest = accumulation.clipping_scales
    monkeypatch.setattr(accumulation, "clipping_scales", lambda **words: 1.3 * honest(**words))


def draw_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = PoissonSampler.draw

    def draw(self: PoissonSampler, *, step: int) -> Any:
        both = [honest(self, step=step + shift) for shift in (0, 1000, 2000)]
        return torch.unique(torch.cat([torch.from_numpy(each) for each in both])).numpy()

    monkeypatch.setattr(PoissonSampler, "draw", draw)


@pytest.mark.parametrize("plant", [too_little_noise, clip_at_twice_the_norm, draw_too_often])
def test_a_leaking_engine_is_refuted(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fifth less noise, a third more clipping norm, or thrice the sampling rate: found."""
    changes: dict[str, Any] = {}
    if plant is draw_too_often:
        changes = {"expected_batch_size": 600, "steps": 20}
    plant(monkeypatch)
    assert rehearse(plan=plan_of(**changes), seed=1).refuted


def allocate_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = AllocatedSampler.draw

    def draw(self: AllocatedSampler, *, step: int) -> Any:
        later = honest(self, step=step + 1000 * self.steps_an_epoch)
        return np.union1d(honest(self, step=step), later)

    monkeypatch.setattr(AllocatedSampler, "draw", draw)


def allocate_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    everyone = lambda self, step: np.arange(self.dataset_size)  # noqa: E731
    monkeypatch.setattr(AllocatedSampler, "draw", everyone)


@pytest.mark.parametrize("plant", [allocate_twice, allocate_nobody])
def test_an_engine_that_allocates_too_often_is_refuted(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two draws of a step for each unit and epoch, or everybody in every step: found."""
    plant(monkeypatch)
    assert rehearse(plan=plan_of(**ALLOCATED), seed=1).refuted


def half_the_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = correlated_noise.standard_normals
    monkeypatch.setattr(correlated_noise, "standard_normals", lambda **words: 0.5 * honest(**words))


def ignore_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    everyone = lambda self, step: np.ones(self.dataset_size, dtype=bool)  # noqa: E731
    monkeypatch.setattr(PoissonSampler, "_may_join", everyone)


def correlate_by_too_large_a_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = correlated_noise.CorrelatedNoise.__init__

    def start(self: Any, *, secret: Any, coefficients: Any) -> None:
        honest(self, secret=secret, coefficients=[1.3 * each for each in coefficients])

    monkeypatch.setattr(correlated_noise.CorrelatedNoise, "__init__", start)


def draw_groups_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = PoissonSampler._may_join

    def join(self: PoissonSampler, step: int) -> Any:
        return honest(self, 0) | honest(self, step % self.groups)

    monkeypatch.setattr(PoissonSampler, "_may_join", join)


@pytest.mark.parametrize(
    "plant", [half_the_noise, ignore_groups, correlate_by_too_large_a_matrix, draw_groups_anew]
)
def test_correlated_noise_that_leaks_is_refuted(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of it, no turns, a C that is not normalised, or a group that joins in every turn."""
    plant(monkeypatch)
    assert rehearse(plan=plan_of(**BANDED), seed=1).refuted


def test_rehearsals_differ_unless_seeded() -> None:
    """Fresh coins and noise every time; a seed repeats both."""
    plan = plan_of(dataset_size=50, expected_batch_size=25)
    first, second = (rehearse(plan=plan, seed=3) for _ in range(2))
    assert first == second
    np.testing.assert_array_equal(first.scores, second.scores)
    seen: list[int] = []
    fresh = [rehearse(plan=plan, tracked=lambda steps: seen.extend(steps) or steps) for _ in "ab"]
    assert seen == [0, 1, 0, 1]
    assert not np.array_equal(fresh[0].scores, fresh[1].scores)


def test_what_cannot_be_rehearsed_is_refused() -> None:
    """Replace-one plans, more canaries than examples, and no canaries: with the remedy."""
    with pytest.raises(ConfigurationError, match="adjacency add-or-remove"):
        rehearse(plan=plan_of(adjacency="replace-one"))
    for canaries in (1, 3001):
        with pytest.raises(ConfigurationError, match="between 2 and the plan's"):
            rehearse(plan=plan_of(), canaries=canaries)
