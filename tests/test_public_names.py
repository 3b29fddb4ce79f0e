"""What other people's programs, files and shell lines name: it changes on purpose or not at all.

`public_names.json` lists it; a new name is added there, and one that goes away breaks somebody.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

import click
import pytest

from dpacc.cli.main import dpacc
from dpacc.recipe.config import TrainingConfig

PUBLIC = json.loads(Path(__file__).with_name("public_names.json").read_text())
PACKAGES = ("dpacc", "dpacc.audit", "dpacc.federated", "dpacc_accounting")


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_offer_these_names(package: str) -> None:
    """Each can be imported from its package, and there are no others."""
    module = import_module(package)
    assert sorted(module.__all__) == PUBLIC[package]
    assert all(getattr(module, name) is not None for name in PUBLIC[package])


def test_configurations_have_these_keys() -> None:
    """A recipe's YAML of yesterday is read today."""
    assert sorted(each.name for each in dataclasses.fields(TrainingConfig)) == PUBLIC["settings"]


def test_commands_take_these_options() -> None:
    """A shell line of yesterday is understood today."""
    assert commands(dpacc) == PUBLIC["commands"]


def commands(command: click.Command, name: str = "") -> Mapping[str, list[str]]:
    """Each command's options and arguments, groups taken apart."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        found = [
            commands(command.get_command(context, each), f"{name} {each}".strip())
            for each in command.list_commands(context)
        ]
        return {key: words for part in found for key, words in part.items()}
    words = (
        parameter.opts if isinstance(parameter, click.Option) else [parameter.name or ""]
        for parameter in command.params
    )
    return {name: sorted(word for each in words for word in each)}
