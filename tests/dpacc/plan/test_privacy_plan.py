"""What a run's settings may say."""

import pytest
from dpacc_accounting import Adjacency

from dpacc.plan import PrivacyPlan


def test_a_run_states_no_null_unit() -> None:
    """The engine's neighbours are with and without a unit; the remedy, taken, is a plan."""
    with pytest.raises(ValueError, match="use 'add-or-remove'") as refused:
        plan_of(Adjacency.ZERO_OUT)
    assert "\n" not in str(refused.value)
    assert plan_of(Adjacency.ADD_OR_REMOVE).guarantee().epsilon > 0


def plan_of(adjacency: Adjacency) -> PrivacyPlan:
    return PrivacyPlan(
        dataset_size=1000,
        expected_batch_size=10,
        steps=2,
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        target_delta=1e-5,
        adjacency=adjacency,
    )
