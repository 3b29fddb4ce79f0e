"""Deal public records to clients: by owner, by label, by quantity, or by kind.

Whoever owns a record in truth owns it at one client. The seed is public, and so is the partition.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from dpacc.errors import ConfigurationError
from dpacc.federated.benchmark.data_sets import DataSet
from dpacc.federated.benchmark.settings import Partition

FEWEST = 2
"""Records that a client must hold."""

_TRIES = 1000

Shares = list[list[int]]
"""Of each client, the places of its records."""


def dealt(data: DataSet, *, clients: int, partition: Partition, alpha: float, seed: int) -> Shares:
    """Every training record at one of the clients.

    Args:
        data: what is dealt.
        clients: to how many.
        partition: by what.
        alpha: of the Dirichlet law, for "label" and "quantity".
        seed: of what is drawn.

    Raises:
        ConfigurationError: the records do not say what is asked for, or cannot be dealt so.
    """
    if clients * FEWEST > len(data.train):
        raise ConfigurationError(
            f"clients={clients} are too many for {len(data.train)} records of {data.name}"
        )
    draw = np.random.default_rng(seed)
    if partition == "quantity":
        return by_quantity(len(data.train), clients=clients, alpha=alpha, draw=draw)
    values = _said(data, partition)
    if partition == "label":
        return by_label(values, clients=clients, alpha=alpha, draw=draw)
    shares = (by_owner if partition == "owner" else by_kind)(values, clients=clients, seed=seed)
    if min(map(len, shares)) < FEWEST:
        raise ConfigurationError(
            f"partition={partition} leaves one of {clients} clients with fewer than {FEWEST} "
            f"records of {data.name}; set fewer clients, or another partition"
        )
    return shares


def _said(data: DataSet, partition: Partition) -> list[Hashable]:
    """What each record says of its owner, its label or its kind."""
    label = None if data.labels is None or data.words_field else data.label_field
    field = {"owner": data.owner_field, "label": label, "kind": data.kind_field}[partition]
    if field is None or any(field not in record for record in data.train):
        raise ConfigurationError(
            f"partition={partition}: the records of {data.name} do not say their {partition}"
        )
    return [record[field] for record in data.train]


def by_owner(owners: Sequence[Hashable], *, clients: int, seed: int = 0) -> Shares:
    """Whole owners, in the order of a hash, each to who holds fewest records.

    >>> by_owner(["ann", "bob", "ann", "eve"], clients=2)
    [[1, 3], [0, 2]]
    """
    of_owners = _grouped(owners)
    if len(of_owners) < clients:
        raise ConfigurationError(
            f"clients={clients} are more than the {len(of_owners)} owners there are"
        )
    shares: Shares = [[] for _ in range(clients)]
    for owner in sorted(of_owners, key=lambda each: _hash(each, seed)):
        min(shares, key=len).extend(of_owners[owner])
    return [sorted(share) for share in shares]


def by_kind(kinds: Sequence[Hashable], *, clients: int, seed: int = 0) -> Shares:
    """One kind at a client where there are enough clients, and else as few as can be.

    A further client goes to the kind with the most records for each of its clients; a further kind
    to the client with the fewest records.

    >>> by_kind(["news", "news", "mail", "news"], clients=3)
    [[1, 3], [0], [2]]
    """
    of_kinds = _grouped(kinds)
    ranked = sorted(of_kinds, key=lambda kind: (-len(of_kinds[kind]), str(kind)))
    held_by: dict[Hashable, int] = dict.fromkeys(ranked, 1)
    for _ in range(clients - len(ranked)):
        held_by[max(ranked, key=lambda kind: len(of_kinds[kind]) / held_by[kind])] += 1
    shares: Shares = [[] for _ in range(clients)]
    for kind in ranked:
        holders = sorted(shares, key=len)[: held_by[kind]]
        for turn, at in enumerate(sorted(of_kinds[kind], key=lambda each: _hash(each, seed))):
            holders[turn % len(holders)].append(at)
    return [sorted(share) for share in shares]


def by_label(
    labels: Sequence[Hashable], *, clients: int, alpha: float, draw: np.random.Generator
) -> Shares:
    """Each class in shares drawn from Dir(α, …, α), drawn anew until no client is without records.

    Source: Hsu, Qi & Brown 2019 (arXiv 1909.06335); Yurochkin et al. 2019 (arXiv 1905.12022).
    """
    of_labels = [draw.permutation(places) for places in _grouped(labels).values()]
    for _ in range(_TRIES):
        shares: Shares = [[] for _ in range(clients)]
        for places in of_labels:
            for share, part in zip(shares, _cut_by(places, clients, alpha, draw), strict=True):
                share += part
        if min(map(len, shares)) >= FEWEST:
            return [sorted(share) for share in shares]
    raise ConfigurationError(_too_unlike(alpha, clients))


def by_quantity(records: int, *, clients: int, alpha: float, draw: np.random.Generator) -> Shares:
    """Like records in sizes drawn from Dir(α, …, α).

    >>> shares = by_quantity(100, clients=3, alpha=1.0, draw=np.random.default_rng(0))
    >>> sum(map(len, shares)), min(map(len, shares)) >= FEWEST
    (100, True)
    """
    for _ in range(_TRIES):
        parts = list(_cut_by(draw.permutation(records), clients, alpha, draw))
        if min(map(len, parts)) >= FEWEST:
            return [sorted(part) for part in parts]
    raise ConfigurationError(_too_unlike(alpha, clients))


def _cut_by(
    places: np.ndarray, clients: int, alpha: float, draw: np.random.Generator
) -> list[list[int]]:
    ends = np.cumsum(draw.dirichlet([alpha] * clients))[:-1]
    return [part.tolist() for part in np.split(places, (ends * len(places)).astype(int))]


def _grouped(values: Sequence[Hashable]) -> Mapping[Hashable, list[int]]:
    found: dict[Hashable, list[int]] = {}
    for place, value in enumerate(values):
        found.setdefault(value, []).append(place)
    return found


def _hash(value: Hashable, seed: int) -> str:
    return hashlib.sha256(f"{seed} {value}".encode()).hexdigest()


def _too_unlike(alpha: float, clients: int) -> str:
    return (
        f"alpha={alpha} leaves some of {clients} clients with fewer than {FEWEST} records: set a "
        "larger one, or fewer clients"
    )
