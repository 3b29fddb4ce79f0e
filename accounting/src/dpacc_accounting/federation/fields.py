"""Read a plain mapping strictly: every key is known, every value has its type and its range."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn, TypeVar

Where = tuple[str | int, ...]
Part = TypeVar("Part")
_ABSENT: Any = object()
# Larger whole numbers are no exact doubles, and larger numbers are no doubles at all.
_LARGEST_COUNT = 2**53
_LARGEST_NUMBER = sys.float_info.max


class FieldError(ValueError):
    """A document that cannot be read; `where` is the path to the field, keys and positions, and
    `problem` what is wrong there.

    >>> str(FieldError("must be above 0", where=("clients", 3, "rounds")))
    'clients[3].rounds must be above 0'
    """

    def __init__(self, problem: str, *, where: Where) -> None:
        super().__init__(f"{dotted(where)} {problem}" if where else problem)
        self.problem = problem
        self.where = where


def dotted(where: Where) -> str:
    """A path as a person writes it.

    >>> dotted(("clients", 3, "rounds"))
    'clients[3].rounds'
    """
    words = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where)
    return words.removeprefix(".")


class Fields:
    """One mapping of a document, with what it falls back on where a key is missing.

    Args:
        document: the mapping.
        known: every key that it may hold.
        where: the path to it, for error messages.
        defaults: values for keys that it does not hold.

    Raises:
        FieldError: `document` is no mapping, or holds a key that is not known.

    >>> Fields({"round": 3}, known=("rounds", "delta"))
    Traceback (most recent call last):
    ...
    dpacc_accounting.federation.fields.FieldError: round is not a known field; did you mean \
'rounds'?
    """

    def __init__(
        self,
        document: Any,
        *,
        known: Sequence[str],
        where: Where = (),
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(document, Mapping):
            raise FieldError(f"must be a mapping of fields, not {document!r}", where=where)
        for key in document:
            if key not in known:
                raise FieldError(_unknown(key, known), where=(*where, str(key)))
        self.given = document
        self.where = where
        self._values = {**(defaults or {}), **document}

    def has(self, *names: str) -> bool:
        """Whether any of `names` is present, itself or by default."""
        return any(self._values.get(name) is not None for name in names)

    def raw(self, name: str, default: Any = _ABSENT) -> Any:
        """The value as it stands; without a default, the field is required."""
        value = self._values.get(name)
        if value is None:
            if default is _ABSENT:
                raise FieldError("is missing", where=(*self.where, name))
            return default
        return value

    def number(
        self,
        name: str,
        default: Any = _ABSENT,
        *,
        above: float = -math.inf,
        at_least: float = -math.inf,
        at_most: float = math.inf,
        below: float = math.inf,
    ) -> float:
        """A finite number within its limits."""
        value = self.raw(name, default)
        if value is default:
            return value  # type: ignore[no-any-return]
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.refuse(name, f"must be a number, not {value!r}")
        within = above < value < below and at_least <= value <= at_most
        if within and not abs(value) <= _LARGEST_NUMBER:
            self.refuse(name, "must be a finite number that a double holds")
        if not within:
            self.refuse(name, f"= {value!r} {_limits(above, at_least, at_most, below)}")
        return float(value)

    def count(self, name: str, default: Any = _ABSENT, *, at_least: int = 1) -> int:
        """A whole number of at least `at_least`."""
        value = self.raw(name, default)
        if value is default:
            return value  # type: ignore[no-any-return]
        if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
            self.refuse(name, f"= {value!r} must be a whole number of at least {at_least}")
        if value > _LARGEST_COUNT:
            self.refuse(name, f"has {len(str(value))} digits and must be at most 2^53")
        return int(value)

    def flag(self, name: str, default: bool) -> bool:
        """True or false, and nothing that merely looks like it."""
        value = self.raw(name, default)
        if not isinstance(value, bool):
            self.refuse(name, f"must be true or false, not {value!r}")
        return value

    def word(self, name: str, default: Any = _ABSENT, *, among: Sequence[str] = ()) -> str:
        """A text that is not empty, one of `among` where that is given."""
        value = self.raw(name, default)
        if value is default:
            return value  # type: ignore[no-any-return]
        if not isinstance(value, str) or not value:
            self.refuse(name, f"must be a text, not {value!r}")
        if among and value not in among:
            self.refuse(name, f"= {_unknown_choice(value, among)}")
        return str(value)

    def parts(self, name: str, read: Callable[[Any, Where], Part]) -> tuple[Part, ...]:
        """A list that is not empty, each item read by `read(item, where)`."""
        value = self.raw(name)
        if not isinstance(value, list | tuple) or not value:
            self.refuse(name, f"must be a list with at least one item, not {value!r}")
        return tuple(read(item, (*self.where, name, at)) for at, item in enumerate(value))

    def refuse(self, name: str, problem: str) -> NoReturn:
        """Raise a FieldError about the field `name`."""
        raise FieldError(problem, where=(*self.where, name))


def nearest(word: str, known: Sequence[str]) -> str:
    """The suggestion `; did you mean 'x'?`, or nothing where no known word is near.

    >>> nearest("epsilom", ["epsilon", "delta"])
    "; did you mean 'epsilon'?"
    """
    found = get_close_matches(word.lower().replace("-", "_"), known, n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""


def _unknown(key: Any, known: Sequence[str]) -> str:
    return f"is not a known field{nearest(str(key), known) or _listed(known)}"


def _unknown_choice(value: str, among: Sequence[str]) -> str:
    return f"{value!r} is not known{nearest(value, among) or _listed(among)}"


def _listed(words: Sequence[str]) -> str:
    return f"; choose from {', '.join(words)}"


def _limits(above: float, at_least: float, at_most: float, below: float) -> str:
    rules = [
        (f"above {above:g}", above > -math.inf),
        (f"at least {at_least:g}", at_least > -math.inf),
        (f"at most {at_most:g}", at_most < math.inf),
        (f"below {below:g}", below < math.inf),
    ]
    return "must be " + (" and ".join(rule for rule, holds in rules if holds) or "finite")
