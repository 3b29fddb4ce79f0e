"""A few hundred broken inputs; `benchmarks/fuzz.py` tries a hundred thousand."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.scripts import load_script

SCRIPT = Path(__file__).parents[1] / "benchmarks/fuzz.py"


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    """The script's own module, loaded from its file."""
    return load_script(SCRIPT)


@pytest.mark.parametrize("target", ["configurations", "arguments", "data", "commands"])
def test_broken_inputs_are_refused_in_one_line(
    fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """Taken or refused, never a traceback, a second line or a file left behind."""
    monkeypatch.setattr(sys, "argv", ["dpacc"])
    fates = [fuzz.try_input(target=target, seed=seed) for seed in range(150)]
    assert [finding for _, finding in fates if finding is not None] == []
    assert {fate for fate, _ in fates} == {"taken", "refused"}


def test_a_traceback_and_a_leftover_are_found(
    fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge itself: an exception that no user should see, and a file left half made."""

    def fails(*_: object) -> None:
        raise KeyError("secret")

    def leaves(folder: Path, *_: object) -> None:
        (folder / "half.partial").write_text("")

    for behaviour, words in ((fails, "KeyError"), (leaves, "left behind")):
        monkeypatch.setitem(fuzz.TARGETS, "planted", behaviour)
        fate, finding = fuzz.try_input(target="planted", seed=0)
        assert fate == "found"
        assert words in finding.what
