"""What a client's reply to a round may be: the one reader of what somebody else has written.

Whatever it is that does not fit is that client's failure, in its name; nothing here may stop the
round of the others, or fill the server's disk or memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord

from dpacc.errors import ConfigurationError
from dpacc.federated.requests import printable
from dpacc.federated.server.history import ClientBooks
from dpacc.federated.settings import PrivacyBudget
from dpacc.federated.updates.said_notes import is_note, notes_in

_KINDS = {"arrays": ArrayRecord, "metrics": MetricRecord, "config": ConfigRecord}
_WORDS = ("client", "rank", "unit")
_LONGEST_WORD, _MOST_NOTES = 100, 32

_BOOKS = {
    "epsilon": "epsilon",
    "delta": "delta",
    "epsilon_budget": "epsilon-budget",
    "noise_multiplier": "noise-multiplier",
    "sampling_probability": "sampling-probability",
    "steps_charged": "steps-charged",
    "steps_taken": "steps-taken",
    "choice_epsilon": "choice-epsilon",
}
_COUNTS = ("steps_charged", "steps_taken")
_RANGES = {"noise_multiplier": (1e-6, 1e9), "sampling_probability": (1e-12, 1.0)}
_MOST_STEPS = 10**9
"""Beyond these no federation lies, and within them every price can be computed."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What holds of one client's reply.

    Args:
        client: how it calls itself.
        said: its words: `client`, and `rank` and `unit` if it says them.
        arrays: its update, of which nothing is read yet.
        books: what its ledger holds; None where clients keep none.
    """

    client: str
    said: ConfigRecord
    arrays: ArrayRecord
    books: ClientBooks | None


def read_reply(reply: Message, *, budget: PrivacyBudget | None) -> Reply:
    """Read one client's reply, trusting nothing about it.

    Args:
        reply: as it came.
        budget: what clients may spend at most; None where the server adds the noise.

    Raises:
        ConfigurationError: the client gave none, or not what was agreed.
    """
    if reply.has_error():
        raise ConfigurationError(printable(str(reply.error.reason)))
    records: Mapping[str, object] = reply.content
    if not {"arrays", "config"} <= set(records) <= set(_KINDS):
        raise ConfigurationError("the reply does not hold arrays, metrics and config")
    for name, kind in _KINDS.items():
        if name in records and not isinstance(records[name], kind):
            raise ConfigurationError(f"the reply's {name} are a record of another kind")
    said = reply.content.config_records["config"]
    if not set(said) <= set(_WORDS):
        raise ConfigurationError(f"the reply says more than {', '.join(_WORDS)}")
    books = None
    if budget is not None:
        unit = _word(said, "unit", default="example")
        books = _books_within(budget, reply.content.metric_records.get("metrics"), unit=unit)
    return Reply(
        client=_word(said, "client"),
        said=said,
        arrays=reply.content.array_records["arrays"],
        books=books,
    )


def _word(said: ConfigRecord, name: str, *, default: str | None = None) -> str:
    word = said.get(name, default)
    if not isinstance(word, str) or not 1 <= len(word) <= _LONGEST_WORD or not word.isprintable():
        raise ConfigurationError(
            f"the reply's {name} is no word of 1 to {_LONGEST_WORD} printable characters"
        )
    return word


def _books_within(budget: PrivacyBudget, metrics: MetricRecord | None, *, unit: str) -> ClientBooks:
    books = _books(metrics, unit=unit)
    budget.require_covered("the client", epsilon=books.epsilon_budget, delta=books.delta)
    return books


def _books(metrics: MetricRecord | None, *, unit: str) -> ClientBooks:
    if metrics is None or set(_BOOKS.values()) - set(metrics):
        raise ConfigurationError("the reply does not say what its ledger holds")
    others = set(metrics) - set(_BOOKS.values())
    if len(others) > _MOST_NOTES or not all(is_note(name) for name in others):
        raise ConfigurationError("the reply tells numbers that were not agreed on")
    void, qualified = notes_in(metrics)
    known = {name: _number(metrics, key) for name, key in _BOOKS.items()}
    if not _believable(known, void=bool(void)):
        raise ConfigurationError("the reply says of its ledger what no ledger can hold")
    return ClientBooks(
        epsilon=known["epsilon"],
        delta=known["delta"],
        epsilon_budget=known["epsilon_budget"],
        noise_multiplier=known["noise_multiplier"],
        sampling_probability=known["sampling_probability"],
        steps_charged=int(known["steps_charged"]),
        steps_taken=int(known["steps_taken"]),
        choice_epsilon=known["choice_epsilon"],
        unit=unit,
        void_because=void,
        qualified_by=qualified,
    )


def _number(metrics: MetricRecord, key: str) -> float:
    value = metrics[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"the reply's {key} is no number")
    return float(value)


def _believable(known: Mapping[str, float], *, void: bool) -> bool:
    """Whether a ledger can hold these; only of a client that says why may ε be infinite."""
    finite = all(
        math.isfinite(value) or (name == "epsilon" and value > 0 and void)
        for name, value in known.items()
    )
    return (
        finite
        and all(known[name].is_integer() for name in _COUNTS)
        and 1 <= known["steps_taken"] <= known["steps_charged"] <= _MOST_STEPS
        and all(low <= known[name] <= high for name, (low, high) in _RANGES.items())
        and 0 <= known["choice_epsilon"] <= known["epsilon_budget"]
        and known["epsilon"] >= 0
    )
