"""The arguments of every public function, checked in one place and made plain Python values.

Numbers of other libraries (numpy's scalars, fractions) become floats and ints, so that a guarantee
prints, and goes into JSON, the same wherever its δ came from.
"""

from __future__ import annotations

import math
from typing import Any

from dpacc_accounting.events.fields import AnyEvent, real, shown

LEAST_DELTA = 1e-300
"""Smaller δ lie near the end of a double's range."""
# Larger ones have no float, and nothing to ask about.
_LARGEST_WHOLE = 1e300


def an_event(value: Any) -> Any:
    """`value`, which must be an event.

    Raises:
        ValueError: with the culprit.

    >>> from dpacc_accounting import Gaussian
    >>> an_event(Gaussian(noise_multiplier=1.0))
    Gaussian(noise_multiplier=1.0)
    """
    if not isinstance(value, AnyEvent):
        raise ValueError(
            f"event={shown(value)} is not an event; give such as Gaussian(noise_multiplier=1.0), "
            "or event_from_json(document=...) of a JSON document"
        )
    return value


def require_delta(value: Any) -> float:
    """δ as a float in (0, 1), and not so small that its own digits are lost.

    Raises:
        ValueError: with the remedy.

    >>> require_delta(1e-5)
    1e-05
    """
    delta = real(value, name="delta")
    if not 0 < delta < 1:
        raise ValueError(f"delta={delta} is outside (0, 1); choose it below 1 / dataset_size")
    if delta < LEAST_DELTA:
        raise ValueError(f"delta={delta} is below {LEAST_DELTA:g}; choose a larger one")
    return delta


def finite_epsilon(value: Any) -> float:
    """ε as a finite float >= 0.

    Raises:
        ValueError: with the value.

    >>> finite_epsilon(1)
    1.0
    """
    epsilon = real(value, name="epsilon")
    if not (math.isfinite(epsilon) and epsilon >= 0):
        raise ValueError(f"epsilon={epsilon} is not a finite number >= 0")
    return epsilon


def require_rate(name: str, value: Any) -> float:
    """A rate as a float in [0, 1].

    Raises:
        ValueError: with its name and value.

    >>> require_rate("prior", 0.5)
    0.5
    """
    rate = real(value, name=name)
    if not 0 <= rate <= 1:
        raise ValueError(f"{name}={rate} is outside [0, 1]; give it as a share, such as 0.01")
    return rate


def require_noise(name: str, value: Any, *, least: float = 0.0) -> float:
    """A noise multiplier as a finite float >= `least`.

    Raises:
        ValueError: with its name and value.

    >>> require_noise("noise_multiplier", 2)
    2.0
    """
    noise = real(value, name=name)
    if not (math.isfinite(noise) and noise >= least):
        raise ValueError(f"{name}={noise} is not a finite number >= {least:g}; typical: 0.3 to 10")
    return noise


def whole(name: str, value: Any, *, least: int = 1) -> int:
    """A whole number, also one that is written as a float, as an int.

    Raises:
        ValueError: with its name and value.

    >>> whole("steps", 3.0)
    3
    """
    try:
        number = real(value, name=name)
    except ValueError:
        number = math.nan
    if not least <= number <= _LARGEST_WHOLE or number != math.floor(number):
        raise ValueError(f"{name}={shown(value)} is not an integer >= {least}")
    return int(value)


def require_unit(value: Any) -> str:
    """The name of whose data one unit is.

    Raises:
        ValueError: it is empty, or no name.

    >>> require_unit("patient")
    'patient'
    """
    if not isinstance(value, str) or not value:
        raise ValueError(
            f"unit is empty or no name ({shown(value)}); name whose data one unit is, such as "
            "'example'"
        )
    return value
