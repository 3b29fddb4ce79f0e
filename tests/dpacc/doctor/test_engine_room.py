"""The installed engine is healthy under every kind of plan, and each fault of it is named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from dpacc.doctor.engine_room import engine_findings
from dpacc.layers.gradient_buffer import GradientBuffer
from dpacc.plan import PrivacyPlan
from dpacc.randomness import correlated_noise
from dpacc.randomness.sampling import PoissonSampler
from dpacc.step import accumulation
from dpacc.step.unit_members import Members


def plan_of(**changes: Any) -> PrivacyPlan:
    settings: dict[str, Any] = {
        "dataset_size": 3000,
        "expected_batch_size": 60,
        "steps": 20,
        "noise_multiplier": 0.7,
        "max_grad_norm": 0.5,
        "target_delta": 1e-5,
    }
    return PrivacyPlan(**settings | changes)


def ailing(**changes: Any) -> set[str]:
    return {each.subject for each in engine_findings(plan=plan_of(**changes)) if not each.healthy}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"clipping": "automatic"},
        {"clipping": "per-layer"},
        {"clipping": "adaptive"},
        {"noise": "discrete_gaussian"},
        {"sampling": "allocated"},
        {"unit": "patient", "unit_cap": 3},
        {"unit": "patient", "unit_cap": 3, "sampling": "examples"},
        {"sampling": "cyclic-poisson", "noise_coefficients": (0.9, *[-0.05] * 15)},
    ],
    ids=str,
)
def test_the_engine_is_healthy(changes: Any) -> None:
    """Sampling, noise and sensitivity are all examined, and are as they must be."""
    findings = engine_findings(plan=plan_of(**changes))
    assert [each.subject for each in findings] == ["sampling", "noise", "sensitivity"]
    assert all(each.healthy for each in findings), findings


def test_less_noise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two percent."""
    honest = correlated_noise.standard_normals
    monkeypatch.setattr(
        correlated_noise, "standard_normals", lambda **words: 0.98 * honest(**words)
    )
    assert ailing() == {"noise"}


def test_a_pair_whose_rows_are_clipped_apart_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of its two rows is measured, and both are added: it would weigh 2C."""
    honest = accumulation.clipping_scales

    def of_one_row(*, squares: Any, **words: Any) -> Any:
        return honest(squares=squares / 4 if at_work else squares, **words)

    at_work: list[bool] = []
    fold = GradientBuffer.expect

    def expect(self: GradientBuffer, examples: int, *, sequences: int = 1) -> None:
        at_work[:] = [True] if sequences > 1 else []
        fold(self, examples, sequences=sequences)

    monkeypatch.setattr(GradientBuffer, "expect", expect)
    monkeypatch.setattr(accumulation, "clipping_scales", of_one_row)
    (found,) = [each for each in engine_findings(plan=plan_of()) if not each.healthy]
    assert "a pair of answers that pull alike moves the sum" in found.words


def test_a_unit_of_which_too_much_is_kept_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four rows of one patient are kept and none of another, so that N is right; σ hides three."""
    honest = Members._kept

    def greedy(self: Members, unit: Sequence[int], *, purpose: str, step: int) -> Sequence[int]:
        if purpose != "kept" or max(map(len, self._of_units)) <= 3:
            return honest(self, unit, purpose=purpose, step=step)
        return [] if 0 in unit else unit[:4]

    monkeypatch.setattr(Members, "_kept", greedy)
    plan = plan_of(unit="patient", unit_cap=3, sampling="examples")
    (found,) = [each for each in engine_findings(plan=plan) if not each.healthy]
    assert "a patient with more examples than count moves the sum" in found.words


def test_a_weaker_clip_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One layer left out of the norm: the sum moves by more than C."""
    honest = accumulation.clipping_scales

    def forgetful(*, squares: Any, **words: Any) -> Any:
        return honest(squares=squares[:, :1], **words).expand_as(squares)

    monkeypatch.setattr(accumulation, "clipping_scales", forgetful)
    assert ailing() == {"sensitivity"}


def test_other_sampling_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws that forget every tenth example."""
    honest = PoissonSampler.draw

    def forgetful(self: PoissonSampler, *, step: int) -> Any:
        drawn = honest(self, step=step)
        return drawn[drawn % 10 != 0]

    monkeypatch.setattr(PoissonSampler, "draw", forgetful)
    assert ailing() == {"sampling"}


def test_no_noise_is_not_private() -> None:
    """σ = 0 is told in words."""
    findings = engine_findings(plan=plan_of(noise_multiplier=0.0, allow_no_privacy=True))
    (noise,) = (each for each in findings if each.subject == "noise")
    assert not noise.healthy
    assert "NOT private" in noise.words
