"""Public records, divided among clients that have as many of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpacc.errors import ConfigurationError
from dpacc.federated.trials.public_shares import shares


def lines(count: int, word: str = "line") -> list[str]:
    return [f'{{"text": "{word} {at}"}}' for at in range(count)]


def file_of(path: Path, count: int, word: str = "line") -> Path:
    path.write_text("\n".join([*lines(count, word), "", ""]))
    return path


def test_of_one_file_clients_and_held_out_records_are_apart(tmp_path: Path) -> None:
    """Every client has its number, nobody another's, and what is held out is so for every seed."""
    path = file_of(tmp_path / "all.jsonl", 60)
    one, two = (shares(path, sizes={"a": 20, "b": 25}, held_out=10, seed=s) for s in (0, 1))
    drawn = [*one.clients["a"], *one.clients["b"], *one.held_out["held_out"]]
    assert [len(each) for each in one.clients.values()] == [20, 25]
    assert len(drawn) == len(set(drawn)) == 55
    assert not one.overlap
    assert one.held_out == two.held_out
    assert one.clients != two.clients


def test_too_few_records_for_all_are_shared_and_that_is_said(tmp_path: Path) -> None:
    """No client has one twice, and none is measured on."""
    path = file_of(tmp_path / "all.jsonl", 60)
    both = shares(path, sizes={"a": 40, "b": 40}, held_out=15, seed=0)
    assert both.overlap
    for own in both.clients.values():
        assert len(set(own)) == 40
        assert not {*own} & {*both.held_out["held_out"]}


def test_a_folder_keeps_clients_as_different_as_they_are(tmp_path: Path) -> None:
    """Each draws from its own file; every kind that is held out is measured."""
    file_of(tmp_path / "a.jsonl", 9, "news")
    file_of(tmp_path / "b.jsonl", 9, "tweet")
    for kind in ("news", "tweets"):
        file_of(tmp_path / f"held_out_{kind}.jsonl", 4, f"other {kind}")
    found = shares(tmp_path, sizes={"a": 5, "b": 9}, held_out=2, seed=3)
    assert all("news" in line for line in found.clients["a"])
    assert set(found.clients["b"]) == set(lines(9, "tweet"))
    assert {kind: len(each) for kind, each in found.held_out.items()} == {"news": 4, "tweets": 4}
    found.write(tmp_path / "work")
    assert len((tmp_path / "work/held_out_news.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("place", "sizes", "why"),
    [
        ("all.jsonl", {"a": 56}, "the largest client has 56"),
        ("nothing.jsonl", {"a": 5}, "cannot be read: No such file"),
        ("folder", {"a": 5}, "a.jsonl holds 3 records and its client has 5"),
        ("folder", {"b": 5}, "b.jsonl cannot be read"),
        ("folder", {"a": 3}, "no held_out_<kind>.jsonl"),
        ("leaking", {"a": 3}, "held out as well"),
    ],
)
def test_records_that_cannot_serve_are_named(
    tmp_path: Path, place: str, sizes: dict[str, int], why: str
) -> None:
    """Too few, none, or some that are trained and measured on."""
    file_of(tmp_path / "all.jsonl", 60)
    for name in ("folder", "leaking"):
        (tmp_path / name).mkdir()
        file_of(tmp_path / name / "a.jsonl", 3)
    file_of(tmp_path / "leaking/held_out_x.jsonl", 1)
    with pytest.raises(ConfigurationError, match=why):
        shares(tmp_path / place, sizes=sizes, held_out=5, seed=0)
