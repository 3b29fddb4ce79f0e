"""A run is uploaded only when asked, privately, with its proof and without what a resume needs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.utils import filter_repo_objects

from dpacc.artifacts import run_folder
from dpacc.artifacts.hub import PUBLISHED, reserve_repository, upload_run
from dpacc.errors import ConfigurationError, DpaccError
from tests.recipes.conftest import material, recipe, train  # noqa: F401
from tests.recipes.training import Train


class Hub:
    """Takes the place of HfApi; remembers what it was told, in order."""

    heard: list[Any]
    refusal: str | None = None

    def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> None:
        if self.refusal is not None:
            raise OSError(self.refusal)
        assert exist_ok
        self.heard.append((name, private))

    def upload_folder(self, *, repo_id: str, folder_path: Path, allow_patterns: list[str]) -> None:
        if self.refusal is not None:
            raise OSError(self.refusal)
        files = (str(p.relative_to(folder_path)) for p in folder_path.rglob("*") if p.is_file())
        self.heard.append((repo_id, set(filter_repo_objects(files, allow_patterns=allow_patterns))))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[Hub]:
    """The hub of this test."""
    Hub.heard, Hub.refusal = [], None
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    return Hub


def test_nothing_is_uploaded_unasked(
    train: Train,  # noqa: F811
    hub: type[Hub],
) -> None:
    """A run that names no repository says nothing to the hub."""
    train()
    assert hub.heard == []


def test_what_is_uploaded_is_the_adapter_with_its_proof(
    train: Train,  # noqa: F811
    hub: type[Hub],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A private repository, made before anything is saved, gets what the card speaks of: no
    checkpoint, no journal and no tracker's file."""
    save = run_folder.save_run

    def watched(**given: Any) -> None:
        hub.heard.append("saved")
        save(**given)

    monkeypatch.setattr(run_folder, "save_run", watched)
    folder = train(push_to_hub="me/adapter", checkpoint_every=2, trackers="tensorboard") / "tiny"
    assert hub.heard == [("me/adapter", True), "saved", ("me/adapter", set(PUBLISHED))]
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert any(file.startswith("checkpoints/") for file in left)
    assert any("tfevents" in file for file in left)
    assert left > set(PUBLISHED)


def test_a_hub_that_refuses_costs_no_privacy(
    train: Train,  # noqa: F811
    hub: type[Hub],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without a login the run does not begin: one line, exit code 2, no ledger."""
    hub.refusal = "401 Client Error\nmore of it"
    with pytest.raises(SystemExit) as caught:
        train(push_to_hub="me/adapter")
    assert caught.value.code == 2
    assert "hf auth login" in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.rglob("ledger.jsonl"))
    with pytest.raises(ConfigurationError, match=r"401 Client Error; log in") as refused:
        reserve_repository("me/adapter")
    assert "\n" not in str(refused.value)


def test_a_failed_upload_says_where_the_run_is(hub: type[Hub], tmp_path: Path) -> None:
    """The remedy uploads the same files, and no others."""
    hub.refusal = "connection lost"
    with pytest.raises(DpaccError, match="connection lost; try again with") as failed:
        upload_run(folder=tmp_path, repository="me/adapter")
    message = str(failed.value)
    assert f"the run is saved in {tmp_path}" in message
    assert set(re.findall(r"--include (\S+?)(?=[ `])", message)) == set(PUBLISHED)
