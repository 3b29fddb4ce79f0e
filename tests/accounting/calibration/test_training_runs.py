"""What a calibration is given is one run, whose price is that of its event and nothing else."""

from dataclasses import replace
from typing import Any

import pytest
from dpacc_accounting import Adjacency, delta, epsilon
from dpacc_accounting.calibration.training_runs import TrainingRun, training

RUN = TrainingRun(0.02, 50, Adjacency.REPLACE_ONE, "patient", "pld")
TERMS: dict[str, Any] = {"adjacency": Adjacency.REPLACE_ONE, "unit": "patient", "method": "pld"}


def test_a_run_costs_what_its_event_costs() -> None:
    """At a δ as at an ε, in the run's own adjacency, unit and method."""
    event = training(rate=0.02, noise_multiplier=1.5, steps=50)
    by_delta, by_epsilon = RUN.at_delta(1.5, delta=1e-4), RUN.at_epsilon(1.5, epsilon=1.0)
    assert by_delta.event == by_epsilon.event == event
    assert by_delta.guarantee == epsilon(event=event, delta=1e-4, **TERMS)
    assert by_epsilon.guarantee == delta(event=event, epsilon=1.0, **TERMS)


@pytest.mark.parametrize("changes", [{"steps": 51}, {"sample_rate": 0.021}])
def test_what_a_search_varies_is_what_is_priced(changes: dict[str, Any]) -> None:
    """A run of more steps or a larger sample is another event, and says so of itself."""
    more = replace(RUN, **changes).at_delta(1.5, delta=1e-4)
    assert {name: getattr(more, name) for name in changes} == changes
    assert more.guarantee.epsilon > RUN.at_delta(1.5, delta=1e-4).guarantee.epsilon
