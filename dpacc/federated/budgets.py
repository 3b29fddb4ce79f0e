"""Each client's own budget, read from one file that all have agreed on."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dpacc.errors import ConfigurationError
from dpacc.federated.settings import DPSettings, PrivacyBudget

_TOP = ("delta", "levels", "defaults", "clients")
_SETTINGS = tuple(f.name for f in dataclasses.fields(DPSettings) if f.name != "delta")
_COUNTS = ("expected_batch_size", "most_rounds", "unit_cap")


def read_budgets(*, path: Path | str) -> dict[str, DPSettings]:
    """What each client may spend, and how it trains.

    The file names levels, such as strict, moderate and relaxed, and gives each client one of them,
    or settings of its own. `delta` is the same for all.

    ```yaml
    delta: 1e-5
    levels:
      strict: {epsilon: 1}
      relaxed: {epsilon: 8}
    defaults: {expected_batch_size: 64}
    clients:
      north: strict
      south: {epsilon: 3, most_rounds: 10}
    ```

    Raises:
        ConfigurationError: the file cannot be read, or an entry is unknown, missing or senseless,
            by its name.
    """
    document = _mapping(_read(Path(path)), str(path))
    _refuse_unknown(document, _TOP, str(path))
    levels = {
        name: _mapping(each, f"levels.{name}")
        for name, each in _mapping(document.get("levels", {}), "levels").items()
    }
    defaults = _mapping(document.get("defaults", {}), "defaults")
    clients = _mapping(document.get("clients", {}), "clients")
    if not clients:
        raise ConfigurationError(f"{path} names no clients; give each a level or an epsilon")
    return {
        str(name): _settings(f"clients.{name}", entry, levels, defaults, document.get("delta"))
        for name, entry in clients.items()
    }


def largest_budget(budgets: Mapping[str, DPSettings]) -> PrivacyBudget:
    """What a federation of these clients promises: the ε of the one that spends most.

    >>> largest_budget({"a": DPSettings(epsilon=1.0, delta=1e-5, expected_batch_size=8),
    ...                 "b": DPSettings(epsilon=4.0, delta=1e-5, expected_batch_size=8)}).epsilon
    4.0

    Raises:
        ConfigurationError: there is no client, or two state their ε at different δ.
    """
    if not budgets:
        raise ConfigurationError("no client has a budget: name at least one")
    deltas = {each.delta for each in budgets.values()}
    if len(deltas) != 1:
        raise ConfigurationError(
            f"clients state their epsilon at {len(deltas)} values of delta; agree on one"
        )
    return PrivacyBudget(epsilon=max(each.epsilon for each in budgets.values()), delta=deltas.pop())


def _settings(
    place: str,
    entry: Any,
    levels: Mapping[str, Mapping[str, Any]],
    defaults: Mapping[str, Any],
    delta: Any,
) -> DPSettings:
    if isinstance(entry, str):
        if entry not in levels:
            known = ", ".join(levels) or "none"
            raise ConfigurationError(f"{place} is {entry!r}, which is no level; levels: {known}")
        entry = levels[entry]
    given = {**defaults, **_mapping(entry, place)}
    _refuse_unknown(given, _SETTINGS, place)
    for name in ("epsilon", "expected_batch_size"):
        if name not in given:
            raise ConfigurationError(f"{place} has no {name}; set it there or in defaults")
    numbers = {name: _number(f"{place}.{name}", value, name) for name, value in given.items()}
    return DPSettings(**numbers, delta=_delta(delta))


def _number(place: str, value: Any, name: str) -> Any:
    if name in ("unit_field", "budget"):
        return str(value)
    # YAML 1.1 reads 1e-5 as text.
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number) or number <= 0:
        raise ConfigurationError(f"{place}={value!r} must be a finite number above 0")
    if name in _COUNTS:
        if number != int(number):
            raise ConfigurationError(f"{place}={value!r} must be a whole number")
        return int(number)
    return number


def _delta(value: Any) -> float:
    number = _number("delta", value, "delta")
    if not number < 1:
        raise ConfigurationError(f"delta={value!r} must lie strictly between 0 and 1")
    return float(number)


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except yaml.YAMLError:
        raise ConfigurationError(f"{path} is not YAML") from None


def _mapping(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigurationError(f"{place} must be a mapping of names, not {value!r}")
    return value


def _refuse_unknown(given: Mapping[str, Any], known: tuple[str, ...], place: str) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
            raise ConfigurationError(f"{place} has the unknown entry {name!r}{hint}")
