"""What a number or a part of a federation's settings must be, said before any budget is spent."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, TypeVar

from dpacc.errors import ConfigurationError, choices

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Settings = TypeVar("Settings", bound=DataclassInstance)


def require_count(name: str, value: object, *, at_least: int = 1) -> None:
    """A whole number.

    Raises:
        ConfigurationError: `value` is another thing, or smaller.

    >>> require_count("rounds", 2.5)
    Traceback (most recent call last):
    ...
    dpacc.errors.ConfigurationError: rounds=2.5 must be a whole number of at least 1
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < at_least:
        raise ConfigurationError(f"{name}={value!r} must be a whole number of at least {at_least}")


def require_positive(name: str, value: object, *, at_most: float = math.inf) -> None:
    """A finite number above 0.

    Raises:
        ConfigurationError: `value` is another thing, or larger.

    >>> require_positive("local_epochs", float("nan"))
    Traceback (most recent call last):
    ...
    dpacc.errors.ConfigurationError: local_epochs=nan must be a finite number above 0
    """
    number = math.nan
    if not isinstance(value, bool) and isinstance(value, Real):
        number = float(value)
    if not math.isfinite(number) or not 0 < number <= at_most:
        most = "" if math.isinf(at_most) else f" and at most {at_most:g}"
        raise ConfigurationError(f"{name}={value!r} must be a finite number above 0{most}")


def require_kind(name: str, value: Any, kind: type) -> None:
    """An object of the class that a setting takes, or None.

    Raises:
        ConfigurationError: it is something else; a bare number or a mapping says too little.

    >>> require_kind("privacy_budget", 8.0, dict)
    Traceback (most recent call last):
    ...
    dpacc.errors.ConfigurationError: privacy_budget=8.0 must be a dict(...)
    """
    if value is not None and not isinstance(value, kind):
        raise ConfigurationError(f"{name}={value!r} must be a {kind.__name__}(...)")


def require_words(name: str, value: object) -> None:
    """A text that is not empty, or None.

    Raises:
        ConfigurationError: it is something else.

    >>> require_words("unit_field", 5)
    Traceback (most recent call last):
    ...
    dpacc.errors.ConfigurationError: unit_field=5 must be a text that is not empty
    """
    if value is not None and not (isinstance(value, str) and value.strip()):
        raise ConfigurationError(f"{name}={value!r} must be a text that is not empty")


def require_callable(name: str, value: object) -> None:
    """A function, or None.

    Raises:
        ConfigurationError: it is something else, which would be found after a round was paid.

    >>> require_callable("on_round", 5)
    Traceback (most recent call last):
    ...
    dpacc.errors.ConfigurationError: on_round=5 must be a function
    """
    if value is not None and not callable(value):
        raise ConfigurationError(f"{name}={value!r} must be a function")


def settings_of(
    name: str,
    value: Any,
    kind: type[Settings],
    *,
    renamed: Mapping[str, str] | None = None,
    elsewhere: Mapping[str, tuple[object, str]] | None = None,
) -> Settings:
    """An object of the class that a setting takes, which a mapping of its fields may stand for.

    Args:
        name: of the setting.
        value: what was given for it.
        kind: the class.
        renamed: keys that other libraries use, and the fields that they stand for.
        elsewhere: keys of theirs that are no field: the one value that changes nothing here, and
            what to do about others.

    Raises:
        ConfigurationError: it is of another kind, or a key is unknown, given twice or missing.

    >>> from dataclasses import make_dataclass
    >>> Lora = make_dataclass("Lora", ["rank"])
    >>> settings_of("lora", {"r": 4, "bias": "none"}, Lora, renamed={"r": "rank"},
    ...             elsewhere={"bias": ("none", "biases are not trained")})
    Lora(rank=4)
    >>> settings_of("lora", {"rang": 4}, Lora)
    Traceback (most recent call last):
    ...
    dpacc.errors.ConfigurationError: lora has no entry 'rang'; it has rank; do you mean 'rank'?
    """
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            f"{name}={value!r} must be a {kind.__name__}(...), or a mapping of its fields"
        )
    fields = {each.name: each for each in dataclasses.fields(kind)}
    given = _renamed(name, value, known=fields, renamed=renamed or {}, elsewhere=elsewhere or {})
    for field in fields.values():
        if field.name not in given and field.default is dataclasses.MISSING:
            raise ConfigurationError(
                f"{name} has no {field.name!r}, which {kind.__name__} cannot do without"
            )
    return kind(**given)


def _renamed(
    name: str,
    value: Mapping[Any, Any],
    *,
    known: Collection[str],
    renamed: Mapping[str, str],
    elsewhere: Mapping[str, tuple[object, str]],
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, each in value.items():
        if key in elsewhere:
            harmless, why = elsewhere[key]
            if each != harmless:
                raise ConfigurationError(f"{name}[{key!r}]={each!r}: {why}")
            continue
        field = renamed.get(key, key)
        if field not in known:
            raise ConfigurationError(f"{name} has no entry {key!r}; it has {choices(key, known)}")
        if field in found:
            raise ConfigurationError(f"{name} gives {field} twice; leave {key!r} out")
        found[field] = each
    return found
