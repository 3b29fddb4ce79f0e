"""A house with rooms: few, in one order, none too full, and each introduces itself."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.test_imports import SOURCES, Imports, circle, read_imports

ORDER: Mapping[str, Sequence[str]] = {
    "dpacc_accounting": (
        "bracketing",
        "events",
        "guarantee",
        "gaussian",
        "selection",
        "pld",
        "renyi",
        "pricing",
        "groups",
        "attacks",
        "factorization",
        "calibration",
        "federation",
        "ledger",
        "budget",
    ),
    "dpacc": (
        "errors",
        "plan",
        "data",
        "randomness",
        "ranks",
        "layers",
        "losses",
        "step",
        "recipe",
        "artifacts",
        "loops",
        "trainer",
        "search",
        "audit",
        "doctor",
        "planning",
        "federated",
        "cli",
        "__main__",
    ),
    "dpacc.layers": ("kernels", "*"),
    "dpacc.step": ("admission", "*"),
    "dpacc.ranks": ("collectives", "backends", "*"),
    "dpacc.cli": ("*", "commands"),
    "dpacc.federated": (
        "setting_limits",
        "settings",
        "budgets",
        "updates",
        "aggregation",
        "requests",
        "ranks",
        "secure_sum",
        "clients",
        "server",
        "healthcare",
        "monitoring",
        "benchmark",
        "trials",
        "fronts",
        "deployment",
        "superlink",
        "supernode",
    ),
}
"""Rooms and single files of a package, lowest first; `*` is every file that has no line."""

MOST_DOORS, MOST_FILES = 18, 16
_QUOTED = re.compile(r"`(\w+)`")


def arrows_upwards(imports: Imports, order: Mapping[str, Sequence[str]] = ORDER) -> list[str]:
    """Imports from a lower room into a higher one, and rooms that have no place in the order."""
    return sorted(
        f"{importer} -> {imported}"
        for package, rooms in order.items()
        for importer, names in imports.items()
        for imported in names & imports.keys()
        if _inside(importer, package) and _inside(imported, package)
        if _floor(importer, package, rooms) < _floor(imported, package, rooms)
    )


def _inside(module: str, package: str) -> bool:
    return module.startswith(f"{package}.")


def _floor(module: str, package: str, rooms: Sequence[str]) -> int:
    room = module.removeprefix(f"{package}.").partition(".")[0]
    return rooms.index(room if room in rooms else "*")


def rooms_of(folder: Path) -> Iterator[Path]:
    """The folder and all folders of Python files in it."""
    return (each.parent for each in sorted(folder.rglob("__init__.py")))


def doors_of(room: Path) -> list[str]:
    """Its files and rooms, without what every package has."""
    names = [each.stem for each in room.glob("*.py") if not each.stem.startswith("__")]
    return sorted(names + [each.parent.name for each in room.glob("*/__init__.py")])


def introduction_of(room: Path) -> str:
    return ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""


def unspoken(room: Path) -> set[str]:
    """What stands in a room and its introduction does not name."""
    return {*doors_of(room)} - {*_QUOTED.findall(introduction_of(room))}


def offered_in_vain(room: Path) -> set[str]:
    """What an introduction names after "Offers", and no file of the room defines."""
    offered = introduction_of(room).rpartition("Offers")[2]
    code = "\n".join(each.read_text() for each in room.rglob("*.py"))
    defined = set(re.findall(r"^(?:class|def) (\w+)|^(\w+)(?:: TypeAlias)? = ", code, re.M))
    return {*_QUOTED.findall(offered)} - {name for pair in defined for name in pair}


ROOMS = [room for package in ("dpacc", "dpacc_accounting") for room in rooms_of(SOURCES[package])]
INNER = [room for room in ROOMS if room not in SOURCES.values()]


def named(room: Path) -> str:
    package = next(each for each in SOURCES.values() if room.is_relative_to(each))
    return str(room.relative_to(package.parent))


@pytest.fixture(scope="module")
def imports() -> Imports:
    """What the packages really import, for the type checker too."""
    return read_imports(SOURCES, for_the_type_checker=True)


def test_no_arrow_leads_upwards(imports: Imports) -> None:
    """Every room imports from lower ones alone, and each has its place in the order."""
    assert arrows_upwards(imports) == []


def test_files_make_no_circle_even_for_the_type_checker(imports: Imports) -> None:
    """A package's own lazy list of names apart, files can be read in one order."""
    lazy = {"dpacc", "dpacc.audit", "dpacc.federated", "dpacc_accounting"}
    files = {name: names - lazy for name, names in imports.items() if name not in lazy}
    assert circle(files) == []


def test_an_arrow_upwards_is_found() -> None:
    """A layer that looks into a recipe, and a room that nobody placed."""
    planted = {"dpacc.layers.heads": {"dpacc.recipe.config"}, "dpacc.recipe.config": set[str]()}
    assert arrows_upwards(planted) == ["dpacc.layers.heads -> dpacc.recipe.config"]
    with pytest.raises(ValueError, match="not in tuple"):
        arrows_upwards({"dpacc.attic.box": {"dpacc.plan"}, "dpacc.plan": set[str]()})


def test_every_folder_of_files_is_a_room() -> None:
    """None lacks the introduction by which it is found, and packed."""
    for package in ("dpacc", "dpacc_accounting"):
        folders = {each.parent for each in SOURCES[package].rglob("*.py")}
        assert folders == {*rooms_of(SOURCES[package])}


@pytest.mark.parametrize("room", ROOMS, ids=named)
def test_no_room_is_too_full(room: Path) -> None:
    """At most 18 doors at the top of a package, about 16 files in a room, no name twice."""
    top = room in SOURCES.values() or room.name == "federated"
    assert 0 < len(doors_of(room)) <= (MOST_DOORS if top else MOST_FILES)
    assert room.name not in doors_of(room)


@pytest.mark.parametrize("room", INNER, ids=named)
def test_each_room_introduces_itself(room: Path) -> None:
    """Its docstring names every file in it, in an order to read them, and what it offers."""
    assert unspoken(room) == set()
    assert "Offers" in introduction_of(room)
    assert offered_in_vain(room) == set()


def test_an_introduction_that_is_silent_or_boasts_is_found(tmp_path: Path) -> None:
    """A file that is not named, and a name that is not there."""
    (tmp_path / "__init__.py").write_text('"""A room.\n\nRead `one`. Offers `two`."""\n')
    (tmp_path / "one.py").write_text("def one() -> None: ...\n")
    (tmp_path / "other.py").write_text("")
    assert unspoken(tmp_path) == {"other"}
    assert offered_in_vain(tmp_path) == {"two"}
