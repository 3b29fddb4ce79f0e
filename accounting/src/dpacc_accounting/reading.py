"""Read a federation from a plain mapping, as `docs/accounting.md` documents it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, cast, get_args

from dpacc_accounting.fields import FieldError, Fields, Where, nearest
from dpacc_accounting.guarantee import Adjacency
from dpacc_accounting.rounds import (
    Client,
    ClientFederation,
    Cohorts,
    Discretization,
    ExampleFederation,
    Federation,
    LocalRounds,
    NoiseKind,
    SecureAggregation,
)

_TOP = ("level", "delta", "adjacency", "unit")
_PHASE = (
    "rounds",
    "local_steps",
    "sampling_probability",
    "dataset_size",
    "batch_size",
    "noise_multiplier",
    "participation",
)
_CLIENT = ("name", "count", "epsilon_budget", "schedule", *_PHASE)
_EXAMPLE_LEVEL = (*_TOP, "defaults", "clients", "overlaps")
_COHORT = ("rounds", "sampling", "sampling_rate", "noise_multiplier", "survivors", "opened")
_CLIENT_LEVEL = (
    *_TOP,
    *_COHORT,
    "schedule",
    "noise",
    "denominator",
    "secure_aggregation",
    "discretization",
    "most_rounds",
)
_DISCRETE = ("discrete-gaussian", "skellam")


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
    known = tuple(dict.fromkeys((*_EXAMPLE_LEVEL, *_CLIENT_LEVEL)))
    level = Fields(document, known=known).word("level", among=("example", "client"))
    return _example_level(document) if level == "example" else _client_level(document)


def _example_level(document: Mapping[str, Any]) -> ExampleFederation:
    top = Fields(document, known=_EXAMPLE_LEVEL)
    stated = _stated(top, unit="example")
    defaults = Fields(top.raw("defaults", {}), known=_CLIENT, where=("defaults",)).given
    clients = top.parts(
        "clients",
        lambda item, where: _client(
            item, where, defaults=defaults, delta=stated["delta"], adjacency=stated["adjacency"]
        ),
    )
    twice = [name for name, n in Counter(client.name for client in clients).items() if n > 1]
    if twice:
        top.refuse("clients", f"hold the name {twice[0]!r} twice; use `count` for equal clients")
    overlaps = top.parts("overlaps", _names) if top.has("overlaps") else ()
    known = {client.name for client in clients}
    for at, names in enumerate(overlaps):
        for name in names:
            if name not in known:
                raise FieldError(
                    f"names {name!r}, which is no client{nearest(name, sorted(known))}",
                    where=("overlaps", at),
                )
    return ExampleFederation(clients=clients, overlaps=overlaps, **stated)


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
    )


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
    from dpacc_accounting.calibration import calibrate_noise

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


def _client_level(document: Mapping[str, Any]) -> ClientFederation:
    top = Fields(document, known=_CLIENT_LEVEL)
    noise = cast(NoiseKind, top.word("noise", "central", among=get_args(NoiseKind)))
    if top.word("denominator", "fixed", among=("fixed", "actual")) == "actual":
        top.refuse(
            "denominator",
            "= 'actual' is not covered: one client would also change what the others' sum is "
            "divided by; divide by the expected number of clients ('fixed')",
        )
    secure = _secure_aggregation(top, noise)
    return ClientFederation(
        schedule=_cohorts(top, secure),
        noise=noise,
        secure_aggregation=secure,
        discretization=_discretization(top, noise),
        most_rounds=top.count("most_rounds", None),
        **_stated(top, unit="client"),
    )


def _cohorts(top: Fields, secure: SecureAggregation | None) -> tuple[Cohorts, ...]:
    if not top.has("schedule"):
        return (_cohort(top, secure),)
    shared = {name: top.raw(name, None) for name in _COHORT}
    return top.parts(
        "schedule",
        lambda item, where: _cohort(
            Fields(item, known=_COHORT, where=where, defaults=shared), secure
        ),
    )


def _cohort(fields: Fields, secure: SecureAggregation | None) -> Cohorts:
    sampling = fields.raw("sampling", None)
    if sampling is None:
        fields.refuse(
            "sampling",
            "is missing; say 'poisson' if each client is drawn by its own "
            "secret coin, or 'none' to claim no amplification",
        )
    if sampling in ("fixed-size", "shuffled"):
        fields.refuse(
            "sampling",
            f"= {sampling!r} is not Poisson sampling; say 'none' to price it without amplification",
        )
    poisson = fields.word("sampling", among=("poisson", "none")) == "poisson"
    survivors = _survivors(fields, secure)
    return Cohorts(
        rounds=fields.count("rounds", at_least=0),
        sampling_rate=fields.number("sampling_rate", above=0, at_most=1) if poisson else 1.0,
        noise_multiplier=fields.number("noise_multiplier", at_least=0),
        survivors=survivors,
        opened=fields.flag("opened", True),
    )


def _survivors(fields: Fields, secure: SecureAggregation | None) -> int | None:
    if not fields.has("survivors"):
        return None
    survivors = fields.count("survivors", at_least=0)
    if secure is None:
        fields.refuse("survivors", "matter under distributed noise only; leave them out")
    if survivors > secure.clients:
        fields.refuse("survivors", f"= {survivors} exceed the {secure.clients} clients of a round")
    if survivors < secure.threshold and not fields.has("opened"):
        fields.refuse(
            "survivors",
            f"= {survivors} are below the threshold of {secure.threshold}; say `opened: false` if "
            "the protocol stopped and nothing was released, or `opened: true` to price the noise "
            "that was there",
        )
    return survivors


def _secure_aggregation(top: Fields, noise: str) -> SecureAggregation | None:
    if noise == "central":
        if top.has("secure_aggregation"):
            top.refuse(
                "secure_aggregation",
                "adds no noise by itself; say which the clients add, "
                "such as `noise: distributed-gaussian`",
            )
        return None
    where = ("secure_aggregation",)
    known = ("clients", "threshold", "colluding")
    fields = Fields(top.raw("secure_aggregation"), known=known, where=where)
    clients, threshold = fields.count("clients"), fields.count("threshold")
    colluding = fields.count("colluding", 0, at_least=0)
    if not colluding < threshold <= clients:
        fields.refuse(
            "threshold",
            f"= {threshold} must exceed colluding = {colluding}, and not clients = {clients}",
        )
    return SecureAggregation(clients=clients, threshold=threshold, colluding=colluding)


def _discretization(top: Fields, noise: str) -> Discretization | None:
    if noise not in _DISCRETE:
        if top.has("discretization"):
            top.refuse("discretization", f"belongs to {' and '.join(_DISCRETE)} noise")
        return None
    where = ("discretization",)
    known = ("dimension", "granularity", "rounding_bias")
    fields = Fields(top.raw("discretization"), known=known, where=where)
    return Discretization(
        dimension=fields.count("dimension"),
        granularity=fields.number("granularity", above=0),
        rounding_bias=fields.number(
            "rounding_bias", Discretization.rounding_bias, at_least=0, below=1
        ),
    )


def _stated(top: Fields, *, unit: str) -> dict[str, Any]:
    adjacency = top.word("adjacency", str(Adjacency.ADD_OR_REMOVE), among=[*map(str, Adjacency)])
    return {
        "delta": top.number("delta", above=0, below=1),
        "adjacency": Adjacency(adjacency),
        "unit": top.word("unit", unit),
    }


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
