"""docs/architecture.md shows the house as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_imports import SOURCES
from tests.test_rooms import ORDER, doors_of

PAGE = Path(__file__).parents[1] / "docs/architecture.md"
TEXT = PAGE.read_text()
LINKED = re.findall(r"\[`(\w+)`\]\((\.\./[\w/]+\.py)\)", TEXT)


@pytest.mark.parametrize("package", ["dpacc_accounting", "dpacc"])
def test_every_room_has_its_line_in_the_order_of_imports(package: str) -> None:
    """The table lists all doors of a package, lower ones first, as the rule has them."""
    table = TEXT.split(f"| `{package}` | what lives there |")[1].split("\n\n")[0]
    listed = re.findall(r"^\| `(\w+)(?:\.py|/)` \|", table, re.M)
    assert listed == [room for room in ORDER[package] if not room.startswith("__")]
    assert sorted(listed) == doors_of(SOURCES[package])


def test_one_examples_way_has_at_most_seven_stops_all_linked() -> None:
    """From a line of JSONL to the adapter, and each stop names a function or class."""
    way = TEXT.split("## One example's way, in seven stops")[1].split("##")[0]
    stops = re.split(r"^\d\. ", way, flags=re.M)[1:]
    assert 3 <= len(stops) <= 7
    assert all("](../dpacc/" in stop for stop in stops)


@pytest.mark.parametrize(("name", "file"), LINKED)
def test_links_lead_to_what_they_name(name: str, file: str) -> None:
    """The linked file defines it."""
    code = (PAGE.parent / file).read_text()
    assert re.search(rf"^(?:def|class) {name}\b|^{name} = ", code, re.M)
