"""What every event is, and the checks of their fields."""

from __future__ import annotations

import numbers
import operator
from typing import Any


class AnyEvent:
    """Marks the descriptions of what was run, so that only those are nested in one another."""


def real(value: Any, *, name: str) -> float:
    """`value` as a float.

    Raises:
        ValueError: it is not a number, by `name`.

    >>> real(2, name="scale")
    2.0
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError(f"{name}={value!r} is not a number")
    return float(value)


def count(value: Any, *, name: str = "times") -> int:
    """`value` as an int.

    Raises:
        ValueError: it is not a whole number >= 0, by `name`.

    >>> count(3, name="steps")
    3
    """
    try:
        times = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        times = -1
    if times < 0:
        raise ValueError(f"{name}={value!r} is not an integer >= 0; give a whole number")
    return times


def require_event(value: Any, *, owner: str) -> None:
    """Refuse to nest in `owner` what is no event.

    Raises:
        ValueError: with the culprit.
    """
    if not isinstance(value, AnyEvent):
        raise ValueError(f"{owner} holds {value!r}, which is not an event; give a Gaussian, ...")
