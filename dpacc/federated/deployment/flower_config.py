"""Flower's own settings files, read as this project reads settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from flwr.app.user_config import UserConfig

from dpacc.errors import ConfigurationError
from dpacc.recipe.settings import read_settings

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Settings = TypeVar("Settings", bound=DataclassInstance)


def read_config(kind: type[Settings], config: UserConfig) -> Settings:
    """Read what Flower was given, naming what is unknown, missing or senseless.

    >>> from dpacc.federated.deployment.run_settings import RunSettings
    >>> read_config(RunSettings, {"model": "m", "num-clients": 2, "rounds": 5, "epsilon": 8.0,
    ...                           "delta": 1e-5, "lora-target-modules": "q_proj,v_proj"}).lora.rank
    8

    Raises:
        ConfigurationError: in one line.
    """
    if "config" in config:
        # `read_settings` would open the file that it names; Flower's own files are enough.
        raise ConfigurationError("unknown setting config: write settings where Flower reads them")
    return read_settings(kind=kind, arguments=[f"--{n}={v}" for n, v in config.items()])
