"""A node runs the app that its operator has read, and no other."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.cli.build import build_fab_from_disk

from dpacc.errors import ConfigurationError
from dpacc.federated.supernode import code_of, require_same_code, reviewing, supernode_arguments

APP = Path(__file__).parents[3] / "recipes/federation"
KEY = ["--auth-supernode-private-key", "node.key"]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(APP, tmp_path / "federation"))


def node_of(fab: bytes) -> Any:
    """What a node is given when its SuperLink sends `fab`."""

    @contextmanager
    def connect() -> Iterator[Any]:
        yield 7, None, None, None, lambda fab_hash, run_id: SimpleNamespace(content=fab), "push"

    return reviewing(connect, reviewed=code_of(build_fab_from_disk(APP)), folder=APP)()


def test_the_reviewed_app_is_taken() -> None:
    """Built again from the same files, it passes, and the rest of the connection is Flower's."""
    fab = build_fab_from_disk(APP)
    with node_of(fab) as (node, _, _, _, get_fab, push):
        assert get_fab("hash", 1).content == fab
        assert (node, push) == (7, "push")


def test_settings_of_a_run_may_differ(copy: Path) -> None:
    """Another number of rounds is no other code."""
    project = copy / "pyproject.toml"
    changed = project.read_text().replace("rounds = 5", "rounds = 50")
    assert changed != project.read_text()
    project.write_text(changed)
    with node_of(build_fab_from_disk(copy)) as (_, _, _, _, get_fab, _):
        get_fab("hash", 1)


@pytest.mark.parametrize("change", ["a line", "a file", "an entry point"])
def test_other_code_is_refused_by_the_name_of_its_file(copy: Path, change: str) -> None:
    """A line more, a file more or another entry point: the node does not keep the app."""
    project = copy / "pyproject.toml"
    if change == "a line":
        (copy / "client_app.py").write_text((copy / "client_app.py").read_text() + "\nx = 1\n")
    elif change == "a file":
        (copy / "torch.py").write_text("")
    else:
        project.write_text(project.read_text().replace("client_app:app", "server_app:app"))
    named = {"a line": "client_app.py", "a file": "torch.py", "an entry point": "pyproject.toml"}
    with (
        node_of(build_fab_from_disk(copy)) as (_, _, _, _, get_fab, _),
        pytest.raises(ConfigurationError, match=f"differs from .* in {named[change]};"),
    ):
        get_fab("hash", 1)


def test_a_file_that_is_named_twice_is_refused() -> None:
    """Whichever of the two were compared, the other could be the one that runs."""
    fab = build_fab_from_disk(APP)
    twice = io.BytesIO(fab)
    with (
        zipfile.ZipFile(twice, "a") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        archive.writestr("client_app.py", zipfile.ZipFile(io.BytesIO(fab)).read("client_app.py"))
    with pytest.raises(ConfigurationError, match="twice"):
        require_same_code(twice.getvalue(), code_of(fab), folder=APP)
    with pytest.raises(ConfigurationError, match="no Flower App"):
        require_same_code(b"nothing of the kind", code_of(fab), folder=APP)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([], "begin with --app"),
        (["--app", "app"], "give --auth-supernode-private-key"),
        (["--app", "app", *KEY, "--insecure"], "would leave the federation open"),
        (["--app", "app", *KEY, "--insec"], "would leave the federation open"),
        (["--app", "app", *KEY, "--allow-runtime-dep"], "would leave the federation open"),
    ],
)
def test_a_node_without_an_app_a_key_or_tls_does_not_start(given: list[str], reason: str) -> None:
    """The culprit and the remedy, in one line."""
    with pytest.raises(SystemExit, match=reason):
        supernode_arguments(given)
