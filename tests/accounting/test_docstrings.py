"""What every public name of the accountant says about itself."""

from __future__ import annotations

import inspect
import re

import dpacc_accounting
import pytest

PUBLIC = {name: getattr(dpacc_accounting, name) for name in dpacc_accounting.__all__}
FUNCTIONS = sorted(name for name, each in PUBLIC.items() if inspect.isfunction(each))
READS_OR_WRITES = {
    "create_budget",
    "event_from_json",
    "event_to_json",
    "from_dp_event",
    "read_budget",
    "read_federation",
    "read_ledger",
    "statement",
    "to_dp_event",
}
"""Functions without a formula, which translate and price nothing themselves."""


def _docstring(name: str) -> str:
    return inspect.getdoc(PUBLIC[name]) or ""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_shows_an_example(name: str) -> None:
    """A public function's docstring has an example, which runs as a doctest."""
    assert ">>>" in _docstring(name)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_takes_named_and_typed_arguments(name: str) -> None:
    """A public function's arguments can be given by name only, and all have types."""
    for parameter in inspect.signature(PUBLIC[name]).parameters.values():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.annotation is not inspect.Parameter.empty


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_explains_its_arguments(name: str) -> None:
    """Each argument is explained, or the docstring says where, or the first line names it."""
    text = _docstring(name)
    elsewhere = re.search(r"(arguments\s+as\s+in|Otherwise as)\s+`(\w+)`", text, re.IGNORECASE)
    explained = text + (_docstring(elsewhere[2]) if elsewhere else "")
    silent = [p for p in inspect.signature(PUBLIC[name]).parameters if p not in explained]
    assert silent == []


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - READS_OR_WRITES))
def test_every_price_names_its_source(name: str) -> None:
    """A function that computes a figure cites where its formula stands."""
    assert re.search(r"Source: .*(arXiv|as (for|in) `\w+`)", _docstring(name), re.DOTALL)


@pytest.mark.parametrize("name", sorted(set(PUBLIC) - set(FUNCTIONS)))
def test_every_class_says_what_it_is(name: str) -> None:
    """A public class has a docstring of its own."""
    if inspect.isclass(PUBLIC[name]):
        assert len(vars(PUBLIC[name]).get("__doc__") or "") > 20
    else:
        assert "Union" in type(PUBLIC[name]).__name__
