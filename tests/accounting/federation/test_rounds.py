"""A federation is read strictly: what is wrong is named by its path, with the remedy."""

from typing import Any

import pytest
from dpacc_accounting import Adjacency, Gaussian, PoissonSampled, Repeated, epsilon, read_federation
from dpacc_accounting.federation.fields import FieldError
from dpacc_accounting.federation.rounds import ClientFederation, ExampleFederation, LocalRounds

CLIENT = {"name": "a", "rounds": 10, "local_steps": 5, "sampling_probability": 0.1}
EXAMPLE: dict[str, Any] = {
    "level": "example",
    "delta": 1e-5,
    "clients": [{**CLIENT, "noise_multiplier": 1.0}],
}
COHORT: dict[str, Any] = {
    "level": "client",
    "delta": 1e-5,
    "rounds": 100,
    "sampling": "poisson",
    "sampling_rate": 0.01,
    "noise_multiplier": 1.0,
}
FIXED = {"sampling": "fixed-size", "population": 500, "cohort_size": 5}
SHARED: dict[str, Any] = {
    **COHORT,
    "noise": "distributed-gaussian",
    "secure_aggregation": {"clients": 100, "threshold": 70, "colluding": 5},
}


def _example(**changes: Any) -> ExampleFederation:
    found = read_federation(document=EXAMPLE | changes)
    assert isinstance(found, ExampleFederation)
    return found


def _client(**changes: Any) -> ClientFederation:
    found = read_federation(document=COHORT | changes)
    assert isinstance(found, ClientFederation)
    return found


def test_every_client_may_have_its_own_settings() -> None:
    """Defaults fill what a client leaves out; what it says itself wins."""
    found = _example(
        defaults={"rounds": 7, "local_steps": 2, "noise_multiplier": 1.5, "dataset_size": 100,
                  "batch_size": 10},
        clients=[{"name": "a"}, {"name": "b", "rounds": 3, "sampling_probability": 0.5}],
    )  # fmt: skip
    first, second = (client.schedule[0] for client in found.clients)
    assert first == LocalRounds(
        rounds=7, local_steps=2, sampling_probability=0.1, noise_multiplier=1.5
    )
    assert (second.rounds, second.sampling_probability) == (3, 0.5)


def test_a_schedule_changes_settings_over_the_rounds() -> None:
    """Each part of a schedule takes what it leaves out from its client, then from the defaults."""
    found = _example(
        defaults={"local_steps": 4},
        clients=[
            {
                "name": "a",
                "sampling_probability": 0.2,
                "noise_multiplier": 1.0,
                "schedule": [{"rounds": 3}, {"rounds": 5, "noise_multiplier": 2.0}],
            }
        ],
    )
    parts = found.clients[0].schedule
    assert [(p.rounds, p.local_steps, p.noise_multiplier) for p in parts] == [(3, 4, 1), (5, 4, 2)]


def test_a_budget_without_noise_is_solved_for() -> None:
    """A client that names its ε but no σ gets the least noise that keeps it, and no less."""
    sized = {"name": "a", "rounds": 20, "local_steps": 10, "dataset_size": 500, "batch_size": 10}
    found = _example(clients=[{**sized, "epsilon_budget": 2.0}])
    part = found.clients[0].schedule[0]
    assert found.clients[0].calibrated
    assert 1.99 < epsilon(event=part.as_joined, delta=1e-5).epsilon <= 2.0


def test_client_level_defaults_are_the_cautious_ones() -> None:
    """Central noise, add-or-remove adjacency and the client as unit; sampling has no default."""
    found = _client()
    assert (found.noise, found.adjacency, found.unit) == (
        "central",
        Adjacency.ADD_OR_REMOVE,
        "client",
    )
    with pytest.raises(FieldError, match="sampling is missing; say 'poisson'"):
        read_federation(document={k: v for k, v in COHORT.items() if k != "sampling"})


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "level is missing"),
        (EXAMPLE | {"level": "exmaple"}, "level = 'exmaple' is not known; did you mean 'example'"),
        (EXAMPLE | {"client": []}, "client is not a known field; did you mean 'clients'"),
        (EXAMPLE | {"delta": 0}, "delta = 0 must be above 0 and below 1"),
        (EXAMPLE | {"delta": "small"}, "delta must be a number"),
        (EXAMPLE | {"delta": float("nan")}, "delta = nan must be"),
        (EXAMPLE | {"adjacency": "replace"}, "did you mean 'replace-one'"),
        (EXAMPLE | {"clients": []}, "clients must be a list with at least one item"),
        (EXAMPLE | {"clients": [3]}, r"clients\[0\] must be a mapping"),
        (EXAMPLE | {"clients": [CLIENT]}, r"clients\[0\].noise_multiplier is missing"),
        (
            EXAMPLE | {"clients": [EXAMPLE["clients"][0] | {"local_step": 2}]},
            r"clients\[0\].local_step is not a known field; did you mean 'local_steps'",
        ),
        (
            EXAMPLE | {"clients": [EXAMPLE["clients"][0] | {"rounds": 2.5}]},
            r"clients\[0\].rounds = 2.5 must be a whole number of at least 0",
        ),
        (
            EXAMPLE | {"clients": [EXAMPLE["clients"][0] | {"dataset_size": 10, "batch_size": 1}]},
            r"clients\[0\].sampling_probability or dataset_size and batch_size: give one",
        ),
        (
            EXAMPLE | {"clients": [EXAMPLE["clients"][0] | {"schedule": [{"cout": 1}]}]},
            r"clients\[0\].schedule\[0\].cout is not a known field",
        ),
        (EXAMPLE | {"clients": EXAMPLE["clients"] * 2}, "hold the name 'a' twice"),
        (EXAMPLE | {"overlaps": [["a", "aa"]]}, r"overlaps\[0\] names 'aa', which is no client"),
        (EXAMPLE | {"overlaps": [["a", "a"]]}, r"overlaps\[0\] names 'a' twice"),
        (EXAMPLE | {"overlaps": [["a"]]}, r"overlaps\[0\] must be a list of at least two"),
        (COHORT | {"sampling": "shuffled"}, "say 'none' to price it without amplification"),
        (COHORT | {"sampling": "fixed-size"}, "population is missing"),
        (COHORT | FIXED | {"cohort_size": 501}, "cohort_size = 501 exceeds population = 500"),
        (COHORT | FIXED, "adjacency must be 'replace-one'.*say `sampling: none`"),
        (COHORT | {"denominator": "actual"}, "divide by the expected number of clients"),
        (COHORT | {"survivors": 3}, "survivors matter under distributed noise only"),
        (COHORT | {"noise": "skelam"}, "did you mean 'skellam'"),
        (COHORT | {"noise": "skellam"}, "secure_aggregation is missing"),
        (SHARED | {"noise": "central"}, "secure_aggregation adds no noise by itself"),
        (SHARED | {"noise": "skellam"}, "discretization is missing"),
        (SHARED | {"discretization": {}}, "discretization belongs to discrete-gaussian"),
        (SHARED | {"survivors": 101}, "survivors = 101 exceed the 100 clients"),
        (SHARED | {"survivors": 69, "opened": "no"}, "opened must be true or false, not 'no'"),
        (SHARED | {"survivors": 69}, "below the threshold of 70; say `opened: false`"),
        (
            SHARED | {"secure_aggregation": {"clients": 10, "threshold": 5, "colluding": 5}},
            "secure_aggregation.threshold = 5 must exceed colluding = 5",
        ),
        (
            SHARED | {"secure_aggregation": {"clients": 10, "threshold": 11}},
            "secure_aggregation.threshold = 11 must exceed",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(document: dict[str, Any], message: str) -> None:
    """Unknown, missing and senseless fields are refused by their path, with what to do instead."""
    with pytest.raises(FieldError, match=message):
        read_federation(document=document)


def test_hidden_rounds_of_one_step_are_one_coin() -> None:
    """For E = 1 the client's and the example's coin are one, of chance c·q."""
    part = LocalRounds(
        rounds=9, local_steps=1, sampling_probability=0.1, noise_multiplier=2.0, participation=0.5
    )
    assert epsilon(event=part.as_hidden, delta=1e-5) == epsilon(
        event=Repeated(
            event=PoissonSampled(probability=0.05, event=Gaussian(noise_multiplier=2.0)), times=9
        ),
        delta=1e-5,
    )


def test_hidden_rounds_of_whole_data_are_one_gaussian() -> None:
    """For q = 1 the E steps that share a coin are one Gaussian of noise σ/√E, sampled once."""
    part = LocalRounds(
        rounds=9, local_steps=4, sampling_probability=1.0, noise_multiplier=2.0, participation=0.5
    )
    once = PoissonSampled(probability=0.5, event=Gaussian(noise_multiplier=1.0))
    assert epsilon(event=part.as_hidden, delta=1e-5) == epsilon(
        event=Repeated(event=once, times=9), delta=1e-5
    )


@pytest.mark.parametrize("field", ["noise_multiplier", "rounds", "delta"])
def test_numbers_beyond_a_double_are_refused_by_name(field: str) -> None:
    """A whole number may have any digits in YAML; what no double holds is no setting."""
    with pytest.raises(FieldError, match=field):
        read_federation(document=COHORT | {field: 10**400})
