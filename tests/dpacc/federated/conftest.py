"""One tiny model for all federations of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dpacc.federated.federations import tiny_folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def folder(tmp_path: Path, model: Path) -> Path:
    (tmp_path / "model").symlink_to(model)
    return tmp_path
