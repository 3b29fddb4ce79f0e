"""What a run was told, kept in its folder, so that its adapter can be used by its name alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from dpacc.artifacts.configuration_text import configuration_text
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig, load_config

CONFIG_FILE = "config.yaml"
"""It names the private data's file, and stays with the owner: nothing uploads it."""
_OF_THE_ADAPTER = ("task", "labels")
_OF_THE_BASE = ("model", "quantization", "dtype")


def settings_document(*, config: TrainingConfig) -> bytes:
    """`config.yaml`: the configuration, whole, as recipes read it."""
    head = f"What the run {config.name} was told. `--adapter` of this folder reads it."
    return configuration_text(config=config, head=head, shown=("task", "quantization")).encode()


def with_the_runs_settings(arguments: Sequence[str], *, option: str) -> list[str]:
    """The arguments of a recipe, with the run's own configuration where none is named.

    Args:
        arguments: of the recipe.
        option: which of them names a run's folder.

    >>> with_the_runs_settings(["--adapter", "nowhere"], option="adapter")
    ['--adapter', 'nowhere']
    """
    words = list(arguments)
    if any(word.split("=")[0] == "--config" for word in words):
        return words
    folder = _value_of(words, f"--{option}")
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


def _value_of(words: Sequence[str], option: str) -> str | None:
    for at, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == option:
            return value if equals else next(iter(words[at + 1 :]), None)
    return None
