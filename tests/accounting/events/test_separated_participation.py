"""Rounds apart: no participation moves the release by more than is charged, and what that costs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from dpacc_accounting import (
    Adjacency,
    Composed,
    Event,
    Gaussian,
    Ledger,
    SeparatedParticipation,
    epsilon,
    event_from_json,
    event_to_json,
    group_epsilon,
    read_ledger,
    to_dp_event,
    without_amplification,
)
from dpacc_accounting.factorization.buffered import ToeplitzColumn
from dpacc_accounting.gaussian import gaussian_epsilon

COLUMNS = {
    "independent": ToeplitzColumn(coefficients=(1.0,)),
    "bands": ToeplitzColumn(coefficients=(0.8, 0.5, 0.3)),
    "flat bands": ToeplitzColumn(coefficients=(0.5,) * 4),
    "one buffer": ToeplitzColumn(coefficients=(0.9,), weights=(0.5,), decays=(0.8,)),
    "two buffers": ToeplitzColumn(coefficients=(0.7,), weights=(0.4, 0.2), decays=(0.95, 0.0)),
}


def event(column: ToeplitzColumn, **fields: int) -> SeparatedParticipation:
    """Rounds with that C, at σ = 3."""
    return column.event(noise_multiplier=3.0, **fields)


def strategy(column: ToeplitzColumn, rounds: int, restarts: tuple[int, ...] = ()) -> np.ndarray:
    """C, cut into blocks where a new secret begins."""
    series = column.series(rounds)
    block = np.searchsorted(restarts, np.arange(rounds), side="right")
    matrix = np.zeros((rounds, rounds))
    for row, at in itertools.product(range(rounds), repeat=2):
        if at <= row and block[row] == block[at]:
            matrix[row, at] = series[row - at]
    return matrix


def patterns(rounds: int, separation: int, first: int = 0) -> Iterator[tuple[int, ...]]:
    """Every set of rounds at least so far apart."""
    yield ()
    for start in range(first, rounds):
        for rest in patterns(rounds, separation, start + separation):
            yield (start, *rest)


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize(("rounds", "separation"), [(7, 1), (8, 2), (9, 3), (9, 4), (5, 9)])
def test_no_pattern_moves_the_release_by_more_than_is_charged(
    name: str, rounds: int, separation: int
) -> None:
    """After every round: all patterns, equal updates and of either sign; one pattern reaches it."""
    column = COLUMNS[name]
    matrix = strategy(column, rounds)
    squares = np.zeros(rounds)
    for pattern in patterns(rounds, separation):
        for signs in itertools.product((1.0, -1.0), repeat=max(len(pattern) - 1, 0)):
            moved = np.zeros(rounds)
            moved[list(pattern)] = (1.0, *signs)[: len(pattern)]
            squares = np.maximum(squares, np.cumsum(np.square(matrix @ moved)))
    for rows in range(1, rounds + 1):
        charged = event(column, separation=separation, rounds=rows).sensitivity
        assert charged == pytest.approx(math.sqrt(squares[rows - 1]), rel=1e-12)


@pytest.mark.parametrize("name", COLUMNS)
def test_updates_of_any_direction_move_it_no_further(name: str) -> None:
    """A thousand random patterns of vectors of norm at most 1: ‖C·G‖ is within the charge."""
    column, rounds, separation = COLUMNS[name], 9, 3
    matrix, rng = strategy(column, rounds), np.random.default_rng(0)
    known = [*patterns(rounds, separation)]
    charged = event(column, separation=separation, rounds=rounds).sensitivity
    for at in rng.integers(len(known), size=1000):
        moved = np.zeros((rounds, 3))
        for turn in known[at]:
            direction = rng.normal(size=3)
            moved[turn] = direction / np.linalg.norm(direction) * rng.uniform() ** 0.1
        assert np.linalg.norm(matrix @ moved) <= charged


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("separation", [1, 2, 3])
def test_no_interruption_costs_more_than_none(name: str, separation: int) -> None:
    """All patterns that stay apart and all restarts of 7 rounds, after every round."""
    column, rounds = COLUMNS[name], 7
    charged = [
        event(column, separation=separation, rounds=rows).sensitivity
        for rows in range(1, rounds + 1)
    ]
    known = [*patterns(rounds, separation)]
    moved = np.zeros((rounds, len(known)))
    for at, pattern in enumerate(known):
        moved[list(pattern), at] = 1.0
    for count in range(rounds):
        for restarts in itertools.combinations(range(1, rounds), count):
            reached = np.cumsum(np.square(strategy(column, rounds, restarts) @ moved), axis=0)
            assert (np.sqrt(reached.max(axis=1)) <= np.array(charged) + 1e-12).all()


@pytest.mark.parametrize("name", COLUMNS)
def test_a_limit_on_how_often_counts(name: str) -> None:
    """At most k of the rounds: all such patterns, and never more than without the limit."""
    column, rounds, separation = COLUMNS[name], 8, 2
    matrix = strategy(column, rounds)
    for most in (1, 2, 3, 9):
        reached = max(
            float(np.linalg.norm(matrix[:, list(pattern)].sum(axis=1)))
            for pattern in patterns(rounds, separation)
            if len(pattern) <= most
        )
        charged = event(column, separation=separation, rounds=rounds, participations=most)
        assert charged.sensitivity == pytest.approx(reached, rel=1e-12)
        assert charged.turns == min(most, 4)


@pytest.mark.parametrize("name", COLUMNS)
def test_rounds_charged_one_by_one_add_up(name: str) -> None:
    """Σ of each round's S² is that of all, and events that follow each other are one."""
    column = COLUMNS[name]
    single = [event(column, separation=3, rounds=1, after=after) for after in range(10)]
    together = event(column, separation=3, rounds=10)
    assert math.fsum(each.sensitivity**2 for each in single) == pytest.approx(
        together.sensitivity**2, rel=1e-12
    )
    assert epsilon(event=Composed(events=tuple(single)), delta=1e-6).epsilon == pytest.approx(
        epsilon(event=together, delta=1e-6).epsilon, rel=1e-12
    )
    joined = single[0]
    for each in single[1:]:
        both = joined.joined(each)
        assert both is not None
        joined = both
    assert joined == together
    assert single[0].joined(single[2]) is None
    other = event(column, separation=4, rounds=1, after=1)
    assert single[0].joined(other) is None


def test_of_a_column_that_increases_nothing_is_claimed() -> None:
    """There rounds 0, b, 2b … are not the worst ones: of c = (0.1, 0, 0, 1), two rounds 3 apart
    move more than two that are 2 apart.
    """
    matrix = strategy(ToeplitzColumn(coefficients=(0.1, 0.0, 0.0, 1.0)), 7)
    near, far = (np.linalg.norm(matrix[:, [0, at]].sum(axis=1)) for at in (2, 3))
    assert far > near
    for wrong in ((0.1, 0.0, 0.0, 1.0), (0.8, -0.1), (0.0, 0.0), (), (math.inf,)):
        with pytest.raises(ValueError, match="coefficients="):
            SeparatedParticipation(noise_multiplier=1.0, separation=2, rounds=6, coefficients=wrong)
    with pytest.raises(ValueError, match="increase"):
        event(
            ToeplitzColumn(coefficients=(0.5,), weights=(0.6,), decays=(0.5,)),
            separation=2,
            rounds=3,
        )


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"separation": 0}, "separation"),
        ({"rounds": 0}, "rounds"),
        ({"rounds": 2_000_000}, "rounds"),
        ({"after": -1}, "after"),
        ({"participations": 0}, "participations"),
        ({"noise_multiplier": -1}, "noise_multiplier"),
        ({"noise_multiplier": math.nan}, "noise_multiplier"),
        ({"decays": (0.5,)}, "decays"),
        ({"decays": (1.0,), "weights": (0.5,)}, "decays"),
        ({"coefficients": (0.8, 0.6), "weights": (0.1,), "decays": (0.5,)}, "one coefficient"),
    ],
)
def test_what_is_no_such_event_is_refused(wrong: dict[str, object], named: str) -> None:
    """By the name of the field."""
    fields: dict[str, object] = {"noise_multiplier": 1.0, "separation": 2, "rounds": 5}
    with pytest.raises(ValueError, match=named):
        SeparatedParticipation(**{**fields, **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", COLUMNS)
def test_it_survives_a_document(name: str) -> None:
    """As JSON and back, limit included."""
    once = event(COLUMNS[name], separation=3, rounds=9, after=2, participations=2)
    assert event_from_json(document=event_to_json(event=once)) == once


@pytest.mark.parametrize(
    ("adjacency", "reach"),
    [(Adjacency.ADD_OR_REMOVE, 1), (Adjacency.ZERO_OUT, 1), (Adjacency.REPLACE_ONE, 2)],
)
def test_it_costs_what_one_gaussian_costs(adjacency: Adjacency, reach: int) -> None:
    """Five turns of norm 1 at σ = 3: μ = √5/3 in closed form, by every method."""
    run = event(ToeplitzColumn(coefficients=(0.8, 0.6)), separation=10, rounds=50)
    exact = gaussian_epsilon(mu=reach * math.sqrt(5) / 3, delta=1e-6)
    for method in ("pld", "gaussian"):
        found = epsilon(event=run, delta=1e-6, adjacency=adjacency, method=method)
        assert found.epsilon == pytest.approx(exact, rel=1e-9)
    assert epsilon(event=run, delta=1e-6, adjacency=adjacency, method="rdp").epsilon > exact


def test_dp_accounting_prices_it_alike() -> None:
    """As one Gaussian in its terms; rounds that move nothing are no event there."""
    run = event(COLUMNS["two buffers"], separation=4, rounds=30)
    accountant = PLDAccountant(value_discretization_interval=1e-3)
    accountant.compose(to_dp_event(event=run))
    ours = epsilon(event=run, delta=1e-6).epsilon
    assert ours == pytest.approx(accountant.get_epsilon(1e-6), rel=2e-3)
    nothing = event(COLUMNS["bands"], separation=9, rounds=2, after=5)
    assert nothing.sensitivity == 0
    assert nothing.joint_noise_multiplier == math.inf
    assert isinstance(to_dp_event(event=nothing), dp_accounting.NoOpDpEvent)
    assert epsilon(event=nothing, delta=1e-6).epsilon == 0


def test_without_noise_nothing_is_promised() -> None:
    """σ = 0 has infinite ε."""
    run = SeparatedParticipation(noise_multiplier=0.0, separation=2, rounds=5)
    assert epsilon(event=run, delta=1e-6).epsilon == math.inf


def test_a_group_may_take_part_in_the_same_rounds() -> None:
    """Two clients cost twice the μ, and nothing is amplified that knowing turns would undo."""
    run = event(COLUMNS["bands"], separation=4, rounds=8)
    pair = group_epsilon(event=run, size=2, delta=1e-6)
    assert pair.epsilon == pytest.approx(
        gaussian_epsilon(mu=2 * run.sensitivity / 3, delta=1e-6), rel=1e-9
    )
    assert without_amplification(event=run) == run


def test_a_ledger_of_such_rounds_is_one_event(tmp_path: Path) -> None:
    """A line each, priced and told as the rounds that they are; another release stays apart."""

    def told(name: str, events: list[Event]) -> Event:
        plan = {"adjacency": "add-or-remove", "unit": "client", "target_delta": 1e-6}
        with Ledger.open(path=tmp_path / name, plan=plan) as ledger:
            for step, each in enumerate(events):
                ledger.charge(step=step, event=each)
        return read_ledger(path=tmp_path / name).event

    single = [event(COLUMNS["bands"], separation=4, rounds=1, after=after) for after in range(6)]
    record = told("apart.jsonl", [*single[:4], Gaussian(noise_multiplier=9.0), *single[4:]])
    first = event(COLUMNS["bands"], separation=4, rounds=4)
    last = event(COLUMNS["bands"], separation=4, rounds=2, after=4)
    assert record == Composed(events=(first, Gaussian(noise_multiplier=9.0), last))
    assert told("one.jsonl", [*single]) == event(COLUMNS["bands"], separation=4, rounds=6)
