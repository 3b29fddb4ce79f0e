"""What an event promises: (ε, δ), and everything that must be said beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from enum import StrEnum
from typing import Any, NamedTuple

from dpacc_accounting.events.fields import shown


class Adjacency(StrEnum):
    """Which two datasets count as neighbours.

    ADD_OR_REMOVE: one has a privacy unit that the other lacks; clipped sums differ by <= C.
    REPLACE_ONE: one unit has other content; clipped sums differ by <= 2C.
    ZERO_OUT: one unit is a null one, drawn like any other, that adds zero to every sum and count;
        the datasets have the same size, and clipped sums differ by <= C. Source: Kairouz et al.
        2021 (arXiv 2103.00039); Ponomareva et al. 2023 (arXiv 2303.00654).

    >>> Adjacency("replace-one") is Adjacency.REPLACE_ONE
    True
    """

    ADD_OR_REMOVE = "add-or-remove"
    REPLACE_ONE = "replace-one"
    ZERO_OUT = "zero-out"

    @classmethod
    def _missing_(cls, value: object) -> Adjacency:
        known = ", ".join(str(member) for member in cls)
        raise ValueError(f"adjacency={shown(value)} is unknown; choose one of {known}")


METHOD_NAMES = {"pld": "PLD", "rdp": "RDP", "gaussian": "Gaussian closed form"}

VOIDING_NOTES = frozenset({"fixed-seed", "not-private", "no-noise"})
"""Subjects of notes after which no ε may be claimed; every other note qualifies it."""


class Note(NamedTuple):
    """A fact that voids or qualifies a guarantee, as a ledger holds it."""

    subject: str
    text: str

    @property
    def voids(self) -> bool:
        """Whether no ε may be claimed beside it."""
        return self.subject in VOIDING_NOTES


@dataclass(frozen=True, kw_only=True)
class Guarantee:
    """(ε, δ)-differential privacy, with what it assumes.

    `P(M(D) in S) <= e^ε · P(M(D') in S) + δ` for every S and all neighbours D, D'.

    Args:
        epsilon: a certified upper bound; infinite where nothing is promised.
        delta: the δ that goes with it.
        adjacency: which datasets are neighbours.
        unit: whose data one unit is, such as "example" or "client".
        method: how it was priced: "pld", "rdp" or "gaussian".
        slack: `epsilon` minus a certified lower bound on the exact ε at `delta`, >= 0. A method
            that computes no lower bound states the trivial one, 0, so its slack is `epsilon`.
        notes: what voids or qualifies it. Beside a voiding note ε is infinite, whatever was given.

    >>> print(Guarantee(epsilon=7.99741, delta=1e-5, adjacency=Adjacency.ADD_OR_REMOVE,
    ...                 unit="example", method="pld", slack=0.001))
    (ε = 7.998, δ = 1e-05)-DP, add-or-remove adjacency, unit: example, PLD
    """

    epsilon: float
    delta: float
    adjacency: Adjacency
    unit: str
    method: str
    slack: float
    notes: tuple[Note, ...] = ()

    def __post_init__(self) -> None:
        if self.void_because:
            object.__setattr__(self, "epsilon", math.inf)
            object.__setattr__(self, "slack", math.inf)

    @property
    def void_because(self) -> tuple[str, ...]:
        """Why no ε may be claimed, if none may."""
        return tuple(note.text for note in self.notes if note.voids)

    @property
    def qualified_by(self) -> tuple[str, ...]:
        """What ε does not cover although this run did it, or what it rests on."""
        return tuple(note.text for note in self.notes if not note.voids)

    def noted(self, notes: Iterable[Note]) -> Guarantee:
        """The same with these notes beside it, each once.

        >>> bare = Guarantee(epsilon=1.0, delta=1e-5, adjacency=Adjacency.ADD_OR_REMOVE,
        ...                  unit="example", method="pld", slack=0.0)
        >>> bare.noted([Note("fixed-seed", "the noise came from seed 7")]).epsilon
        inf
        """
        return replace(self, notes=tuple(dict.fromkeys((*self.notes, *notes))))

    def figures(self) -> dict[str, float]:
        """ε for trackers and logs, which take numbers alone: beside it a 1 for each note.

        >>> logged = Note("logs", "losses were logged")
        >>> Guarantee(epsilon=1.0, delta=1e-5, adjacency=Adjacency.ADD_OR_REMOVE, unit="example",
        ...           method="pld", slack=0.0, notes=(logged,)).figures()
        {'epsilon': 1.0, 'epsilon_qualified_by_logs': 1.0}
        """
        how = {True: "void_because_of", False: "qualified_by"}
        said = [f"epsilon_{how[note.voids]}_{note.subject}" for note in self.notes]
        return {"epsilon": self.epsilon, **{name.replace("-", "_"): 1.0 for name in said}}

    def __str__(self) -> str:
        if self.void_because:
            return f"NOT private, no ε may be claimed: {'; '.join(self.void_because)}"
        return f"{self._claim()}{self._qualified()}"

    def _qualified(self) -> str:
        return f"; qualified: {'; '.join(self.qualified_by)}" if self.qualified_by else ""

    def _claim(self) -> str:
        return (
            f"(ε = {rounded_up(self.epsilon)}, δ = {rounded_up(self.delta)})-DP, "
            f"{self.adjacency} adjacency, unit: {self.unit}, "
            f"{METHOD_NAMES.get(self.method, self.method)}"
        )

    def to_json(self) -> dict[str, Any]:
        """The fields as a dict that strict JSON can hold; an infinite ε is the string "inf".

        >>> Guarantee(epsilon=1.0, delta=1e-5, adjacency=Adjacency.REPLACE_ONE, unit="client",
        ...           method="rdp", slack=1.0).to_json()["adjacency"]
        'replace-one'
        """
        return {
            "epsilon": _json_number(self.epsilon),
            "delta": self.delta,
            "adjacency": str(self.adjacency),
            "unit": self.unit,
            "method": self.method,
            "slack": _json_number(self.slack),
            **stated_notes(self.notes),
        }


def stated_notes(notes: Iterable[Note]) -> dict[str, list[str]]:
    """The notes' texts as documents hold them beside ε: those that void it, and the others.

    >>> stated_notes([Note("fixed-seed", "seed 7"), Note("logs", "losses were logged")])
    {'void_because': ['seed 7'], 'qualified_by': ['losses were logged']}
    """
    each = tuple(dict.fromkeys(notes))
    return {
        "void_because": [note.text for note in each if note.voids],
        "qualified_by": [note.text for note in each if not note.voids],
    }


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def rounded_up(value: float, *, digits: int = 4) -> str:
    """`value` in `digits` significant digits, never below it: a promise may not shrink in print.

    >>> rounded_up(7.99741), rounded_up(1e-05)
    ('7.998', '1e-05')
    """
    return _rounded(value, digits, ROUND_CEILING)


def rounded_down(value: float, *, digits: int = 3) -> str:
    """`value` in `digits` significant digits, never above it: a lower bound may not grow in print.

    >>> rounded_down(2.4099), rounded_down(0.3), rounded_down(0.0)
    ('2.4', '0.3', '0')
    """
    return _rounded(value, digits, ROUND_FLOOR)


def _rounded(value: float, digits: int, towards: str) -> str:
    if not math.isfinite(value):
        return str(value)
    # From the shortest repr, so that 1e-05 does not become 1.001e-05.
    exact = Decimal(repr(float(value)))
    return f"{float(Context(prec=digits, rounding=towards).create_decimal(exact)):.{digits}g}"
