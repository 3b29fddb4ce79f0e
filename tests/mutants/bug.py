"""A privacy bug as a change of a few words, and the checks that must notice it."""

from __future__ import annotations

from dataclasses import dataclass

from tests.mutants.planting import Patch


@dataclass(frozen=True)
class Bug:
    """One mistake, how it is planted, and the checks that must not pass with it.

    Args:
        name: a few words for tables and command lines.
        story: what goes wrong, for a reader.
        patches: what is changed.
        checks: tests, of which at least one must fail; without the bug all pass.
        known: whether it was found in published tools.
        ranks: whether the checks start several processes, which takes long.
        quick: whether the suite plants it every time; the others have their turn in a full run.
    """

    name: str
    story: str
    patches: tuple[Patch, ...]
    checks: tuple[str, ...]
    known: bool = False
    ranks: bool = False
    quick: bool = False
