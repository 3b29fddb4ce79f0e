"""Running the command line inside the tests' own process."""

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from dpacc.cli.main import main


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


def words_of(options: dict[str, object]) -> list[object]:
    """Options as words, those of value None left out."""
    return [word for pair in options.items() if pair[1] is not None for word in pair]


@pytest.fixture
def dpacc(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call `dpacc` with the given words."""

    def run(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["dpacc", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capsys.readouterr()
        return Outcome(end.value.code or 0, out, err)

    return run
