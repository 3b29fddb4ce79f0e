"""What a run was told, kept in its folder, so that its adapter can be used by its name alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dpacc.artifacts.kept.base_weights import weights_checksum
from dpacc.artifacts.kept.configuration_text import configuration_text
from dpacc.artifacts.proof import BASE_WEIGHTS, checksums, said_beside
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig, load_config
from dpacc.recipe.settings import given_settings

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

CONFIG_FILE = "config.yaml"
"""It names the private data's file, and stays with the owner: nothing uploads it."""
_OF_THE_ADAPTER = ("task", "labels")
_OF_THE_BASE = ("quantization", "dtype")


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
        ConfigurationError: its `config.yaml` is damaged, or not the one that the run left, in which
            classes may have changed places.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        return None
    said = said_beside(folder=folder, name="files")
    kept = said.get(CONFIG_FILE) if isinstance(said, dict) else None
    if kept not in (None, *checksums(folder=folder, names=[CONFIG_FILE]).values()):
        raise ConfigurationError(
            f"{path} is not what the run was saved with, by the checksum in privacy.json: restore "
            "it, and give what is to differ as --SETTING"
        )
    return load_config(arguments=["--config", str(path)])


def tokenizer_source(*, folder: Path | None, model: str) -> str:
    """Where the tokenizer lies: in the run's folder, unless another base than its own is named.

    Args:
        folder: the run's, if there is one.
        model: the base.

    Raises:
        ConfigurationError: the run's `config.yaml` is damaged.
    """
    if folder is None or not (folder / "tokenizer_config.json").is_file():
        return model
    trained = settings_of_run(folder=folder)
    return str(folder) if trained is not None and trained.model == model else model


def differences_from_training(*, config: TrainingConfig, folder: Path) -> list[str]:
    """How an adapter's base is held otherwise than it was trained on, in words.

    Args:
        config: how the adapter is to be used.
        folder: the run's; where it holds no configuration, nothing is known.

    Raises:
        ConfigurationError: another task, other classes or another order of them, whose numbers
            would be taken for each other, or a base with other weights.
    """
    trained = settings_of_run(folder=folder)
    if trained is None:
        return []
    for name in _OF_THE_ADAPTER:
        _require_same(name, config, trained, folder)
    unknown = base_differences(model=config.model, trained_on=trained.model, folder=folder)
    return [*unknown, *_held_otherwise(config, trained)]


def require_storage_of_training(*, config: TrainingConfig, folder: Path) -> None:
    """Refuse a base that is quantized otherwise than when the adapter was trained on it.

    Arguments as for `differences_from_training`.

    Raises:
        ConfigurationError: it is.
    """
    trained = settings_of_run(folder=folder)
    if trained is not None:
        _require_same("quantization", config, trained, folder)


def base_differences(*, model: str, trained_on: str, folder: Path) -> list[str]:
    """A line where nobody knows whether the base is that of training, by samples of its weights.

    Args:
        model: the base that is to be used.
        trained_on: the one that the run was told.
        folder: the run's.

    Raises:
        ConfigurationError: its weights are others.
    """
    kept, found = said_beside(folder=folder, name=BASE_WEIGHTS), weights_checksum(model=model)
    if None not in (kept, found) and kept != found:
        raise ConfigurationError(
            f"model={model} has other weights than the base of the adapter in {folder}, which was "
            f"model={trained_on} when it was trained: name with --model where that base lies"
        )
    if model == trained_on or None not in (kept, found):
        return []
    return [f"the adapter was trained on model={trained_on}, and is used on model={model}"]


def _require_same(name: str, config: TrainingConfig, trained: TrainingConfig, folder: Path) -> None:
    used, learned = getattr(config, name), getattr(trained, name)
    if used != learned:
        raise ConfigurationError(
            f"{name}={used} is not what the adapter in {folder} learned with, {learned}: leave "
            "it and --config out, so that the run's own settings are read"
        )


def _held_otherwise(config: TrainingConfig, trained: TrainingConfig) -> Iterator[str]:
    for name in _OF_THE_BASE:
        used, learned = getattr(config, name), getattr(trained, name)
        if used != learned:
            yield f"the adapter was trained on {name}={learned}, and is used on {name}={used}"
