"""Federated prices are those of what each unit really went through, in either view."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from dpacc_accounting import (
    Composed,
    ExponentialMechanism,
    FederatedGuarantee,
    Gaussian,
    PoissonSampled,
    Repeated,
    epsilon,
    price_federation,
    read_federation,
)
from dpacc_accounting import delta as delta_at
from dpacc_accounting.federation.rounds import LocalRounds
from hypothesis import given, settings
from hypothesis import strategies as st

DELTA = 1e-6
NORTH = {"name": "north", "rounds": 100, "local_steps": 10, "sampling_probability": 0.01,
         "noise_multiplier": 1.0}  # fmt: skip
SOUTH = {"name": "south", "rounds": 40, "local_steps": 5, "sampling_probability": 0.02,
         "noise_multiplier": 0.8}  # fmt: skip
COHORT = {"level": "client", "delta": DELTA, "rounds": 50, "sampling": "poisson",
          "sampling_rate": 0.02, "noise_multiplier": 1.0}  # fmt: skip
SHARED = COHORT | {
    "noise": "distributed-gaussian",
    "secure_aggregation": {"clients": 100, "threshold": 70, "colluding": 6},
}


def _price(document: dict[str, Any]) -> FederatedGuarantee:
    return price_federation(federation=read_federation(document=document))


def _examples(*clients: dict[str, Any], **more: Any) -> FederatedGuarantee:
    return _price({"level": "example", "delta": DELTA, "clients": [*clients], **more})


def _steps(client: dict[str, Any]) -> Repeated:
    noise = Gaussian(noise_multiplier=client["noise_multiplier"])
    return Repeated(
        event=PoissonSampled(probability=client["sampling_probability"], event=noise),
        times=client["rounds"] * client["local_steps"],
    )


# --- what voids or qualifies


@pytest.mark.parametrize("document", [COHORT, SHARED | {"schedule": [{"survivors": 80}]}])
def test_notes_of_a_client_level_federation_stand_beside_every_price(
    document: dict[str, Any],
) -> None:
    """What voids makes each ε infinite in either view, what qualifies stands beside it."""
    bare = _price(document)
    noted = _price(document | {"qualified_by": ["keys are not signed"]})
    void = _price(document | {"void_because": ["the noise came from the fixed seed 5"]})
    for before, said, none in zip(bare.prices, noted.prices, void.prices, strict=True):
        assert said.released.epsilon == before.released.epsilon < math.inf
        assert said.server.qualified_by == said.released.qualified_by == ("keys are not signed",)
        assert none.released.epsilon == none.server.epsilon == math.inf
        assert "fixed seed 5" in str(none.released)
    with pytest.raises(ValueError, match="void_because must be a list of reasons in words"):
        _price(document | {"void_because": "a seed"})


def test_notes_are_told_once_with_all_of_whom_they_are_said() -> None:
    """A report lists each fact with its clients; those that only overlap add no line."""
    seed, logs = ["the seed was fixed"], ["losses were logged"]
    found = _examples(
        NORTH | {"void_because": seed},
        SOUTH | {"void_because": seed, "qualified_by": logs},
        overlaps=[["north", "south"]],
    )
    told = {note.text: names for note, names in found.notes.items()}
    assert told == {seed[0]: ("north", "south"), logs[0]: ("south",)}
    assert found.overlaps[0].server.void_because == (seed[0],)


# --- example level


def test_choices_from_data_are_counted_in_both_views() -> None:
    """An exponential mechanism of range 0.5 beside the steps, with and without hidden coins."""
    for participation in (1.0, 0.5):
        client = NORTH | {"participation": participation}
        (plain,), (chosen,) = (_examples(client | more).prices for more in ({}, {"choices": [0.5]}))
        event = Composed(events=(_steps(NORTH), ExponentialMechanism(epsilon=0.5)))
        assert chosen.server == epsilon(event=event, delta=DELTA)
        for view in ("server", "released"):
            more = getattr(chosen, view).epsilon - getattr(plain, view).epsilon
            assert 0 < more <= 0.5


def test_choices_that_cost_nothing_or_anything_are_refused() -> None:
    """By their place, with what was found."""
    for choices in (0.5, [0], [-1], [math.inf], [True], ["0.5"]):
        with pytest.raises(ValueError, match="choices"):
            _examples(NORTH | {"choices": choices})


def test_each_client_pays_for_the_rounds_that_it_joined() -> None:
    """Clients with their own q, σ, E and rounds have their own ε, and the largest is named."""
    found = _examples(NORTH, SOUTH)
    for price, client in zip(found.prices, (NORTH, SOUTH), strict=True):
        assert price.server == epsilon(event=_steps(client), delta=DELTA)
        assert price.released == price.server
    assert found.worst_server.name == "south"
    assert found.worst_server.server.epsilon == max(p.server.epsilon for p in found.prices)


def test_disjoint_clients_do_not_add_up() -> None:
    """A client's ε does not depend on who else takes part."""
    assert _examples(NORTH).prices[0] == _examples(NORTH, SOUTH).prices[0]


def test_overlapping_clients_add_up_by_composition() -> None:
    """One person's data at two clients costs both clients' steps, composed: less than the sum."""
    found = _examples(NORTH, SOUTH, overlaps=[["north", "south"]])
    (both,) = found.overlaps
    event = Composed(events=(_steps(NORTH), _steps(SOUTH)))
    one, two = (price.server.epsilon for price in found.prices)
    assert both.name == "north + south"
    assert both.server == epsilon(event=event, delta=DELTA)
    assert max(one, two) < both.server.epsilon < one + two
    assert found.worst_server is both


def test_schedules_are_composed_in_any_order() -> None:
    """Rounds with other σ and E are composed as they were, whichever came first."""
    parts = [{"rounds": 30, "noise_multiplier": 1.5}, {"rounds": 70, "local_steps": 3}]
    there, back = (_examples(NORTH | {"schedule": order}) for order in (parts, parts[::-1]))
    assert there.prices[0].server.epsilon == pytest.approx(back.prices[0].server.epsilon, rel=1e-9)
    longer = _examples(NORTH).prices[0].server.epsilon
    assert there.prices[0].server.epsilon < longer


def test_budgets_are_personal() -> None:
    """A client over its own budget is named; one that keeps it, or has none, is not."""
    cheap, dear = NORTH | {"epsilon_budget": 100.0}, SOUTH | {"epsilon_budget": 0.5}
    found = _examples(cheap, dear, NORTH | {"name": "west"})
    assert [price.within_budget for price in found.prices] == [True, False, None]
    assert found.over_budget == ("south",)


HIDDEN = {"participation": 0.05, "rounds": 200, "noise_multiplier": 4.0}


def test_rates_are_not_multiplied_over_local_steps() -> None:
    """Sampling E steps at c·q each claims too little: the true ε, bounded below, is larger.

    All E steps of a round share the client's coin, so that a round joined shows E times the data.
    """
    whole = HIDDEN | {"local_steps": 100, "sampling_probability": 1.0, "rounds": 20}
    true = _examples(NORTH | whole).prices[0].released
    wrong = Repeated(
        event=PoissonSampled(probability=0.05, event=Gaussian(noise_multiplier=4.0)),
        times=20 * 100,
    )
    claimed = epsilon(event=wrong, delta=DELTA).epsilon
    assert claimed < 0.5 * (true.epsilon - true.slack)


def _simulated_delta(*, chance: float, q: float, steps: int, epsilon: float) -> tuple[float, float]:
    """δ of one hidden round with σ = 1, from what its outputs show, and its standard error."""
    draw = np.random.default_rng(7)
    joins = draw.random(400_000) < chance
    there = joins[:, None] & (draw.random((400_000, steps)) < q)
    output = draw.standard_normal(there.shape) + there
    ratio = (1 - q + q * np.exp(output - 0.5)).prod(axis=1)
    excess = np.maximum(1 - np.exp(epsilon) / (1 - chance + chance * ratio), 0.0)
    return float(excess.mean()), float(excess.std() / len(excess) ** 0.5)


def test_hidden_rounds_of_sampled_steps_cover_what_a_simulation_shows() -> None:
    """Of E steps that share a coin, simulated outputs show more than multiplied rates admit.

    The price of the same rounds covers what the outputs show.
    """
    shown, error = _simulated_delta(chance=0.05, q=0.5, steps=20, epsilon=1.0)
    rates = PoissonSampled(probability=0.05 * 0.5, event=Gaussian(noise_multiplier=1.0))
    claimed = delta_at(event=Repeated(event=rates, times=20), epsilon=1.0).delta
    assert claimed < 0.1 * (shown - 6 * error)
    client = {"name": "a", "rounds": 1, "local_steps": 20, "sampling_probability": 0.5,
              "noise_multiplier": 1.0, "participation": 0.05}  # fmt: skip
    document = {"level": "example", "delta": shown - 6 * error, "clients": [client]}
    price = _price(document).prices[0]
    assert 1.0 <= price.released.epsilon < 0.5 * price.server.epsilon


def test_hidden_rounds_of_sampled_steps_are_amplified() -> None:
    """Chances add up over rounds: the released view is far below the server's, and grows with c."""
    rare, often = (_examples(NORTH | {"participation": chance}).prices[0] for chance in (0.02, 0.5))
    assert rare.released.epsilon < often.released.epsilon <= often.server.epsilon
    assert rare.released.epsilon < 0.4 * rare.server.epsilon
    assert rare.released.unit == rare.server.unit


def test_overlaps_of_hidden_and_known_rounds_add_up() -> None:
    """A person at a client with coins and at one without is worse off than at either."""
    hidden = NORTH | {"participation": 0.1}
    found = _examples(hidden, SOUTH, overlaps=[["north", "south"]])
    (both,) = found.overlaps
    assert both.released.epsilon > max(price.released.epsilon for price in found.prices)
    assert both.released.epsilon <= both.server.epsilon


def test_hidden_participation_helps_only_where_it_is_hidden() -> None:
    """The server counts all the rounds; whoever sees only the models, the coins as well."""
    found = _examples(NORTH | HIDDEN | {"local_steps": 1}).prices[0]
    joined = LocalRounds(
        rounds=200, local_steps=1, sampling_probability=0.01, noise_multiplier=4.0
    ).as_joined
    assert found.server == epsilon(event=joined, delta=DELTA)
    assert found.released.epsilon < 0.2 * found.server.epsilon


def test_views_are_explained() -> None:
    """The assumptions speak of coins only where there are some."""
    hidden = " ".join(_examples(NORTH | HIDDEN | {"local_steps": 1}).assumptions)
    assert "own coin" in hidden
    assert "own coin" not in " ".join(_examples(NORTH).assumptions)


# --- client level


def test_central_noise_does_not_protect_from_the_server() -> None:
    """The server sees what it noises; the released models are Poisson-sampled Gaussians."""
    (price,) = _price(COHORT).prices
    step = PoissonSampled(probability=0.02, event=Gaussian(noise_multiplier=1.0))
    assert math.isinf(price.server.epsilon)
    expected = epsilon(event=Repeated(event=step, times=50), delta=DELTA, unit="client")
    assert price.released == expected


def test_no_amplification_is_claimed_unasked() -> None:
    """Without Poisson sampling the rounds are plain Gaussians."""
    (price,) = _price(COHORT | {"sampling": "none"}).prices
    rounds = Repeated(event=Gaussian(noise_multiplier=1.0), times=50)
    assert price.released == epsilon(event=rounds, delta=DELTA, unit="client")


def test_distributed_noise_protects_from_the_server_without_amplification() -> None:
    """The server knows the cohort: it sees plain Gaussians of the guaranteed noise."""
    (price,) = _price(SHARED).prices
    rounds = Repeated(event=Gaussian(noise_multiplier=1.0), times=50)
    assert price.server == epsilon(event=rounds, delta=DELTA, unit="client")
    assert price.released == _price(COHORT).prices[0].released


@pytest.mark.parametrize("survivors", [70, 71, 85, 100])
def test_survivors_beyond_the_threshold_only_help(survivors: int) -> None:
    """σ grows as √((survivors − colluding)/(threshold − colluding)); the plan covers them all."""
    planned, real = _price(SHARED | {"survivors": survivors}).prices
    sigma = math.sqrt((survivors - 6) / 64)
    rounds = Repeated(event=Gaussian(noise_multiplier=sigma), times=50)
    assert (planned.name, real.name) == ("planned", "as it went")
    assert real.server == epsilon(event=rounds, delta=DELTA, unit="client")
    assert real.server.epsilon <= planned.server.epsilon
    assert real.released.epsilon <= planned.released.epsilon


def test_fewer_survivors_cost_more_if_the_sum_was_opened() -> None:
    """A sum opened below the threshold is priced by its noise; one never opened costs nothing."""
    few = {"schedule": [{"rounds": 48}, {"rounds": 2, "survivors": 38, "opened": True}]}
    stopped = {"schedule": [{"rounds": 48}, {"rounds": 2, "survivors": 38, "opened": False}]}
    planned, opened = _price(SHARED | few).prices
    closed = _price(SHARED | stopped).prices[1]
    loud = Gaussian(noise_multiplier=math.sqrt(32 / 64))
    spent = Composed(
        events=(
            Repeated(event=Gaussian(noise_multiplier=1.0), times=48),
            Repeated(event=loud, times=2),
        )
    )
    assert opened.server == epsilon(event=spent, delta=DELTA, unit="client")
    assert opened.released.epsilon > planned.released.epsilon
    assert closed.server.epsilon < planned.server.epsilon


def test_colluding_survivors_hide_nothing() -> None:
    """A sum whose only noise is known to the server has no guarantee."""
    found = _price(SHARED | {"survivors": 6, "opened": True}).prices[1]
    assert math.isinf(found.server.epsilon)
    assert math.isinf(found.released.epsilon)


def test_a_cap_on_rounds_counts_the_noisiest_least() -> None:
    """With at most M rounds a client, the M rounds of least noise are counted, unamplified."""
    schedule = [{"rounds": 30, "noise_multiplier": 1.0}, {"rounds": 20, "noise_multiplier": 0.5}]
    (price,) = _price(SHARED | {"schedule": schedule, "most_rounds": 25}).prices
    worst = Composed(
        events=(
            Repeated(event=Gaussian(noise_multiplier=0.5), times=20),
            Repeated(event=Gaussian(noise_multiplier=1.0), times=5),
        )
    )
    assert price.server == epsilon(event=worst, delta=DELTA, unit="client")
    assert price.released == price.server


@pytest.mark.parametrize("noise", ["discrete-gaussian", "skellam"])
def test_integer_noise_costs_a_little_more_than_gaussian(noise: str) -> None:
    """On a fine grid both laws approach the Gaussian's RDP from above; on a coarse one, not."""
    exact = epsilon(
        event=Repeated(event=Gaussian(noise_multiplier=3.0), times=50),
        delta=DELTA,
        unit="client",
        method="rdp",
    ).epsilon
    prices = [
        _price(
            SHARED
            | {
                "noise": noise,
                "noise_multiplier": 3.0,
                "discretization": {"dimension": 1000, "granularity": granularity},
            }
        ).prices[0]
        for granularity in (1e-4, 1e-2, 1.0)
    ]
    fine, middle, coarse = (price.server.epsilon for price in prices)
    # The exact price tries fractional orders too, so that it may lie a little lower still.
    assert exact <= fine < 1.01 * exact
    assert fine < middle < coarse
    assert all(price.released.epsilon < 0.5 * price.server.epsilon for price in prices[:2])


# --- the report


@settings(max_examples=25, deadline=None)
@given(
    rounds=st.integers(1, 50),
    q=st.floats(0.001, 0.5),
    sigma=st.floats(0.5, 5),
    chance=st.floats(0.05, 1),
)
def test_the_server_never_knows_less(rounds: int, q: float, sigma: float, chance: float) -> None:
    """Released models are computed from what the server sees: their ε is never larger."""
    client = {"name": "a", "rounds": rounds, "local_steps": 1, "sampling_probability": q,
              "noise_multiplier": sigma, "participation": chance}  # fmt: skip
    price = _examples(client).prices[0]
    assert price.released.epsilon <= price.server.epsilon


def test_the_report_is_strict_json() -> None:
    """Every price, view and assumption survives JSON, infinities as text."""
    document = json.loads(json.dumps(_price(SHARED | {"noise": "central", "secure_aggregation": None}).to_json(), allow_nan=False))  # fmt: skip # noqa: E501
    assert document["worst"]["server"]["epsilon"] == "inf"
    assert document["prices"][0]["released"]["unit"] == "client"
    assert document["assumptions"]


def test_equal_clients_are_counted() -> None:
    """`count` equal clients share one row."""
    (price,) = _examples(NORTH | {"count": 500}).prices
    assert price == replace(_examples(NORTH).prices[0], count=500)
