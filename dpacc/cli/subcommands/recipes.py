"""Which recipes an installation brings, and where they and the launch configurations lie.

In a checkout they are `recipes/` and `launch_configs/` beside the package; a wheel has copies of
them within it, as `pyproject.toml` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import dpacc
from dpacc.errors import ConfigurationError

RECIPES: Mapping[str, str] = {
    "audit": "Train beside canaries, and say how much privacy was really lost.",
    "audit_synthetic": "The same, by canaries looked for in synthetic text alone.",
    "benchmark": "Compare federations on public data: a grid, and its report.",
    "count_labels": "Count how many private records have each label, with noise.",
    "evaluate": "Measure a finished adapter, or its bare base, on held-out data.",
    "evaluate_synthetic": "Compare synthetic records with public ones.",
    "federate": "Train one classifier at several clients, each with its own ε.",
    "healthcare": "Find entities in clinical notes of twenty hospitals, each with its own ε.",
    "merge": "Merge a finished adapter into its base: one model.",
    "predict": "Ask a finished adapter: classes, answers, or what it writes.",
    "sweep": "Compare settings, within one budget or on public data.",
    "synthesize": "Write synthetic records by a finished adapter, at no further ε.",
    "train": "Fine-tune a language model on private data, with a guarantee.",
}
"""Each with what it does."""

LAUNCHED = ("audit", "audit_synthetic", "train")
"""Those that `accelerate launch` may start on several processes."""

_PACKAGE = Path(dpacc.__file__).parent


def script_of(*, recipe: str) -> Path:
    """The file of a recipe.

    Raises:
        ConfigurationError: there is none of this name.
    """
    if recipe not in RECIPES:
        raise ConfigurationError(f"no recipe is called {recipe}: choose from {', '.join(RECIPES)}")
    return _folder("recipes") / f"{recipe}.py"


def federation_app() -> Path:
    """The folder of the Flower App that deployed federations run."""
    return _folder("recipes") / "federation"


def launch_file(*, name: str) -> Path:
    """A launch configuration by its name, or a file of one's own.

    Raises:
        ConfigurationError: it is neither.
    """
    folder = _folder("launch_configs")
    if (folder / f"{name}.yaml").is_file():
        return folder / f"{name}.yaml"
    if Path(name).is_file():
        return Path(name)
    known = ", ".join(sorted(each.stem for each in folder.glob("*.yaml")))
    raise ConfigurationError(f"launch={name} is no launch configuration: choose {known}, or a file")


def _folder(name: str) -> Path:
    packed = _PACKAGE / f"_{name}"
    return packed if packed.is_dir() else _PACKAGE.parent / name
