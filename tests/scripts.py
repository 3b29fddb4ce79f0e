"""Scripts outside any package, loaded from their files."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

RECIPES = Path(__file__).parents[1] / "recipes"


def pip_from(folder: Path) -> dict[str, str]:
    """An environment in which pip knows what lies in the folder, and nothing else."""
    return {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_EXTRA_INDEX_URL": "",
    }


def load_script(path: Path) -> ModuleType:
    """The module that a script is, without running its `main`."""
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def load_recipe(name: str) -> ModuleType:
    """A recipe that builds on others, loaded as a module beside them."""
    sys.path.insert(0, str(RECIPES))
    try:
        return load_script(RECIPES / name)
    finally:
        sys.path.remove(str(RECIPES))


def run_copied(
    folder: Path, *others: str, script: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a recipe in a fresh process, copied with others so that `data/` is in the folder."""
    (folder / "recipes").mkdir(exist_ok=True)
    for name in (script, *others):
        shutil.copy(RECIPES / name, folder / "recipes")
    return subprocess.run(
        [sys.executable, str(folder / "recipes" / script)],
        cwd="/",
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
