"""Plant a bug: a module of the package is imported with a few words of its source exchanged."""

from __future__ import annotations

import importlib.machinery
import linecache
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType

PLANTED = "DPACC_PLANTED_BUG"
"""Names the bug to child processes, which plant it when they start."""


@dataclass(frozen=True)
class Patch:
    """`old` is exchanged for `new` in the source of `module`, where it must occur once."""

    module: str
    old: str
    new: str


class _PatchedSource(SourceFileLoader):
    patches: Sequence[Patch] = ()

    def get_code(self, fullname: str) -> CodeType:
        """Never from the cache: compiled from the changed text."""
        path = self.get_filename(fullname)
        source = self.get_data(path).decode()
        for patch in self.patches:
            if source.count(patch.old) != 1:
                raise LookupError(
                    f"{patch.module} holds {source.count(patch.old)} times, not once: {patch.old!r}"
                )
            source = source.replace(patch.old, patch.new)
        # For whoever reads a function's source again, as Triton does.
        linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)
        return self.source_to_code(source, path)


class _Finder:
    """Finds the modules that are to be changed, before anybody else does."""

    def __init__(self, patches: Sequence[Patch]) -> None:
        self._patches = patches

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec whose loader changes the source, for patched modules alone."""
        mine = [patch for patch in self._patches if patch.module == name]
        spec = PathFinder.find_spec(name, path, target) if mine else None
        if spec is None or spec.origin is None:
            return None
        loader = _PatchedSource(name, spec.origin)
        loader.patches = mine
        return importlib.machinery.ModuleSpec(name, loader, origin=spec.origin)


def plant(patches: Sequence[Patch], *, name: str) -> None:
    """Change modules that are yet to be imported, here and in child processes."""
    early = [patch.module for patch in patches if patch.module in sys.modules]
    if early:
        raise RuntimeError(f"{early} were imported before the bug could be planted")
    sys.meta_path.insert(0, _Finder(patches))
    os.environ[PLANTED] = name
