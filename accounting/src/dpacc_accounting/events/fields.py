"""What every event is, and the checks of their fields."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Iterable, Iterator
from typing import Any

MOST_TIMES = 10**300
"""Larger counts have no float."""
MOST_UNITS = 10**15
"""Binomial chances of larger numbers lose their digits."""


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
        raise ValueError(f"{name}={shown(value)} is not a number here; give a float")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} is too large for a float") from None


def shown(value: Any) -> str:
    """`value` in one short line, for a message.

    >>> shown("many\\nlines")
    "'many\\\\nlines'"
    """
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


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
    if times > MOST_TIMES:
        raise ValueError(f"{name} is more than 10^300, of which nothing is promised")
    if times < 0:
        raise ValueError(f"{name}={shown(value)} is not an integer >= 0; give a whole number")
    return times


def positive_count(value: Any, *, name: str) -> int:
    """`value` as an int above 0.

    Raises:
        ValueError: it is not a whole number above 0, by `name`.

    >>> positive_count(3, name="steps")
    3
    """
    whole = count(value, name=name)
    if whole == 0:
        raise ValueError(f"{name}=0 is not a whole number above 0")
    return whole


def chance(value: Any, *, name: str) -> float:
    """`value` as the chance that one unit takes part.

    Raises:
        ValueError: it is not a number in [0, 1], by `name`.

    >>> chance(1, name="probability")
    1.0
    """
    q = real(value, name=name)
    if not 0 <= q <= 1:
        raise ValueError(
            f"{name}={q} is outside [0, 1]; give the chance that one unit takes part, "
            "such as batch_size / dataset_size"
        )
    return q


def listed(value: Any, *, name: str) -> tuple[Any, ...]:
    """`value` as a tuple of its parts.

    Raises:
        ValueError: it is no list, by `name`.

    >>> listed([1, 2], name="weights")
    (1, 2)
    """
    if isinstance(value, str | bytes | dict) or not isinstance(value, Iterable):
        raise ValueError(f"{name}={shown(value)} is not a list")
    try:
        return tuple(value)
    except TypeError:
        raise ValueError(f"{name}={shown(value)} is not a list") from None


def nested_events(event: Any) -> Iterator[Any]:
    """`event`, and every event inside it."""
    yield event
    for part in (getattr(event, "event", None), *getattr(event, "events", ())):
        if part is not None:
            yield from nested_events(part)


def require_event(value: Any, *, owner: str) -> None:
    """Refuse to nest in `owner` what is no event.

    Raises:
        ValueError: with the culprit.
    """
    if not isinstance(value, AnyEvent):
        raise ValueError(
            f"{owner} holds {shown(value)}, which is not an event; give a Gaussian, ..."
        )
