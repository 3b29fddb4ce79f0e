"""Read a flat, documented dataclass from a YAML file and command-line overrides.

Every field declares its meaning and its limits once, with
[`setting`][dpacc.recipe.settings.setting]; the errors and `--help` are made from that. An unknown
name is an error that suggests the nearest.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import yaml

from dpacc.errors import ConfigurationError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Settings = TypeVar("Settings", bound=DataclassInstance)

# What a setting may be, where it is one of a few words.
Quantization = Literal["none", "nf4", "int8"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
PerExampleGradients = Literal["auto", "materialize", "ghost"]
Kernels = Literal["torch", "triton"]
WireFormat = Literal["fp32", "bf16"]
Compile = Literal["none", "blocks", "step"]
Task = Literal["causal-lm", "sequence-classification", "token-classification", "preference"]
PreferenceLoss = Literal["dpo", "ipo", "simpo", "kto", "orpo"]
LoraMethod = Literal["lora", "rslora", "ffa", "whitened", "dylora", "subspace"]
Tracker = Literal["tensorboard", "wandb", "trackio"]
OptimizerName = Literal["adamw", "sgd"]
Metric = Literal["perplexity", "accuracy"]

_LIMITS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "above": ("above", lambda value, limit: value > limit),
    "at_least": ("at least", lambda value, limit: value >= limit),
    "below": ("below", lambda value, limit: value < limit),
    "at_most": ("at most", lambda value, limit: value <= limit),
}


def setting(
    meaning: str,
    *,
    default: Any = dataclasses.MISSING,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> Any:
    """Declare one field: what it means, its default (none: required) and its limits."""
    limits = {"above": above, "at_least": at_least, "below": below, "at_most": at_most}
    metadata = {"meaning": meaning, **{k: v for k, v in limits.items() if v is not None}}
    return dataclasses.field(default=default, metadata=metadata)


def read_settings(*, kind: type[Settings], arguments: Sequence[str], usage: str = "") -> Settings:
    """Build `kind` from `--config FILE.yaml` and `--name value` overrides (`-` and `_` alike).

    Raises:
        ConfigurationError: an unknown name, a value of the wrong type or outside its limits,
            a missing required value, or an unreadable file.
        SystemExit: with code 0 after `--help`.
    """
    if "--help" in arguments or "-h" in arguments:
        print(describe_settings(kind=kind, usage=usage))
        sys.exit(0)
    coerced = given_settings(kind=kind, arguments=arguments)
    _refuse_missing(coerced, kind)
    return kind(**coerced)


def given_settings(*, kind: type[DataclassInstance], arguments: Sequence[str]) -> dict[str, Any]:
    """What `--config FILE.yaml` and overrides say of `kind`, each of its type; the rest may lack.

    Raises:
        ConfigurationError: an unknown name, a value of the wrong type, or an unreadable file.
    """
    given = _parse_arguments(arguments, kind)
    path = given.pop("config", None)
    values = {**(_read_yaml(Path(path)) if path else {}), **given}
    _refuse_unknown(values, kind, where=str(path) if path else "the command line")
    return typed_settings(kind=kind, values=values)


def typed_settings(*, kind: type[DataclassInstance], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of known fields of `kind`, each of its field's type; a number may be written as text.

    Raises:
        ConfigurationError: a value is of another type.
    """
    hints = typing.get_type_hints(kind)
    return {name: _coerce(name, hints[name], value) for name, value in values.items()}


def check_limits(*, settings: DataclassInstance) -> None:
    """Hold every value against the limits its field declares; `None` is always allowed.

    Raises:
        ConfigurationError: the first value that is outside, with the limit.
    """
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        for limit, (words, holds) in _LIMITS.items():
            bound = field.metadata.get(limit)
            if bound is not None and value is not None and not holds(value, bound):
                raise ConfigurationError(
                    f"{field.name}={value} must be {words} {bound}: "
                    f"set it in the configuration file or with --{field.name}"
                )


def describe_settings(*, kind: type[DataclassInstance], usage: str = "") -> str:
    """List every setting with its type, default and meaning, as `--help` prints it."""
    lines = [usage, "", "  --config FILE.yaml", "      Read settings from this file first."]
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        required = field.default is dataclasses.MISSING
        default = "required" if required else f"default {_as_text(field.default)}"
        lines.append(f"  --{field.name} {_type_name(hints[field.name])}  ({default})")
        lines += textwrap.wrap(
            field.metadata["meaning"], 88, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
    return "\n".join(lines).strip("\n")


# --- the command line ---------------------------------------------------------------------


def _parse_arguments(arguments: Sequence[str], kind: type[DataclassInstance]) -> dict[str, Any]:
    flags = {name for name, hint in typing.get_type_hints(kind).items() if hint is bool}
    given: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        token = rest.pop(0)
        if not token.startswith("--"):
            raise ConfigurationError(f"unexpected argument {token!r}: write --name value")
        raw, equals, value = token[2:].partition("=")
        name = raw.replace("-", "_")
        if not equals:
            if rest and not rest[0].startswith("--"):
                value = rest.pop(0)
            elif name in flags:
                value = "true"
            else:
                raise ConfigurationError(f"--{raw} has no value: write --{raw} VALUE")
        given[name] = value
    return given


# --- the YAML file ------------------------------------------------------------------------


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML in which `1e-5` is a number and a key appears once."""


def _unique_mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        name = str(loader.construct_object(key, deep=True)).replace("-", "_")
        if name in seen:
            line = key.start_mark.line + 1
            raise yaml.MarkedYAMLError(problem=f"{name} (line {line}) is given twice")
        seen.add(name)
    return loader.construct_mapping(node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
# YAML 1.1, which PyYAML reads, takes 1e-5 for text: it wants 1.0e-5.
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?\d[\d_]*(\.[\d_]*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigurationError(f"cannot read --config {path}: {reason}") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is not valid YAML: {_one_line(error)}") from None
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path} must hold lines of `name: value`")
    return {str(name).replace("-", "_"): value for name, value in values.items()}


def _one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "unreadable"
    return f"{problem} (line {mark.line + 1})" if mark else str(problem)


# --- names and types ----------------------------------------------------------------------


def _refuse_unknown(
    values: Mapping[str, Any], kind: type[DataclassInstance], *, where: str
) -> None:
    known = [field.name for field in dataclasses.fields(kind)]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, [*known, "config"], n=1)
            remedy = f"did you mean {near[0]}?" if near else "--help lists them all"
            raise ConfigurationError(f"unknown setting {name} (from {where}): {remedy}")


def _refuse_missing(values: Mapping[str, Any], kind: type[DataclassInstance]) -> None:
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING and field.name not in values:
            raise ConfigurationError(
                f"{field.name} is required: set it in the configuration file or with --{field.name}"
            )


def _coerce(name: str, hint: Any, value: Any) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    empty = value is None or (isinstance(value, str) and value.lower() in ("null", "none", "~"))
    if empty and types.NoneType in options:
        return None
    if value is None:
        raise ConfigurationError(f"{name}=null needs a value ({_type_name(hint)})")
    (wanted,) = (option for option in options if option is not types.NoneType)
    try:
        return _convert(wanted, value)
    except (ValueError, TypeError, OverflowError):
        raise ConfigurationError(f"{name}={value!r} must be {_type_name(wanted)}") from None


def _convert(wanted: Any, value: Any) -> Any:
    if typing.get_origin(wanted) is typing.Literal:
        return _one_of(typing.get_args(wanted), value)
    if typing.get_origin(wanted) is tuple:
        of = typing.get_args(wanted)[0]
        return (
            _to_names(value) if of is str else tuple(_convert(of, each) for each in _listed(value))
        )
    converters = {bool: _to_bool, int: _to_int, float: _to_float, str: _to_text}
    return converters[wanted](value)


def _one_of(choices: tuple[Any, ...], value: Any) -> Any:
    if value not in choices:
        raise ValueError(value)
    return value


def _to_bool(value: Any) -> bool:
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() not in words:
        raise ValueError(value)
    return words[value.lower()]


def _to_int(value: Any) -> int:
    number = _to_float(value)
    if not number.is_integer():
        raise ValueError(value)
    return int(number)


def _to_float(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(number := float(value)):
        raise ValueError(value)
    return number


def _to_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _to_names(value: Any) -> tuple[str, ...]:
    """A list as it is; of a text, what stands between commas, where quotes keep a space."""
    names = _listed(value)
    if not all(_to_text(name).strip() for name in names):
        raise ValueError(value)
    return names


def _listed(value: Any) -> tuple[Any, ...]:
    if isinstance(value, int | float):
        return (value,)
    names = tuple(value)
    if isinstance(value, str):
        names = tuple(name.strip().strip("'\"") for name in value.strip("[]").split(","))
    if not names:
        raise ValueError(value)
    return names


def _type_name(hint: Any) -> str:
    if isinstance(hint, types.UnionType):
        return " or ".join(_type_name(option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return "|".join(str(choice) for choice in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        of = typing.get_args(hint)[0]
        if typing.get_origin(of) is typing.Literal:
            return f"a list of {_type_name(of)}"
        return "a list of names" if of is str else "a list of numbers"
    names = {bool: "true|false", int: "a whole number", float: "a number", str: "text"}
    return names.get(hint, "null")


def _as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
