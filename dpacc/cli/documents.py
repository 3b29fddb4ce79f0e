"""Read the YAML and JSON files that commands are given, and find the line of a field in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from dpacc_accounting.federation.fields import FieldError, Where

from dpacc.errors import ConfigurationError

# libyaml reads a federation of ten thousand clients in a second, Python in ten.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _StrictLoader(_Base):  # type: ignore[misc]
    """Safe YAML in which `1e-5` is a number and a key appears once."""


def _unique_mapping(loader: Any, node: yaml.MappingNode) -> dict[Any, Any]:
    found: dict[Any, Any] = loader.construct_mapping(node, deep=True)
    if len(found) < len(node.value):
        names = [key.value for key, _ in node.value]
        twice = next(name for name in names if names.count(name) > 1)
        raise yaml.MarkedYAMLError(problem=f"{twice} is given twice", problem_mark=node.start_mark)
    return found


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
# YAML 1.1, which PyYAML reads, takes 1e-5 for text: it wants 1.0e-5.
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?\d[\d_]*(\.[\d_]*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


def read_document(*, path: Path, wanted: str = "a federation") -> Mapping[str, Any]:
    """The mapping that a YAML or JSON file holds.

    Raises:
        ConfigurationError: no such file, not valid, or not a mapping; with the line.
    """
    text = _text(path)
    try:
        document = json.loads(text) if path.suffix == ".json" else yaml.load(text, _StrictLoader)
    except json.JSONDecodeError as mistake:
        raise ConfigurationError(f"{path}, line {mistake.lineno}: {mistake.msg}") from None
    except yaml.YAMLError as mistake:
        raise ConfigurationError(f"{path}{_at(mistake)}: {_problem(mistake)}") from None
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path} is not {wanted}: it must hold fields as `name: value`")
    return document


@contextmanager
def located(*, path: Path) -> Iterator[None]:
    """Add the file, and the line where it can be found, to errors about fields of `path`."""
    try:
        yield
    except FieldError as mistake:
        line = line_of(path=path, where=mistake.where)
        place = f", line {line}" if line else ""
        raise ConfigurationError(f"{path}{place}: {mistake}") from None


def line_of(*, path: Path, where: Where) -> int | None:
    """The line of a field, or of the innermost part on the way to it that the file holds."""
    try:
        node = yaml.compose(_text(path), Loader=_Base)
    except (yaml.YAMLError, ConfigurationError):
        return None
    line = None
    for part in where:
        found = _child(node, part)
        if found is None:
            break
        line, node = found
    return line


def _child(node: Any, part: str | int) -> tuple[int, Any] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        item = node.value[part]
        return item.start_mark.line + 1, item
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key.start_mark.line + 1, value
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as failure:
        raise ConfigurationError(f"cannot read {path}: {failure.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not a text file") from None


def _at(mistake: yaml.YAMLError) -> str:
    mark = getattr(mistake, "problem_mark", None)
    return f", line {mark.line + 1}" if mark else ""


def _problem(mistake: yaml.YAMLError) -> str:
    return str(getattr(mistake, "problem", None) or "it is not valid YAML")
