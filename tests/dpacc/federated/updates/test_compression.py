"""What a compression is, in words that cross the wire, and where it is refused."""

from __future__ import annotations

from typing import Any

import pytest

from dpacc.errors import ConfigurationError
from dpacc.federated.updates.compression import Compression, require_summable


@pytest.mark.parametrize(
    "settings",
    [
        {"bits": 16},
        {"bits": 8, "keep": 0},
        {"bits": 8, "keep": 1.5},
        {"bits": 8, "keep": float("nan")},
        {"bits": 8, "selection": "first"},
        {"bits": 8, "limit": 0.0},
        {"bits": 8, "limit": float("inf")},
        {"bits": 32, "keep": 0.5, "limit": 1.0},
        {},
    ],
)
def test_senseless_settings_are_refused_by_name(settings: dict[str, Any]) -> None:
    """The error shows the field, its value and what it may be."""
    with pytest.raises(ConfigurationError) as refused:
        Compression(**settings)
    assert any(name in str(refused.value) for name in ("bits", "keep", "selection", "limit"))


@pytest.mark.parametrize(
    "compression",
    [
        Compression(bits=8),
        Compression(keep=0.01),
        Compression(bits=4, keep=1 / 3, selection="random", limit=0.125),
    ],
)
def test_its_words_are_read_back(compression: Compression) -> None:
    """Settings cross as one line of JSON, without losing a digit."""
    assert Compression.from_words(compression.words) == compression


@pytest.mark.parametrize(
    "words",
    ["", "8", "[8]", '{"bits": 8, "x": 1}', '{"bits": "8"}', '{"keep": [1]}', "[" * 100_000],
)
def test_words_of_another_kind_are_refused(words: str) -> None:
    """A server that asks for what is not known here gets no update."""
    with pytest.raises(ConfigurationError):
        Compression.from_words(words)


def test_only_what_depends_on_no_data_may_be_added_under_masks() -> None:
    """Public places and a public grid are summable; the refusal of others says why."""
    for good in (
        Compression(bits=8, limit=1.0),
        Compression(bits=4, keep=0.1, selection="random", limit=1.0),
    ):
        require_summable(good)
        assert good.summable
    for bad, why in (
        (Compression(bits=8, keep=0.1, limit=1.0), "take selection='random'"),
        (Compression(bits=8), "give a public limit"),
        (Compression(keep=0.1, selection="random"), "give a public limit"),
    ):
        assert not bad.summable
        with pytest.raises(ConfigurationError, match=why):
            require_summable(bad)
