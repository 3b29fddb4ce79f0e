"""A run's settings, kept in its folder, and what of an adapter's use contradicts them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dpacc.artifacts.kept.base_weights import weights_checksum
from dpacc.artifacts.kept.run_settings import (
    differences_from_training,
    require_storage_of_training,
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
    """Classes in another order would be taken for each other, so that nothing is measured.

    Here nobody knows the base's weights: it goes by its name.
    """
    assert differences_from_training(config=TOLD, folder=folder) == []
    told = differences_from_training(
        config=replace(TOLD, model="other", quantization="none"), folder=folder
    )
    assert [line.split(" is used on ")[1] for line in told] == ["model=other", "quantization=none"]
    with pytest.raises(ConfigurationError, match=r"labels=.*is not what the adapter in"):
        differences_from_training(config=replace(TOLD, labels=("spam", "ham")), folder=folder)
    with pytest.raises(ConfigurationError, match=r"quantization=none is not what .*nf4: leave it"):
        require_storage_of_training(config=replace(TOLD, quantization="none"), folder=folder)
    require_storage_of_training(config=TOLD, folder=folder)


def test_a_base_goes_by_its_weights_where_they_are_known(folder: Path) -> None:
    """Under another name the same is the same; under the same name another is refused."""
    for name, value in {"base": 1.0, "moved": 1.0, "tuned": 1.1}.items():
        (folder / name).mkdir()
        save_file({"w": torch.full((8,), value)}, folder / name / "model.safetensors")
    kept = weights_checksum(model=str(folder / "base"))
    (folder / "privacy.json").write_text(json.dumps({"base_weights": kept}))

    def told(model: str) -> list[str]:
        used = replace(TOLD, model=str(folder / model))
        return differences_from_training(config=used, folder=folder)

    assert told("moved") == []
    with pytest.raises(ConfigurationError, match="tuned has other weights than the base of the"):
        told("tuned")
    assert told("gone") == [
        f"the adapter was trained on model=base, and is used on model={folder / 'gone'}"
    ]


def test_a_configuration_that_was_changed_in_its_folder_is_not_read(folder: Path) -> None:
    """Classes that changed places there, too, would be taken for each other."""
    told = (folder / "config.yaml").read_text()
    kept = hashlib.sha256(told.encode()).hexdigest()
    (folder / "privacy.json").write_text(json.dumps({"files": {"config.yaml": kept}}))
    assert settings_of_run(folder=folder) == TOLD
    swapped = told.replace("[ham, spam]", "[spam, ham]")
    assert swapped != told
    (folder / "config.yaml").write_text(swapped)
    with pytest.raises(ConfigurationError, match="is not what the run was saved with"):
        settings_of_run(folder=folder)
