"""Read a federation from a plain mapping, as `docs/accounting.md` documents it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from dpacc_accounting.federation.cohort_reading import (
    CLIENT_LEVEL,
    NOTES,
    STATED,
    read_cohorts,
    read_notes,
    read_stated,
)
from dpacc_accounting.federation.fields import FieldError, Fields, Where, nearest
from dpacc_accounting.federation.rounds import (
    Client,
    ExampleFederation,
    Federation,
    LocalRounds,
)
from dpacc_accounting.guarantee import Adjacency

_PHASE = (
    "rounds",
    "local_steps",
    "sampling_probability",
    "dataset_size",
    "batch_size",
    "noise_multiplier",
    "participation",
)
_CLIENT = ("name", "unit", "count", "epsilon_budget", "schedule", "choices", *NOTES, *_PHASE)
_EXAMPLE_LEVEL = (*STATED, "defaults", "clients", "overlaps")


def read_federation(*, document: Mapping[str, Any]) -> Federation:
    """The federation that `document` describes.

    Args:
        document: its field `level` is "example" or "client" and decides which others it holds.

    Raises:
        FieldError: an unknown, missing or senseless field, by its path.

    >>> read_federation(document={"level": "example", "delta": 1e-5, "clients": [
    ...     {"name": "a", "rounds": 10, "local_steps": 5, "sampling_probability": 0.1,
    ...      "noise_multiplier": 1.0}]}).clients[0].schedule[0].rounds
    10
    """
    known = tuple(dict.fromkeys((*_EXAMPLE_LEVEL, *CLIENT_LEVEL)))
    level = Fields(document, known=known).word("level", among=("example", "client"))
    return _example_level(document) if level == "example" else read_cohorts(document=document)


def _example_level(document: Mapping[str, Any]) -> ExampleFederation:
    top = Fields(document, known=_EXAMPLE_LEVEL)
    stated = read_stated(top, unit="example")
    defaults = Fields(top.raw("defaults", {}), known=_CLIENT, where=("defaults",)).given
    clients = top.parts(
        "clients",
        lambda item, where: _named_client(
            item, where, defaults=defaults, delta=stated["delta"], adjacency=stated["adjacency"]
        ),
    )
    twice = [name for name, n in Counter(client.name for client in clients).items() if n > 1]
    if twice:
        top.refuse("clients", f"hold the name {twice[0]!r} twice; use `count` for equal clients")
    overlaps = top.parts("overlaps", _names) if top.has("overlaps") else ()
    units = {client.name: client.unit or stated["unit"] for client in clients}
    for at, names in enumerate(overlaps):
        for name in names:
            if name not in units:
                raise FieldError(
                    f"names {name!r}, which is no client{nearest(name, sorted(units))}",
                    where=("overlaps", at),
                )
        several = sorted({units[name] for name in names})
        if len(several) > 1:
            raise FieldError(
                f"joins clients whose units are {' and '.join(several)}: no sum of theirs is a "
                "promise to either; give them one unit",
                where=("overlaps", at),
            )
    return ExampleFederation(clients=clients, overlaps=overlaps, **stated)


def _named_client(item: Any, where: Where, **settings: Any) -> Client:
    """A client; what is wrong with one is said with its name, which says whose books they are."""
    try:
        return _client(item, where, **settings)
    except FieldError as error:
        name = item.get("name") if isinstance(item, Mapping) else None
        if not isinstance(name, str):
            raise
        raise FieldError(f"{error.problem} (client {name[:80]!r})", where=error.where) from None


def _client(
    item: Any, where: Where, *, defaults: Mapping[str, Any], delta: float, adjacency: Adjacency
) -> Client:
    fields = Fields(item, known=_CLIENT, where=where, defaults=_inherited(item, defaults))
    budget = fields.number("epsilon_budget", None, above=0)
    solve = budget is not None and not _names_noise(fields)
    noise = _personal_noise(fields, budget, delta, adjacency) if solve else None
    return Client(
        name=fields.word("name", f"client-{where[-1]}"),
        count=fields.count("count", 1),
        epsilon_budget=budget,
        calibrated=solve,
        schedule=_schedule(fields, noise),
        choices=_choices(fields),
        unit=fields.word("unit", None),
        notes=read_notes(fields),
    )


def _choices(fields: Fields) -> tuple[float, ...]:
    given = fields.raw("choices", ())
    if not isinstance(given, list | tuple):
        fields.refuse("choices", f"must be a list of numbers above 0, not {given!r}")
    for each in given:
        real = isinstance(each, int | float) and not isinstance(each, bool)
        if not (real and 0 < each < math.inf):
            fields.refuse("choices", f"hold {each!r}, which is no finite number above 0")
    return tuple(float(each) for each in given)


def _inherited(item: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults that `item` does not contradict by saying the same thing another way."""
    inherited = dict(defaults)
    if isinstance(item, Mapping):
        if "sampling_probability" in item:
            inherited = {
                k: v for k, v in inherited.items() if k not in ("dataset_size", "batch_size")
            }
        if "dataset_size" in item or "batch_size" in item:
            inherited.pop("sampling_probability", None)
    return inherited


def _names_noise(fields: Fields) -> bool:
    phases = fields.raw("schedule", ())
    return fields.has("noise_multiplier") or any(
        isinstance(phase, Mapping) and "noise_multiplier" in phase for phase in phases
    )


def _personal_noise(
    fields: Fields, budget: float | None, delta: float, adjacency: Adjacency
) -> float:
    """The σ with which a client keeps its own budget, over all the steps that it might run."""
    from dpacc_accounting.calibration.noise import calibrate_noise

    if fields.has("schedule") or not fields.has("dataset_size"):
        fields.refuse(
            "epsilon_budget",
            "can set the noise of a client without a schedule, by its dataset_size and batch_size; "
            "else give noise_multiplier",
        )
    assert budget is not None
    return calibrate_noise(
        dataset_size=fields.count("dataset_size"),
        batch_size=fields.count("batch_size"),
        steps=fields.count("rounds") * fields.count("local_steps", 1),
        epsilon=budget,
        delta=delta,
        adjacency=adjacency,
    ).noise_multiplier


def _schedule(fields: Fields, noise: float | None) -> tuple[LocalRounds, ...]:
    if not fields.has("schedule"):
        return (_local_rounds(fields, noise),)
    shared = {**fields.given}
    return fields.parts(
        "schedule",
        lambda item, where: _local_rounds(
            Fields(
                item,
                known=_PHASE,
                where=where,
                defaults={k: fields.raw(k, shared.get(k)) for k in _PHASE},
            ),
            noise,
        ),
    )


def _local_rounds(fields: Fields, noise: float | None) -> LocalRounds:
    return LocalRounds(
        rounds=fields.count("rounds", at_least=0),
        local_steps=fields.count("local_steps", 1, at_least=0),
        sampling_probability=_probability(fields),
        noise_multiplier=(
            fields.number("noise_multiplier", at_least=0) if noise is None else noise
        ),
        participation=fields.number("participation", 1.0, above=0, at_most=1),
    )


def _probability(fields: Fields) -> float:
    sizes = fields.has("dataset_size", "batch_size")
    if sizes == fields.has("sampling_probability"):
        fields.refuse(
            "sampling_probability",
            "or dataset_size and batch_size: give one of the two",
        )
    if not sizes:
        return fields.number("sampling_probability", at_least=0, at_most=1)
    size, batch = fields.count("dataset_size"), fields.count("batch_size")
    if batch > size:
        fields.refuse("batch_size", f"= {batch} exceeds dataset_size = {size}; lower it")
    return batch / size


def _names(item: Any, where: Where) -> tuple[str, ...]:
    if not isinstance(item, list | tuple) or len(item) < 2:
        raise FieldError(
            f"must be a list of at least two names of clients, not {item!r}", where=where
        )
    names = tuple(str(name) for name in item)
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        raise FieldError(f"names {twice[0]!r} twice", where=where)
    return names
