"""How small δ must be to promise anything to each of N units."""

from __future__ import annotations

import warnings

_LARGEST = 1e-3
# Customary, and never warned of.
_CUSTOMARY = 1e-5


class PrivacyWarning(UserWarning):
    """A promise that holds, and is weaker than it sounds."""


def small_delta(*, dataset_size: int) -> float:
    """The δ that N units ask for: N^-1.1, and at most 0.001.

    >>> small_delta(dataset_size=10_000) == 10_000**-1.1, small_delta(dataset_size=15)
    (True, 0.001)
    """
    return min(float(dataset_size**-1.1), _LARGEST)


def require_small_delta(
    *, delta: float, dataset_size: int, unit: str = "example", name: str = "delta"
) -> None:
    """Refuse a δ of 1/N or more, at which publishing one unit drawn at random counts as private.

    Args:
        delta: δ.
        dataset_size: N, the number of privacy units.
        unit: whose data one unit is.
        name: what the caller calls δ.

    Raises:
        ValueError: with the remedy.

    Source: Dwork & Roth 2014, section 2.3.

    >>> require_small_delta(delta=0.1, dataset_size=1000)
    Traceback (most recent call last):
    ...
    ValueError: delta=0.1 is no less than 1/1000, at which publishing one example drawn at random \
counts as private; choose it far below, such as 0.000501
    """
    if delta * dataset_size >= 1 and dataset_size > 1:
        raise ValueError(
            f"{name}={delta:g} is no less than 1/{dataset_size}, at which publishing one {unit} "
            "drawn at random counts as private; choose it far below, such as "
            f"{small_delta(dataset_size=dataset_size):.3g}"
        )


def warn_of_large_delta(
    *, delta: float, dataset_size: int, unit: str = "example", name: str = "delta"
) -> None:
    """Warn of a δ above what N units ask for and 1e-5; arguments as in `require_small_delta`.

    >>> warn_of_large_delta(delta=1e-5, dataset_size=1000)
    """
    asked = small_delta(dataset_size=dataset_size)
    if delta > max(asked, _CUSTOMARY):
        warnings.warn(
            f"{name}={delta:g} is more than {asked:.3g}, which {dataset_size} {unit}s ask for: it "
            f"is the chance with which ε may fail for one {unit}",
            PrivacyWarning,
            stacklevel=3,
        )
