"""What a run was told, kept in its folder, so that its adapter can be used by its name alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dpacc.artifacts.kept.configuration_text import configuration_text
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig, load_config
from dpacc.recipe.settings import given_settings

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

CONFIG_FILE = "config.yaml"
"""It names the private data's file, and stays with the owner: nothing uploads it."""
_OF_THE_ADAPTER = ("task", "labels")
_OF_THE_BASE = ("model", "quantization", "dtype")


def settings_document(*, config: TrainingConfig) -> bytes:
    """`config.yaml`: the configuration, whole, as recipes read it."""
    head = f"What the run {config.name} was told. `--adapter` of this folder reads it."
    return configuration_text(config=config, head=head, shown=("task", "quantization")).encode()


def with_the_runs_settings(
    arguments: Sequence[str], *, kind: type[DataclassInstance], option: str
) -> list[str]:
    """The arguments of a recipe, with the run's own configuration where none is named.

    Args:
        arguments: of the recipe.
        kind: of settings, that it reads from them.
        option: which of them names a run's folder.

    Raises:
        ConfigurationError: they name no settings of this kind.

    >>> with_the_runs_settings(["--resume", "nowhere"], kind=TrainingConfig, option="resume")
    ['--resume', 'nowhere']
    """
    words = list(arguments)
    if any(word.split("=")[0] in ("--config", "--help", "-h") for word in words):
        return words
    folder = given_settings(kind=kind, arguments=words).get(option)
    if folder is None or not (Path(folder) / CONFIG_FILE).is_file():
        return words
    return ["--config", str(Path(folder) / CONFIG_FILE), *words]


def settings_of_run(*, folder: Path) -> TrainingConfig | None:
    """What a run was told; None where its folder does not say so.

    Raises:
        ConfigurationError: its `config.yaml` is damaged.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        return None
    return load_config(arguments=["--config", str(path)])


def differences_from_training(*, config: TrainingConfig, folder: Path) -> list[str]:
    """How the base of an adapter is another than it was trained on, in words.

    Args:
        config: how the adapter is to be used.
        folder: the run's; where it holds no configuration, nothing is known.

    Raises:
        ConfigurationError: another task, or other classes or another order of them, whose numbers
            would be taken for each other.
    """
    trained = settings_of_run(folder=folder)
    if trained is None:
        return []
    for name in _OF_THE_ADAPTER:
        used, learned = getattr(config, name), getattr(trained, name)
        if used != learned:
            raise ConfigurationError(
                f"{name}={used} is not what the adapter in {folder} learned, {learned}: leave "
                "--config out, so that the run's own settings are read, or name its own"
            )
    return list(_told(config, trained))


def _told(config: TrainingConfig, trained: TrainingConfig) -> Iterator[str]:
    for name in _OF_THE_BASE:
        used, learned = getattr(config, name), getattr(trained, name)
        if used != learned:
            yield f"the adapter was trained on {name}={learned}, and is used on {name}={used}"
