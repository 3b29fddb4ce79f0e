"""A run's settings, kept in its folder, and what of an adapter's use contradicts them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dpacc.artifacts.kept.run_settings import (
    differences_from_training,
    settings_document,
    settings_of_run,
    with_the_runs_settings,
)
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig

TOLD = TrainingConfig(
    model="base",
    train_data="mails.csv",
    epsilon=4.0,
    expected_batch_size=8,
    epochs=2.0,
    task="sequence-classification",
    labels=("ham", "spam"),
    quantization="nf4",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder that says what it was told."""
    (tmp_path / "config.yaml").write_bytes(settings_document(config=TOLD))
    return tmp_path


def test_what_is_kept_is_what_was_told(folder: Path) -> None:
    """Read again it is the same configuration; a folder without one says nothing."""
    assert settings_of_run(folder=folder) == TOLD
    assert settings_of_run(folder=folder / "none") is None
    assert differences_from_training(config=TOLD, folder=folder / "none") == []


def test_the_runs_settings_are_read_unless_others_are_named(folder: Path) -> None:
    """Before what is given, which stands; a configuration that is named is not added to."""

    def found(*words: str) -> list[str]:
        return with_the_runs_settings(words, kind=TrainingConfig, option="resume")

    for words in (["--resume", str(folder)], [f"--resume={folder}"]):
        more = [*words, "--lora-rank", "2"]
        assert found(*more) == ["--config", str(folder / "config.yaml"), *more]
    named = ["--config=x", "--resume", str(folder)]
    for words in (["--name", str(folder)], ["--help"], named):
        assert found(*words) == words
    with pytest.raises(ConfigurationError, match="did you mean resume"):
        found("--resum", str(folder))


def test_another_base_is_told_and_other_classes_are_refused(folder: Path) -> None:
    """Classes in another order would be taken for each other, so that nothing is measured."""
    assert differences_from_training(config=TOLD, folder=folder) == []
    told = differences_from_training(
        config=replace(TOLD, model="other", quantization="none"), folder=folder
    )
    assert [line.split(" is used on ")[1] for line in told] == ["model=other", "quantization=none"]
    with pytest.raises(ConfigurationError, match=r"labels=.*is not what the adapter in"):
        differences_from_training(config=replace(TOLD, labels=("spam", "ham")), folder=folder)
