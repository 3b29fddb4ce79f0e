"""Plans of several phases: their JSON, their price, and what they refuse to be asked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from dpacc_accounting import Adjacency, Composed, Phase, epsilon

from dpacc.errors import ConfigurationError
from dpacc.loops.plain_loader import require_the_loaders
from dpacc.plan import PrivacyPlan, phased_plan
from dpacc.plan.several_phases import with_noise
from dpacc.search.private_search import PrivateSearch
from dpacc.step.update_rule import step_noise

PHASES = (
    Phase(steps=3, expected_batch_size=20, noise_multiplier=2.0),
    Phase(steps=5, expected_batch_size=40, noise_multiplier=1.0),
    Phase(steps=4, expected_batch_size=10, noise_multiplier=1.5),
)


def plan_of(*phases: Phase, **changes: Any) -> PrivacyPlan:
    phases = phases or PHASES
    settings: dict[str, Any] = {
        "dataset_size": 200,
        "expected_batch_size": phases[0].expected_batch_size,
        "steps": sum(phase.steps for phase in phases),
        "noise_multiplier": phases[0].noise_multiplier,
        "max_grad_norm": 0.1,
        "target_delta": 1e-4,
        "phases": phases,
    }
    return PrivacyPlan(**settings | changes)


def test_a_plan_says_which_phase_a_step_is_in() -> None:
    """Its batch, noise and steps; the last phase's beyond the end; itself without phases."""
    plan = plan_of()
    found = [plan.at(step) for step in (0, 2, 3, 7, 8, 11, 99)]
    assert [each.expected_batch_size for each in found] == [20, 20, 40, 40, 10, 10, 10]
    assert [each.noise_multiplier for each in found] == [2, 2, 1, 1, 1.5, 1.5, 1.5]
    assert {each.phases for each in found} == {()}
    alone = plan.at(0)
    assert alone.at(5) is alone
    assert alone.each_phase == (alone,)
    assert plan.noise_in_words == "2, then 1, then 1.5"
    assert plan.batch_in_words == "20, then 40, then 10"


def test_a_plan_survives_its_document() -> None:
    """Phases keep their order; a plan without any writes what earlier versions wrote."""
    plan = plan_of()
    assert PrivacyPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    swapped = plan_of(PHASES[0], PHASES[2], PHASES[1])
    assert plan.fingerprint != swapped.fingerprint
    assert "phases" not in plan.at(0).to_json()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"noise_multiplier": 1.0}, "is not the first phase's"),
        ({"expected_batch_size": 40}, "is not the first phase's"),
        ({"steps": 11}, "phases of 12 steps in all"),
        ({"sampling": "allocated"}, "set sampling='poisson'"),
        ({"sampling": "cyclic-poisson", "noise_coefficients": (0.8, 0.6)}, "sampling='poisson'"),
        ({"noise_coefficients": (0.8, 0.6)}, "takes sampling='cyclic-poisson'"),
        ({"sampling": "examples", "unit": "user", "unit_cap": 2}, "sampling='poisson'"),
        ({"dataset_size": 30}, "exceeds dataset_size=30"),
        ({"phases": "abc"}, "are not a list of phases"),
        ({"phases": [{"steps": 12}]}, "not a mapping of"),
        ({"clipping": "adaptive", "count_noise_multiplier": 0.6}, "must exceed half"),
    ],
)
def test_phases_that_do_not_fit_are_refused(wrong: dict[str, Any], told: str) -> None:
    """Each by the setting at fault."""
    with pytest.raises(ValueError, match=told):
        plan_of(**wrong)


def test_a_phase_without_noise_is_refused_wherever_it_is() -> None:
    """Unless no privacy is allowed, and then nothing is claimed."""
    silent = Phase(steps=1, expected_batch_size=20, noise_multiplier=0.0)
    with pytest.raises(ValueError, match="gives no privacy"):
        plan_of(*PHASES, silent)
    plan = plan_of(*PHASES, silent, allow_no_privacy=True)
    assert plan.guarantee().epsilon == float("inf")


@pytest.mark.parametrize(
    "name", ["sampling_probability", "gradient_noise_multiplier", "count_noise"]
)
def test_what_changes_between_phases_is_asked_of_one(name: str) -> None:
    """The plan as a whole has none of it, and says whom to ask."""
    plan = plan_of()
    with pytest.raises(ValueError, match=rf"{name} is another in each .* ask plan\.at\(step\)"):
        getattr(plan, name)
    assert getattr(plan.at(4), name) > 0
    with pytest.raises(ValueError, match="ask plan"):
        step_noise(plan=plan)


def test_a_loader_has_one_batch_size() -> None:
    """Phases of several are refused, with the loop that can."""
    loader: Any = None
    with pytest.raises(ConfigurationError, match="open loop"):
        require_the_loaders(plan_of(), loader, None)


def test_a_calibrated_plan_keeps_its_budget_and_the_proportions() -> None:
    """ε at most the target and hardly below; each phase has its own batch and noise."""
    plan = phased_plan(
        dataset_size=200, phases=PHASES, target_epsilon=6.0, target_delta=1e-4, max_grad_norm=1.0
    )
    assert 5.999 < plan.guarantee().epsilon <= 6.0
    scale = plan.noise_multiplier / 2.0
    for found, asked in zip(plan.phases, PHASES, strict=True):
        assert found.noise_multiplier == pytest.approx(scale * asked.noise_multiplier)
        assert (found.steps, found.expected_batch_size) == (asked.steps, asked.expected_batch_size)


def test_every_step_of_a_plan_is_charged_as_it_is_priced() -> None:
    """ε after so many steps is that of the charges until then, in either adjacency."""
    for adjacency in (Adjacency.ADD_OR_REMOVE, Adjacency.REPLACE_ONE):
        plan = plan_of(adjacency=adjacency)
        charged = [plan.charge(step) for step in range(plan.steps)]
        for taken in (2, 3, 4, 9, 12):
            priced = plan.guarantee(steps=taken).epsilon
            whole = epsilon(
                event=Composed(events=tuple(charged[:taken])), delta=1e-4, adjacency=adjacency
            )
            assert whole.epsilon == pytest.approx(priced, rel=1e-9)


def test_a_search_raises_the_noise_of_every_phase() -> None:
    """In proportion, so that its choice keeps the budget."""
    plan = phased_plan(
        dataset_size=200, phases=PHASES, target_epsilon=6.0, target_delta=1e-4, max_grad_norm=1.0
    )
    search = PrivateSearch.calibrate(plan=plan, mean_trials=4)
    assert 5.9 < search.guarantee().epsilon <= 6.0
    ratios = [
        louder.noise_multiplier / once.noise_multiplier
        for louder, once in zip(search.plan.phases, plan.phases, strict=True)
    ]
    assert min(ratios) > 1.02
    assert ratios == pytest.approx([ratios[0]] * 3)
    assert with_noise(plan, noise_multiplier=plan.noise_multiplier) == plan
