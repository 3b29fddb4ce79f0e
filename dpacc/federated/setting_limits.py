"""What a number or a part of a federation's settings must be, said before any budget is spent."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from dpacc.errors import ConfigurationError


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
