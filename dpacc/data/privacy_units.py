"""Whose each example is: which owners are one and the same, and which lists name no owners.

A privacy unit that falls apart into several loses its protection: each part is clipped and counted
alone. So owners are compared by what they say, never by the object that says it: whole numbers,
texts, dates and bytes, all of one kind. What might be one person under two names is refused.
"""

from __future__ import annotations

import datetime
import re
import unicodedata
import uuid
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from dpacc.errors import ConfigurationError

_NO_OWNER = frozenset({"", "nan", "none", "null", "<na>", "nat", "n/a", "unknown"})
"""What programs write, as text, where a table has no value."""

_PLACES_SHOWN = 3
_WHOLE = re.compile(r"[+-]?\d+(\.0+)?")


def owners_of(units: Any) -> list[Hashable]:
    """Each example's owner, as it is compared: whole numbers, texts, dates or bytes.

    Args:
        units: a list, tuple, range, tensor, array, column of a dataset or of a table: one owner an
            example. Numbers and texts of torch, numpy and pandas are taken for what they say.

    Raises:
        ConfigurationError: an owner is missing or of a kind that does not name anybody, an example
            has several, kinds are mixed, or some differ by no more than case, spaces or how a
            number is written. Places are told, from 0, and never an owner.

    >>> import numpy as np
    >>> owners_of(np.array([7, 7, 9]))
    [7, 7, 9]
    >>> owners_of(["Ann", "ann "])
    Traceback (most recent call last):
        ...
    dpacc.errors.ConfigurationError: units 0 and 1 differ only in case, spaces or how a number is \
written, and so do 0 other pairs: are they one and the same? Write each owner in one way
    """
    if isinstance(units, range):
        return list(units)
    owners = [_plain(each) for each in _listed(units)]
    _refuse_missing(owners)
    _refuse_shared(owners)
    kinds = [_kind(each) for each in owners]
    _refuse_unknown(owners, kinds)
    _refuse_mixed(kinds)
    owners = [_day(each) for each in owners]
    _refuse_moments(owners)
    if kinds and kinds[0] == "text":
        _refuse_look_alikes(owners)
    return owners


def count_units(*, examples: int, units: Any | None, kept_of_each: int | None = None) -> int:
    """N: how many owners there are, or examples where none are named.

    Args:
        examples: how many.
        units: whose each is.
        kept_of_each: where examples are drawn and not units, the most that are kept of one owner;
            then those that are kept are counted.

    Raises:
        ConfigurationError: as [`owners_of`][dpacc.data.privacy_units.owners_of].

    >>> count_units(examples=4, units=["ann", "bob", "ann", "ann"])
    2
    >>> count_units(examples=4, units=["ann", "bob", "ann", "ann"], kept_of_each=2)
    3
    """
    if units is None:
        return examples
    require_one_each(examples=examples, units=units)
    owned = Counter(owners_of(units))
    if kept_of_each is None:
        return len(owned)
    return sum(min(count, kept_of_each) for count in owned.values())


def require_one_each(*, examples: int, units: Any) -> None:
    """Refuse owners that are not as many as the examples, whose number is private beside units.

    Raises:
        ConfigurationError: there are more or fewer of them, or they are no list.
    """
    _require_a_list(units)
    if len(units) != examples:
        more = "more" if len(units) > examples else "fewer"
        raise ConfigurationError(
            f"there are {more} units than examples; say of each example, in their order, whose it "
            "is"
        )


def normalised(text: str) -> str:
    """A text without what people and programs add to it by accident.

    >>> normalised(" Ann\u00a0Lee "), normalised("007"), normalised("7.0")
    ('annlee', '7', '7')
    """
    visible = "".join(c for c in unicodedata.normalize("NFKC", text) if _is_visible(c))
    folded = "".join(visible.casefold().split())
    return str(int(folded.partition(".")[0])) if _is_number(folded) else folded


# --- containers -----------------------------------------------------------------------------


def _require_a_list(units: Any) -> None:
    if isinstance(units, str | bytes | Mapping | AbstractSet) or not hasattr(units, "__len__"):
        raise ConfigurationError(
            f"units={type(units).__name__} is no list of owners; give one owner for each example, "
            "in the order of the examples"
        )
    if getattr(units, "ndim", 1) != 1:
        raise ConfigurationError(
            f"units has {units.ndim} dimensions; give one owner for each example"
        )


def _listed(units: Any) -> Iterable[Any]:
    _require_a_list(units)
    kind = getattr(getattr(units, "dtype", None), "kind", "")
    if kind == "M" and hasattr(units, "astype"):  # nanoseconds would become numbers
        return list(units.astype("datetime64[us]").tolist())
    if hasattr(units, "tolist"):
        return list(units.tolist())
    if isinstance(units, Sequence) or hasattr(units, "__iter__"):
        return list(units)
    return [units[place] for place in range(len(units))]


def _plain(value: Any) -> Any:
    """A number or text of torch, numpy, pandas or Python, as Python's own."""
    if type(value) in (int, str):
        return value
    if isinstance(value, uuid.UUID):
        return str(value)
    if type(value).__name__ == "datetime64":
        return value.astype("datetime64[us]").item()
    if hasattr(value, "to_pydatetime"):
        return None if value != value else value.to_pydatetime(warn=False)
    if hasattr(value, "as_py"):  # pyarrow's
        return value.as_py()
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    return str(value) if isinstance(value, str) else value


# --- what is refused ------------------------------------------------------------------------


def _refuse_missing(owners: Sequence[Any]) -> None:
    places = [place for place, owner in enumerate(owners) if _is_missing(owner)]
    if places:
        raise ConfigurationError(
            f"{len(places)} examples have no owner ({_at(places)}: None, NaN, empty, negative, or "
            "a word for them): leave such examples out, or give each an owner"
        )


def _is_missing(owner: Any) -> bool:
    if owner is None or type(owner).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(owner, str):
        return normalised(owner) in _NO_OWNER
    if isinstance(owner, bytes):
        return not owner.strip()
    if isinstance(owner, float):
        return owner != owner
    # Negative numbers stand for a missing owner in codes of categories.
    return isinstance(owner, int) and owner < 0


def _refuse_shared(owners: Sequence[Any]) -> None:
    places = [p for p, owner in enumerate(owners) if isinstance(owner, list | tuple | AbstractSet)]
    if places:
        raise ConfigurationError(
            f"{len(places)} examples have a list of owners ({_at(places)}), and what several share "
            "would be bounded for none of them: give each example one owner, who alone is then "
            "protected, such as who sent a mail, or leave shared ones out"
        )


def _kind(owner: Any) -> str:
    """What kind of name this is, "" for none."""
    if isinstance(owner, bool):
        return ""
    kinds: dict[type, str] = {int: "whole number", str: "text", bytes: "bytes"}
    if isinstance(owner, datetime.date):
        return "date"
    return next((kind for wanted, kind in kinds.items() if isinstance(owner, wanted)), "")


def _refuse_unknown(owners: Sequence[Any], kinds: Sequence[str]) -> None:
    places = [place for place, kind in enumerate(kinds) if not kind]
    if places:
        names = ", ".join(sorted({type(owners[place]).__name__ for place in places}))
        raise ConfigurationError(
            f"{len(places)} units are of a kind that names nobody ({names}; {_at(places)}): give "
            "whole numbers, texts, dates or bytes, such as units.astype('int64') for numbers with "
            "a decimal point"
        )


def _refuse_mixed(kinds: Sequence[str]) -> None:
    if len(set(kinds)) > 1:
        shares = ", ".join(f"{kinds.count(kind)} × {kind}" for kind in sorted(set(kinds)))
        raise ConfigurationError(
            f"units are of several kinds ({shares}), and 7 and '7' would be two owners: write all "
            "in one way, such as [str(unit) for unit in units]"
        )


def _day(owner: Any) -> Any:
    """The day of a midnight, as tables store dates."""
    midnight = datetime.time()
    if isinstance(owner, datetime.datetime) and owner.tzinfo is None and owner.time() == midnight:
        return owner.date()
    return owner


def _refuse_moments(owners: Sequence[Any]) -> None:
    places = [p for p, owner in enumerate(owners) if isinstance(owner, datetime.datetime)]
    if places:
        raise ConfigurationError(
            f"{len(places)} units are moments, not days ({_at(places)}), of which each example may "
            "have one of its own: give days, such as moment.date()"
        )


def _refuse_look_alikes(owners: Sequence[Any]) -> None:
    first: dict[str, tuple[str, int]] = {}
    pairs: set[tuple[int, str]] = set()
    shown: tuple[int, int] | None = None
    for place, owner in enumerate(owners):
        known, known_at = first.setdefault(normalised(owner), (owner, place))
        if known != owner:
            pairs.add((known_at, owner))
            shown = shown or (known_at, place)
    if shown is not None:
        raise ConfigurationError(
            f"units {shown[0]} and {shown[1]} differ only in case, spaces or how a number is "
            f"written, and so do {len(pairs) - 1} other pairs: are they one and the same? Write "
            "each owner in one way"
        )


_is_number: Callable[[str], Any] = _WHOLE.fullmatch


def _is_visible(character: str) -> bool:
    return unicodedata.category(character) not in ("Cf", "Cc") or character.isspace()


def _at(places: Sequence[int]) -> str:
    shown = ", ".join(str(place) for place in places[:_PLACES_SHOWN])
    more = ", …" if len(places) > _PLACES_SHOWN else ""
    return f"at {shown}{more}"
