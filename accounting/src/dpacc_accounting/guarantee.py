"""What an event promises: (ε, δ), and everything that must be said beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal
from enum import StrEnum
from typing import Any

from dpacc_accounting.event_fields import shown


class Adjacency(StrEnum):
    """Which two datasets count as neighbours.

    ADD_OR_REMOVE: one has a privacy unit that the other lacks; clipped sums differ by <= C.
    REPLACE_ONE: one unit has other content; clipped sums differ by <= 2C.

    >>> Adjacency("replace-one") is Adjacency.REPLACE_ONE
    True
    """

    ADD_OR_REMOVE = "add-or-remove"
    REPLACE_ONE = "replace-one"

    @classmethod
    def _missing_(cls, value: object) -> Adjacency:
        known = ", ".join(str(member) for member in cls)
        raise ValueError(f"adjacency={shown(value)} is unknown; choose one of {known}")


METHOD_NAMES = {"pld": "PLD", "rdp": "RDP", "gaussian": "Gaussian closed form"}


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

    def __str__(self) -> str:
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
        }


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def rounded_up(value: float, *, digits: int = 4) -> str:
    """`value` in `digits` significant digits, never below it: a promise may not shrink in print.

    >>> rounded_up(7.99741), rounded_up(1e-05)
    ('7.998', '1e-05')
    """
    if not math.isfinite(value):
        return str(value)
    # From the shortest repr, so that 1e-05 does not become 1.001e-05.
    ceiling = Context(prec=digits, rounding=ROUND_CEILING).create_decimal(Decimal(repr(value)))
    return f"{float(ceiling):.{digits}g}"
