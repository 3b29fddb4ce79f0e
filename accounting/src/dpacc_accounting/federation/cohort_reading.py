"""Read the client-level part of a federation: cohorts, who adds the noise, and its law."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, get_args

from dpacc_accounting.factorization.buffered import ToeplitzColumn
from dpacc_accounting.federation.fields import Fields
from dpacc_accounting.federation.rounds import (
    ClientFederation,
    Cohorts,
    CorrelatedRounds,
    Discretization,
    NoiseKind,
    SecureAggregation,
)
from dpacc_accounting.guarantee import Adjacency, Note

STATED = ("level", "delta", "adjacency", "unit")
_SUBJECTS = {"void_because": "not-private", "qualified_by": "qualified"}
NOTES = tuple(_SUBJECTS)
_COHORT = (
    "rounds",
    "sampling",
    "sampling_rate",
    "population",
    "cohort_size",
    "noise_multiplier",
    "survivors",
    "opened",
)
CLIENT_LEVEL = (
    *STATED,
    *NOTES,
    *_COHORT,
    "schedule",
    "noise",
    "denominator",
    "secure_aggregation",
    "discretization",
    "most_rounds",
    "correlated",
)
_DISCRETE = ("discrete-gaussian", "skellam")


def read_cohorts(*, document: Mapping[str, Any]) -> ClientFederation:
    """The client-level federation that `document` describes.

    Raises:
        FieldError: an unknown, missing or senseless field, by its path.
    """
    top = Fields(document, known=CLIENT_LEVEL)
    noise = cast(NoiseKind, top.word("noise", "central", among=get_args(NoiseKind)))
    if top.word("denominator", "fixed", among=("fixed", "actual")) == "actual":
        top.refuse(
            "denominator",
            "= 'actual' is not covered: one client would also change what the others' sum is "
            "divided by; divide by the expected number of clients ('fixed')",
        )
    secure = _secure_aggregation(top, noise)
    schedule, stated = _cohorts(top, secure), read_stated(top, unit="client")
    if any(part.population for part in schedule):
        _require_equal_sizes(top, stated["adjacency"])
    return ClientFederation(
        schedule=schedule,
        noise=noise,
        secure_aggregation=secure,
        discretization=_discretization(top, noise),
        most_rounds=top.count("most_rounds", None),
        correlated=_correlated(top, noise, schedule),
        notes=read_notes(top),
        **stated,
    )


def _require_equal_sizes(top: Fields, adjacency: Adjacency) -> None:
    if adjacency is Adjacency.ADD_OR_REMOVE:
        top.refuse(
            "adjacency",
            "must be 'replace-one' or 'zero-out' where cohorts have a fixed size, which "
            "federations of different size do not share; or say `sampling: none` to price it "
            "without amplification",
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
            "is missing; say 'poisson' if each client is drawn by its own secret coin, "
            "'fixed-size' if each round draws so many afresh, or 'none' to claim no amplification",
        )
    if sampling == "shuffled":
        fields.refuse(
            "sampling",
            "= 'shuffled' is no sampling whose amplification is proved; say 'none' to price it "
            "without amplification",
        )
    kind = fields.word("sampling", among=("poisson", "fixed-size", "none"))
    population, size = _fixed_size(fields) if kind == "fixed-size" else (None, None)
    rate = fields.number("sampling_rate", above=0, at_most=1) if kind == "poisson" else 1.0
    survivors = _survivors(fields, secure)
    return Cohorts(
        rounds=fields.count("rounds", at_least=0),
        sampling_rate=size / population if population and size else rate,
        population=population,
        cohort_size=size,
        noise_multiplier=fields.number("noise_multiplier", at_least=0),
        survivors=survivors,
        opened=fields.flag("opened", True),
    )


def _fixed_size(fields: Fields) -> tuple[int, int]:
    population, size = fields.count("population"), fields.count("cohort_size")
    if size > population:
        fields.refuse("cohort_size", f"= {size} exceeds population = {population}")
    return population, size


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
    known = ("clients", "threshold", "colluding", "signed")
    fields = Fields(top.raw("secure_aggregation"), known=known, where=where)
    clients, threshold = fields.count("clients"), fields.count("threshold")
    colluding = fields.count("colluding", 0, at_least=0)
    if not colluding < threshold <= clients:
        fields.refuse(
            "threshold",
            f"= {threshold} must exceed colluding = {colluding}, and not clients = {clients}",
        )
    return SecureAggregation(
        clients=clients,
        threshold=threshold,
        colluding=colluding,
        signed=fields.flag("signed", False),
    )


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


def _correlated(top: Fields, noise: str, schedule: tuple[Cohorts, ...]) -> CorrelatedRounds | None:
    if not top.has("correlated"):
        return None
    if noise != "central" or any(part.sampling_rate < 1 or part.population for part in schedule):
        top.refuse(
            "correlated",
            "is for `noise: central` and `sampling: none`: whoever is drawn afresh may take part "
            "again at once, and clients that share the noise draw it anew each round",
        )
    if len({part.noise_multiplier for part in schedule}) > 1:
        top.refuse("correlated", "takes one noise_multiplier for all rounds")
    known = ("min_separation", "coefficients", "weights", "decays")
    fields = Fields(top.raw("correlated"), known=known, where=("correlated",))
    separation = fields.count("min_separation")
    column = ToeplitzColumn(
        coefficients=_numbers(fields, "coefficients"),
        weights=_numbers(fields, "weights", ()),
        decays=_numbers(fields, "decays", ()),
    )
    try:
        column.event(noise_multiplier=1.0, separation=separation, rounds=1)
    except ValueError as refused:
        top.refuse("correlated", f"cannot be priced: {refused}")
    return CorrelatedRounds(min_separation=separation, column=column)


def _numbers(fields: Fields, name: str, default: Any = None) -> tuple[float, ...]:
    given = fields.raw(name) if default is None else fields.raw(name, default)
    real = isinstance(given, list | tuple) and all(
        isinstance(each, int | float) and not isinstance(each, bool) for each in given
    )
    if not real:
        fields.refuse(name, f"must be a list of numbers, not {given!r}")
    return tuple(float(each) for each in given)


def read_stated(top: Fields, *, unit: str) -> dict[str, Any]:
    """What a guarantee is stated for: δ, adjacency and privacy unit."""
    adjacency = top.word("adjacency", str(Adjacency.ADD_OR_REMOVE), among=[*map(str, Adjacency)])
    return {
        "delta": top.number("delta", above=0, below=1),
        "adjacency": Adjacency(adjacency),
        "unit": top.word("unit", unit),
    }


def read_notes(fields: Fields) -> tuple[Note, ...]:
    """What a ledger says beside its releases, as `stated_notes` writes it."""
    found = []
    for name, subject in _SUBJECTS.items():
        given = fields.raw(name, ())
        if not isinstance(given, list | tuple) or not all(isinstance(e, str) for e in given):
            fields.refuse(name, f"must be a list of reasons in words, not {given!r}")
        found += [Note(subject, text) for text in given]
    return tuple(found)
