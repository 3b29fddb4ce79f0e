"""Owners are compared by what they say: no unit falls apart, and none that might be one is two."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import datasets
import numpy as np
import pandas
import pytest
import torch

from dpacc.errors import ConfigurationError
from dpacc.randomness.sampling import group_by_unit
from dpacc.data.privacy_units import count_units, owners_of

PATIENTS = [3, 5, 3, 3, 5, 8]
GROUPS = [[0, 2, 3], [1, 4], [5]]
DAYS = [datetime.date(2026, 1, day) for day in PATIENTS]

SAME: dict[str, Any] = {
    "list": PATIENTS,
    "tuple": tuple(PATIENTS),
    "tensor": torch.tensor(PATIENTS),
    "int32 tensor": torch.tensor(PATIENTS, dtype=torch.int32),
    "list of tensors": list(torch.tensor(PATIENTS)),
    "array": np.array(PATIENTS),
    "list of numpy's numbers": list(np.array(PATIENTS, dtype=np.int16)),
    "array of texts": np.array(PATIENTS).astype(str),
    "array of objects": np.array(PATIENTS, dtype=object),
    "series": pandas.Series(PATIENTS, index=[9, 8, 7, 6, 5, 4]),
    "nullable series": pandas.Series(PATIENTS, dtype="Int64"),
    "categories": pandas.Series([f"p{each}" for each in PATIENTS], dtype="category"),
    "column": datasets.Dataset.from_dict({"who": PATIENTS})["who"],
    "column of texts": datasets.Dataset.from_dict({"who": [f"p{p}" for p in PATIENTS]})["who"],
    "column of tensors": datasets.Dataset.from_dict({"who": PATIENTS}).with_format("torch")["who"],
    "days": DAYS,
    "array of days": np.array(DAYS, dtype="datetime64[D]"),
    "array of midnights": np.array(DAYS, dtype="datetime64[ns]"),
    "series of midnights": pandas.to_datetime(pandas.Series(DAYS)),
    "bytes": [bytes([65 + each]) for each in PATIENTS],
    "uuids": [uuid.UUID(int=each) for each in PATIENTS],
}


@pytest.mark.parametrize("units", SAME.values(), ids=SAME)
def test_the_same_owner_is_one_unit_whatever_holds_it(units: Sequence[Any]) -> None:
    """Three patients are three units in every container; tensors' elements hash by identity."""
    assert group_by_unit(units=units) == GROUPS
    assert count_units(examples=6, units=units) == 3


NAN = float("nan")
REFUSED: dict[str, tuple[Any, str]] = {
    "None": ([1, None, 1], "1 examples have no owner"),
    "NaN": (["a", NAN, NAN, NAN], "3 examples have no owner"),
    "NaN in an array": (np.array([1.0, NAN]), "1 examples have no owner"),
    "NaN in a tensor": (torch.tensor([1.0, NAN]), "1 examples have no owner"),
    "missing in pandas": (pandas.Series([1, None], dtype="Int64"), "1 examples have no owner"),
    "missing day": (pandas.to_datetime(pandas.Series(["2026-01-01", None])), "no owner"),
    "missing day of numpy": (np.array(["2026-01-01", "NaT"], dtype="datetime64[D]"), "no owner"),
    "missing category": (pandas.Series(["a", None]).astype("category").cat.codes, "no owner"),
    "empty": (["ann", " "], "no owner"),
    "word for missing": (["ann", "NaN"], "no owner"),
    "float": ([1.0, 2.0], "float"),
    "float tensor": (torch.tensor([1.0, 2.0]), "float"),
    "truth": ([True, False], "bool"),
    "lists": ([[1], [2]], "have a list of owners.*leave shared ones out"),
    "shared by some": (["ann", ("ann", "bob")], "1 examples have a list of owners .at 1.*one owner"),
    "column of lists": (pandas.Series([["ann", "bob"], ["bob"]]), "2 examples have a list"),
    "object": ([object(), object()], "object"),
    "number": (torch.tensor(7), "0 dimensions"),
    "matrix": (torch.ones(2, 2, dtype=torch.int64), "2 dimensions"),
    "text": ("annbob", "str is no list"),
    "mapping": ({0: "ann"}, "dict is no list"),
    "set": ({"ann"}, "set is no list"),
    "generator": ((unit for unit in "ab"), "generator is no list"),
    "mixed": ([7, "7"], "1 × text, 1 × whole number"),
    "days and texts": ([DAYS[0], "2026-01-03"], "several kinds"),
    "moments": ([datetime.datetime(2026, 1, 1, 9, 30)], "moments"),
    "zoned moments": ([datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)], "moments"),
    "case": (["Ann", "ann"], "units 0 and 1 differ only"),
    "spaces": (["x", "Ann Lee", "Ann  Lee "], "units 1 and 2 differ only"),
    "zeros": (["007", "7"], "differ only"),
    "decimals": (["7.0", "7"], "differ only"),
    "accents": (["Ren\u00e9", "Rene\u0301"], "differ only"),
    "invisible": (["ann", "ann\u200b"], "differ only"),
    "wide": (["Ann", "\uff21nn"], "differ only"),
}


@pytest.mark.parametrize(("units", "words"), REFUSED.values(), ids=REFUSED)
def test_what_names_nobody_or_one_person_twice_is_refused(units: Any, words: str) -> None:
    """Missing owners, kinds that hash by identity or by chance, and one person under two names."""
    with pytest.raises(ConfigurationError, match=words):
        owners_of(units)
    with pytest.raises(ConfigurationError):
        count_units(examples=2, units=units)


@pytest.mark.parametrize("read", [owners_of, lambda units: group_by_unit(units=units)])
def test_no_refusal_quotes_an_owner(read: Callable[[Any], Any]) -> None:
    """Who the owners are is private; places and counts tell where to look."""
    for units in (["Zebedee", "zebedee", "Zebedee "], ["Zebedee", 4711], ["Zebedee", None]):
        with pytest.raises(ConfigurationError) as refused:
            read(units)
        assert not {"zebedee", "4711"} & set(str(refused.value).lower().split())
        assert "ebedee" not in str(refused.value)


def test_examples_without_owners_are_units_of_their_own() -> None:
    """A range is taken as it is, and no list of owners counts examples."""
    assert owners_of(range(3)) == [0, 1, 2]
    assert count_units(examples=3, units=None) == 3
    assert count_units(examples=5, units=[1, 2, 1, 1, 2], kept_of_each=2) == 4
    assert owners_of([]) == []


@pytest.mark.parametrize(("units", "word"), [(["a"], "fewer"), (["a"] * 3, "more")])
def test_the_number_of_rows_is_not_told_where_owners_are_counted(
    units: list[str], word: str
) -> None:
    """How many rows a person has is theirs; an error says more or fewer."""
    with pytest.raises(ConfigurationError, match=word) as refused:
        count_units(examples=2, units=units)
    assert not any(character.isdigit() for character in str(refused.value))
