"""Records are dealt to clients by owner, label, quantity or kind, each to exactly one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from dpacc.errors import ConfigurationError
from dpacc.federated.benchmark.data_sets import DataSet
from dpacc.federated.benchmark.partitions import dealt

RECORDS = [
    {"text": str(n), "label": "ab"[n % 2], "owner": f"owner {n % 11}", "kind": f"kind {n % 3}"}
    for n in range(200)
]


def data(**changes: Any) -> DataSet:
    given: dict[str, Any] = {"name": "some", "train": RECORDS, "held_out": RECORDS[:2]}
    fields = {"labels": ("a", "b"), "owner_field": "owner", "kind_field": "kind"}
    return DataSet(**{**given, **fields, **changes})


def shares(partition: Any, *, clients: int = 4, alpha: float = 0.5, seed: int = 0) -> list[Any]:
    dealings = dealt(data(), clients=clients, partition=partition, alpha=alpha, seed=seed)
    return [[RECORDS[at] for at in share] for share in dealings]


@pytest.mark.parametrize("partition", ["owner", "label", "quantity", "kind"])
def test_every_record_is_at_one_client_and_the_seed_says_where(partition: str) -> None:
    """Nothing is lost or held twice, nobody has nothing, and the same seed deals the same."""
    found = shares(partition)
    assert sorted(int(each["text"]) for share in found for each in share) == [*range(200)]
    assert min(map(len, found)) >= 2
    assert shares(partition) == found
    assert shares(partition, seed=1) != found


def test_an_owners_records_are_at_one_client() -> None:
    """So that a guarantee for owners holds whole."""
    held = [{each["owner"] for each in share} for share in shares("owner")]
    assert sum(map(len, held)) == 11
    assert len(set.union(*held)) == 11


def test_kinds_are_apart_where_there_are_clients_enough_and_shared_where_not() -> None:
    """Four clients of three kinds hold one each; two clients hold them whole."""
    assert all(len({each["kind"] for each in share}) == 1 for share in shares("kind"))
    held = [{each["kind"] for each in share} for share in shares("kind", clients=2)]
    assert sum(map(len, held)) == 3


def test_a_smaller_alpha_makes_labels_less_alike() -> None:
    """At α = 100 every client has about half of each; at α = 0.1 hardly any does."""
    apart = {}
    for alpha in (0.1, 100.0):
        counts = [Counter(each["label"] for each in s) for s in shares("label", alpha=alpha)]
        apart[alpha] = np.mean([abs(c["a"] / sum(c.values()) - 0.5) for c in counts])
    assert apart[100.0] < 0.1 < 0.3 < apart[0.1]


@pytest.mark.parametrize(
    ("changes", "asked", "words"),
    [
        ({"owner_field": None}, {"partition": "owner"}, "do not say their owner"),
        ({"kind_field": "genre"}, {"partition": "kind"}, "do not say their kind"),
        ({"labels": None}, {"partition": "label"}, "do not say their label"),
        ({}, {"partition": "owner", "clients": 12}, "more than the 11 owners"),
        ({}, {"partition": "quantity", "clients": 101}, "too many for 200 records"),
        ({}, {"partition": "label", "alpha": 1e-6}, "set a larger one"),
    ],
)
def test_what_cannot_be_dealt_is_refused(
    changes: dict[str, Any], asked: dict[str, Any], words: str
) -> None:
    """With what is missing, before anything is trained."""
    with pytest.raises(ConfigurationError, match=words):
        dealt(data(**changes), **{"clients": 4, "alpha": 0.5, "seed": 0, **asked})
