"""Put recipes and launch configurations into wheels, where `dpacc run` finds them.

An editable install gets none: it reads the checkout's own, and a folder `dpacc` beside them would
hide the package.
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

APP = ("client_app.py", "server_app.py", "pyproject.toml")
"""The Flower App of deployed federations."""


class WithRecipes(BuildHookInterface[Any]):
    """Adds what `pyproject.toml` lists to a wheel that is no editable one."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before the files are chosen."""
        if version == "editable":
            return
        included = {"launch_configs": "dpacc/_launch_configs"}
        for name in self.config["recipes"]:
            included[f"recipes/{name}.py"] = f"dpacc/_recipes/{name}.py"
        for name in APP:
            included[f"recipes/federation/{name}"] = f"dpacc/_recipes/federation/{name}"
        build_data["force_include"] |= included
