"""What steps of a run cost when they begin adds up to what they release."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from dpacc_accounting import (
    Composed,
    CyclicPoissonSampled,
    Event,
    PoissonSampled,
    RandomlyAllocated,
    Repeated,
    delta,
    epsilon,
    to_dp_event,
)
from dpacc_accounting.events.participation import (
    NOTHING,
    EpochAllocation,
    Participation,
    Phase,
    PhasedParticipation,
)


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


def allocated(*, steps: int, batch: int = 25) -> EpochAllocation:
    return EpochAllocation(
        dataset_size=100, expected_batch_size=batch, noise_multiplier=1.1, planned_steps=steps
    )


@pytest.mark.parametrize(("steps", "batch"), [(12, 25), (10, 25), (3, 25), (9, 30), (4, 100)])
def test_charges_of_allocated_epochs_add_up_to_their_event_after_any_step(
    steps: int, batch: int
) -> None:
    """An epoch's first step pays for all of the epoch that the run holds, and nobody pays twice."""
    run = allocated(steps=steps, batch=batch)
    for taken in range(1, steps + 1):
        charged = [run.charge(step=t, steps=steps) for t in range(taken)]
        paid = [event for event in charged if event != NOTHING]
        assert len(paid) == -(-taken // run.cycle)
        assert Composed(events=tuple(paid)) == unfolded(run.event(steps=taken))
    covered = sum(steps_of(event) for event in paid)
    assert covered == steps


def test_an_epoch_that_is_cut_off_is_a_sampled_one() -> None:
    """Two of four steps: a unit is in one of them with chance 1/2; cheaper than a whole epoch."""
    cut = allocated(steps=6).charge(step=4, steps=6)
    assert isinstance(cut, PoissonSampled)
    assert (cut.probability, cut.event.steps) == (0.5, 2)
    whole = allocated(steps=8).charge(step=4, steps=8)
    found = [epsilon(event=event, delta=1e-3).epsilon for event in (cut, whole)]
    assert 0 < found[0] < found[1]


def test_the_first_steps_of_simulated_epochs_lose_what_is_claimed() -> None:
    """400,000 epochs of 4 steps, of which 2 are seen: δ in both directions within 5 errors."""
    sigma, at, draw = 0.8, 0.7, np.random.default_rng(3)
    outputs = draw.normal(size=(400_000, 2))
    absent = ratio(outputs, sigma)
    place = draw.integers(4, size=len(outputs))
    for step in range(2):
        outputs[place == step, step] += 1 / sigma
    present = ratio(outputs, sigma)
    run = EpochAllocation(
        dataset_size=100, expected_batch_size=25, noise_multiplier=sigma, planned_steps=2
    )
    found = delta(event=run.event(steps=2), epsilon=at).delta
    removing = np.maximum(1 - math.exp(at) / present, 0)
    adding = np.maximum(1 - math.exp(at) * absent, 0)
    errors = [sample.std() / math.sqrt(len(sample)) for sample in (removing, adding)]
    assert removing.mean() == pytest.approx(found, abs=5 * errors[0] + 1e-3 * found)
    assert adding.mean() <= found + 5 * errors[1]


def ratio(outputs: np.ndarray, sigma: float) -> np.ndarray:
    """How likelier two outputs are with the unit, which is in neither in half of the cases."""
    once = np.exp(outputs / sigma - 1 / (2 * sigma**2))
    mixed: np.ndarray = 0.5 + 0.25 * once.sum(axis=1)
    return mixed


def test_a_new_secret_waits_for_the_next_epoch() -> None:
    """Killed anywhere, gone on with at the next epoch: no unit is in more steps than were paid."""
    draw = random.Random(1)
    for _ in range(50):
        steps = draw.randint(4, 30)
        run, at, paid, most = allocated(steps=steps), 0, 0, 0
        while at < steps:
            end = draw.randint(at + 1, steps)
            paid += sum(run.charge(step=t, steps=steps) != NOTHING for t in range(at, end))
            # Each secret draws anew, and a unit may be in the first step of each epoch it begins.
            most += len({step // run.cycle for step in range(at, end)})
            assert at % run.cycle == 0
            at = run.next_start(steps_charged=end)
        assert most == paid


def unfolded(event: Event) -> Composed:
    match event:
        case Composed(events=parts):
            return Composed(events=tuple(p for part in parts for p in unfolded(part).events))
        case Repeated(event=inner, times=times):
            return Composed(events=(inner,) * times)
    return Composed(events=(event,))


def steps_of(event: Event) -> int:
    match event:
        case PoissonSampled(event=inner):
            return steps_of(inner)
        case RandomlyAllocated(steps=steps):
            return steps
    raise AssertionError(event)


PHASED = PhasedParticipation(
    dataset_size=1000,
    phases=(
        Phase(steps=4, expected_batch_size=20, noise_multiplier=1.6),
        Phase(steps=3, expected_batch_size=80, noise_multiplier=0.9),
        Phase(steps=2, expected_batch_size=10, noise_multiplier=0.7),
    ),
)


def test_phases_cost_their_composition_after_any_step() -> None:
    """As dp-accounting composes the charges one by one; what was charged is what is priced."""
    theirs, charged = PLDAccountant(value_discretization_interval=1e-3), []
    for taken in range(1, 10):
        charged.append(PHASED.charge(step=taken - 1, steps=9))
        theirs.compose(to_dp_event(event=charged[-1]))
        priced = epsilon(event=PHASED.event(steps=taken), delta=1e-5).epsilon
        assert priced == epsilon(event=Composed(events=tuple(charged)), delta=1e-5).epsilon
        if taken in (4, 6, 9):
            assert priced == pytest.approx(theirs.get_epsilon(1e-5), rel=2e-3)
    assert [event.probability for event in charged] == [0.02] * 4 + [0.08] * 3 + [0.01] * 2


def test_a_step_beyond_the_phases_is_charged_as_their_last() -> None:
    """So that a ledger of too many steps costs more, and not nothing."""
    assert PHASED.charge(step=20, steps=9) == PHASED.charge(step=8, steps=9)
    assert counted(PHASED.event(steps=12)) == 12
    assert PHASED.event(steps=0) == NOTHING
    assert [PHASED.next_start(steps_charged=at) for at in (0, 3, 4, 9)] == [0, 3, 4, 9]


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"steps": 1.5},
        {"expected_batch_size": 0},
        {"noise_multiplier": -1.0},
        {"noise_multiplier": math.inf},
        {"noise_multiplier": math.nan},
        {"noise_multiplier": "1"},
    ],
    ids=str,
)
def test_a_phase_out_of_range_is_refused(wrong: dict[str, object]) -> None:
    """By the number at fault, in Python and in JSON."""
    right = {"steps": 1, "expected_batch_size": 2, "noise_multiplier": 1.0}
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        Phase.read({**right, **wrong})
    with pytest.raises(ValueError, match="not a mapping"):
        Phase.read({**right, "rate": 1})
