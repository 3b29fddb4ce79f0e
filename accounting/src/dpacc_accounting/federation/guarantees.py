"""What a federation promises, to whom: to those who see its server, and who see its models.

The two views are priced apart. The server knows who took part in which round, so nothing is
amplified by a client's taking part at random; whoever sees only the released models does not know,
and hidden coins count. Neither view takes credit for the noise of other clients' own DP-SGD.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dpacc_accounting.events.event import Composed, Event, ExponentialMechanism
from dpacc_accounting.federation.hidden_rounds import hidden_epsilons
from dpacc_accounting.federation.many_clients import epsilons
from dpacc_accounting.federation.rounds import (
    MOST_KINDS,
    ClientFederation,
    ExampleFederation,
    Federation,
    LocalRounds,
    count_kinds,
    few_kinds,
)
from dpacc_accounting.guarantee import Guarantee, Note

# At most this many different schedules behind hidden coins are composed, the others bounded.
_FEW_SHARED_COINS = 24
_MOST_NAMES = 12


@dataclass(frozen=True, kw_only=True)
class Price:
    """What one client's data, or one course of the rounds, costs in either view.

    Args:
        name: of the client, of the clients that overlap, or of the course.
        server: the guarantee against a server that sees every message.
        released: the guarantee against whoever sees only the released models.
        count: how many clients it holds for.
        epsilon_budget: what the client agreed to spend, if it said so.
    """

    name: str
    server: Guarantee
    released: Guarantee
    count: int = 1
    epsilon_budget: float | None = None

    @property
    def within_budget(self) -> bool | None:
        """Whether the server's view keeps the budget; None without one."""
        if self.epsilon_budget is None:
            return None
        return self.server.epsilon <= self.epsilon_budget

    def to_json(self) -> dict[str, Any]:
        """The fields as a dict that strict JSON can hold."""
        return {
            "name": self.name,
            "count": self.count,
            "server": self.server.to_json(),
            "released": self.released.to_json(),
            "epsilon_budget": self.epsilon_budget,
            "within_budget": self.within_budget,
        }


@dataclass(frozen=True, kw_only=True)
class FederatedGuarantee:
    """The price of a federation.

    Args:
        level: "example" or "client", whose data one unit is.
        prices: one for each client, or for the plan and for what really happened.
        overlaps: one for each group of clients that may hold data of the same unit.
        assumptions: what must be true for the prices to hold, in words.
    """

    level: str
    prices: tuple[Price, ...]
    overlaps: tuple[Price, ...]
    assumptions: tuple[str, ...]

    @property
    def worst_server(self) -> Price:
        """The price with the largest ε in the server's view, overlaps included."""
        return max((*self.prices, *self.overlaps), key=lambda price: price.server.epsilon)

    @property
    def worst_released(self) -> Price:
        """The price with the largest ε in the released models' view, overlaps included."""
        return max((*self.prices, *self.overlaps), key=lambda price: price.released.epsilon)

    @property
    def notes(self) -> dict[Note, tuple[str, ...]]:
        """What voids or qualifies prices: each fact once, with the names of those it is said of.

        An overlap's are those of its clients.
        """
        found: dict[Note, list[str]] = {}
        for price in self.prices:
            for note in dict.fromkeys((*price.server.notes, *price.released.notes)):
                found.setdefault(note, []).append(price.name)
        return {note: tuple(names) for note, names in found.items()}

    @property
    def told(self) -> tuple[Note, ...]:
        """The same as a reader is told it: a fact of clients begins with their names."""
        if self.level == "client":
            return tuple(self.notes)
        return tuple(
            Note(note.subject, f"{_listed(names)}: {note.text}")
            for note, names in self.notes.items()
        )

    @property
    def over_budget(self) -> tuple[str, ...]:
        """The names of the clients that spend more than they agreed to."""
        return tuple(price.name for price in self.prices if price.within_budget is False)

    def to_json(self) -> dict[str, Any]:
        """Everything, as a dict that strict JSON can hold."""
        return {
            "level": self.level,
            "worst": {
                "server": {"name": self.worst_server.name, **self.worst_server.server.to_json()},
                "released": {
                    "name": self.worst_released.name,
                    **self.worst_released.released.to_json(),
                },
            },
            "over_budget": list(self.over_budget),
            "prices": [price.to_json() for price in self.prices],
            "overlaps": [price.to_json() for price in self.overlaps],
            "assumptions": list(self.assumptions),
        }


def price_federation(*, federation: Federation) -> FederatedGuarantee:
    """ε of every client, or of every client-level course, in the server's and the released view.

    Args:
        federation: what is run; `read_federation` builds one from a plain mapping.

    Returns:
        Infinite ε where a view has no guarantee, such as the server's under central noise, and with
        a note that voids it for a client whose rounds cannot be priced.

    Raises:
        ValueError: rounds at client level cannot be priced.

    Source: composition as in `epsilon`; hidden participation as in `hidden`; integer noise as in
    `distributed`.

    >>> from dpacc_accounting import read_federation
    >>> found = price_federation(federation=read_federation(document={
    ...     "level": "client", "delta": 1e-6, "rounds": 500, "sampling": "poisson",
    ...     "sampling_rate": 0.01, "noise_multiplier": 1.0}))
    >>> found.prices[0].server.epsilon, round(found.prices[0].released.epsilon, 2)
    (inf, 1.58)
    """
    if isinstance(federation, ExampleFederation):
        return _example_level(federation)
    return _client_level(federation)


def _example_level(federation: ExampleFederation) -> FederatedGuarantee:
    rounds = {client.name: few_kinds(client.schedule) for client in federation.clients}
    coarse = {c.name for c in federation.clients if rounds[c.name] is not c.schedule}
    chosen: dict[str, tuple[Event, ...]] = {
        client.name: tuple(ExponentialMechanism(epsilon=each) for each in client.choices)
        for client in federation.clients
    }
    for names in federation.overlaps:
        coarse |= {_together(names)} if coarse & set(names) else set()
        rounds[_together(names)] = tuple(part for name in names for part in rounds[name])
        chosen[_together(names)] = tuple(each for name in names for each in chosen[name])
    joined = {
        name: _composed([*(r.as_joined for r in parts), *chosen[name]])
        for name, parts in rounds.items()
    }
    server = _priced(joined, federation)
    released = _released(rounds, chosen, joined, server, federation)
    units = _units(federation)
    notes = {client.name: client.notes for client in federation.clients}
    for names in federation.overlaps:
        notes[_together(names)] = tuple(note for name in names for note in notes[name])
    prices = {
        name: Price(
            name=name,
            server=replace(server[name], unit=units[name]).noted(notes[name]),
            released=replace(released[name], unit=units[name]).noted(notes[name]),
        )
        for name in rounds
    }
    prices |= {name: _without_lower_bound(prices[name]) for name in coarse}
    return FederatedGuarantee(
        level="example",
        prices=tuple(
            replace(prices[c.name], count=c.count, epsilon_budget=c.epsilon_budget)
            for c in federation.clients
        ),
        overlaps=tuple(prices[_together(names)] for names in federation.overlaps),
        assumptions=(*_example_assumptions(federation), *_simplified(federation, coarse)),
    )


def _without_lower_bound(price: Price) -> Price:
    return replace(
        price,
        server=replace(price.server, slack=price.server.epsilon),
        released=replace(price.released, slack=price.released.epsilon),
    )


def _simplified(federation: ExampleFederation, coarse: Collection[str]) -> tuple[str, ...]:
    return tuple(
        f"{client.name} tells {count_kinds(client.schedule)} kinds of rounds, which are priced "
        f"as at most {MOST_KINDS} of less noise: its ε is at most what is stated."
        for client in federation.clients
        if client.name in coarse
    )


def _released(
    rounds: Mapping[str, tuple[LocalRounds, ...]],
    chosen: Mapping[str, tuple[Event, ...]],
    joined: Mapping[str, Event],
    server: Mapping[str, Guarantee],
    federation: ExampleFederation,
) -> dict[str, Guarantee]:
    """The released view, never worse than the server's, from which the models are computed."""
    hidden = {
        name: _composed([*(part.as_hidden for part in parts), *chosen[name]])
        for name, parts in rounds.items()
    }
    # A schedule without coins is what the server sees: its price is known.
    events = {name: event for name, event in hidden.items() if event != joined[name]}
    # The quick bounds know of rounds alone.
    found = _bounded({n: e for n, e in events.items() if not chosen[n]}, rounds, federation)
    found |= _priced({n: e for n, e in events.items() if n not in found}, federation)
    return {
        name: min(found.get(name, known), known, key=lambda guarantee: guarantee.epsilon)
        for name, known in server.items()
    }


def _bounded(
    events: Mapping[str, Event],
    rounds: Mapping[str, tuple[LocalRounds, ...]],
    federation: ExampleFederation,
) -> dict[str, Guarantee]:
    """Quick bounds where more coins are shared by several steps than can be composed one by one.

    The dearest are composed all the same, until no other can be the maximum.
    """
    shared = [
        name
        for name in events
        if any(part.shares_a_coin for part in rounds[name])
        and all(part.noise_multiplier > 0 for part in rounds[name])
    ]
    if len({events[name] for name in shared}) <= _FEW_SHARED_COINS:
        return {}
    bounds = hidden_epsilons(
        schedules=[rounds[name] for name in shared],
        delta=federation.delta,
        adjacency=federation.adjacency,
        unit=federation.unit,
    )
    found = dict(zip(shared, bounds, strict=True))
    dearest = sorted(shared, key=lambda name: found[name].epsilon, reverse=True)
    largest = 0.0
    for name in dearest[:_FEW_SHARED_COINS]:
        if found[name].epsilon < largest:
            break
        found |= _priced({name: events[name]}, federation)
        largest = max(largest, found[name].epsilon)
    return found


def _priced(events: Mapping[str, Event], federation: ExampleFederation) -> dict[str, Guarantee]:
    """Each client's price; for one whose rounds cannot be priced none holds, and the others' do."""
    stated: dict[str, Any] = {
        "delta": federation.delta,
        "adjacency": federation.adjacency,
        "unit": federation.unit,
    }
    try:
        found = epsilons(events=[*events.values()], **stated)
    except (ValueError, ArithmeticError, MemoryError) as error:
        if len(events) == 1:
            why = Note("not-private", f"its rounds cannot be priced: {error}")
            none = Guarantee(epsilon=math.inf, method="pld", slack=math.inf, **stated)
            return {name: none.noted([why]) for name in events}
        names = [*events]
        halves = names[: len(names) // 2], names[len(names) // 2 :]
        first, second = (_priced({n: events[n] for n in half}, federation) for half in halves)
        return first | second
    return dict(zip(events, found, strict=True))


def _units(federation: ExampleFederation) -> dict[str, str]:
    """The privacy unit of each client, and of each group of clients, which share one."""
    units = {client.name: client.unit or federation.unit for client in federation.clients}
    return units | {_together(names): units[names[0]] for names in federation.overlaps}


def _composed(events: Sequence[Event]) -> Event:
    return events[0] if len(events) == 1 else Composed(events=tuple(events))


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _together(names: Sequence[str]) -> str:
    return " + ".join(names)


def _example_assumptions(federation: ExampleFederation) -> tuple[str, ...]:
    unit = " or ".join(sorted(set(_units(federation).values())))
    said = [
        f"Each client draws its own units ({unit}) by Poisson sampling in every local step, clips "
        "each one's gradient and adds its own noise before anything leaves it.",
        f"Different clients hold different units' data, so ε of one {unit} is that of its client; "
        "the overlaps listed are added by composition, and no others exist.",
        "The server's view counts every round of a client's schedule; no credit is taken for other "
        "clients' noise.",
    ]
    if any(part.participation < 1 for c in federation.clients for part in c.schedule):
        said.append(
            "The released view holds while nobody learns which rounds a client joined: each is "
            "decided by its own coin, of the stated chance, shared by all local steps of the round."
        )
    return tuple(said)


def _client_level(federation: ClientFederation) -> FederatedGuarantee:
    from dpacc_accounting.federation.cohorts import client_assumptions, price_course

    planned = tuple(replace(part, survivors=None, opened=True) for part in federation.schedule)
    courses = {"planned": planned}
    if planned != federation.schedule:
        courses["as it went"] = federation.schedule
    views = {
        name: price_course(federation=federation, course=course) for name, course in courses.items()
    }
    return FederatedGuarantee(
        level="client",
        prices=tuple(
            Price(
                name=name,
                server=each["server"].noted(federation.notes),
                released=each["released"].noted(federation.notes),
            )
            for name, each in views.items()
        ),
        overlaps=(),
        assumptions=client_assumptions(federation=federation),
    )
