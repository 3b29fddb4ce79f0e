"""What steps of a run cost when they begin adds up to what they release."""

from __future__ import annotations

import random

import pytest
from dpacc_accounting import Composed, CyclicPoissonSampled, Event, Repeated, epsilon
from dpacc_accounting.events.participation import NOTHING, Participation


def run_of(bands: int) -> Participation:
    return Participation(
        dataset_size=1000, expected_batch_size=20, noise_multiplier=1.1, bands=bands
    )


@pytest.mark.parametrize("bands", [1, 2, 3, 7])
@pytest.mark.parametrize("steps", [7, 12])
def test_charges_add_up_to_the_worst_groups_price_after_any_step(bands: int, steps: int) -> None:
    """Composed one by one, they cost what the event of as many steps costs, and no less."""
    run = run_of(bands)
    for taken in range(1, steps + 1):
        charged = Composed(events=tuple(run.charge(step=t, steps=steps) for t in range(taken)))
        turns = max(len(range(group, taken, bands)) for group in range(bands))
        assert counted(charged) == turns == counted(run.event(steps=taken))
    whole = Composed(events=tuple(run.charge(step=t, steps=steps) for t in range(steps)))
    assert epsilon(event=whole, delta=1e-5) == epsilon(event=run.event(steps=steps), delta=1e-5)


def test_runs_of_several_secrets_charge_every_groups_most_turns() -> None:
    """Killed anywhere, gone on with at the next cycle: no unit has more turns than were charged."""
    draw = random.Random(0)
    for _ in range(50):
        bands, steps = draw.randint(2, 6), draw.randint(6, 30)
        run, at, charged, most = run_of(bands), 0, 0, 0
        while at < steps:
            end = draw.randint(at + 1, steps)
            charged += sum(counted(run.charge(step=t, steps=steps)) for t in range(at, end))
            # Each secret draws its own groups, and a unit may be in the first one every time.
            most += len(range(at, end, bands))
            at = run.next_start(steps_charged=end)
        assert most <= charged <= counted(run.event(steps=steps))


def test_a_run_that_did_not_begin_cost_nothing() -> None:
    """No steps, no event."""
    assert run_of(4).event(steps=0) == NOTHING
    assert epsilon(event=run_of(1).event(steps=0), delta=1e-5).epsilon == 0


def counted(event: Event) -> int:
    match event:
        case Composed(events=parts):
            return sum(counted(part) for part in parts)
        case CyclicPoissonSampled():
            return event.turns
        case Repeated(times=times):
            return times
    return 1
