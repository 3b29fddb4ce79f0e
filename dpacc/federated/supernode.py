"""Flower's SuperNode that runs one reviewed app alone: `python -m dpacc.federated.supernode`.

A SuperNode runs whatever code its SuperLink sends. Here it takes an app only if its files are those
of the folder that the node's operator has read; its settings may differ. The node's own records are
read once before it connects.
"""

from __future__ import annotations

import argparse
import io
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import dpacc.federated  # noqa: F401 - sets what Flower reads when it is imported
from dpacc.errors import ConfigurationError, DpaccError
from dpacc.federated.deployment.flower_programs import refuse_arguments, require_checked_flower

_FORBIDDEN = ("--insecure", "--allow-runtime-dependency-installation")
_KEY = "--auth-supernode-private-key"
_MANIFEST = ".info/CONTENT"
_PROJECT = "pyproject.toml"

Connect = Callable[..., AbstractContextManager[Any]]
"""Flower's connection of a node to its SuperLink: its number, then what it may ask for."""


def main() -> None:
    """Start the SuperNode with Flower's own arguments, after `--app FOLDER`."""
    require_checked_flower()
    folder, sys.argv[1:] = supernode_arguments(sys.argv[1:])
    require_readable_data(sys.argv[1:])
    from flwr.cli.build import build_fab_from_disk
    from flwr.supernode import start_client_internal
    from flwr.supernode.cli import flower_supernode

    supernode: Any = start_client_internal
    supernode.http_request_response = reviewing(
        supernode.http_request_response,
        reviewed=code_of(build_fab_from_disk(folder)),
        folder=folder,
    )
    flower_supernode()


def reviewing(connect: Connect, *, reviewed: Mapping[str, Any], folder: Path) -> Connect:
    """Flower's connection to its SuperLink, which stops the node before it keeps another app."""

    @contextmanager
    def connect_reviewing(*given: Any, **named: Any) -> Iterator[Any]:
        with connect(*given, **named) as connection:
            node, receive, send, get_run, get_fab, *rest = connection

            def get_reviewed_fab(fab_hash: str, run_id: int) -> Any:
                fab = get_fab(fab_hash, run_id)
                require_same_code(fab.content, reviewed, folder=folder)
                return fab

            yield node, receive, send, get_run, get_reviewed_fab, *rest

    return connect_reviewing


def supernode_arguments(given: Sequence[str]) -> tuple[Path, list[str]]:
    """The reviewed app's folder, and Flower's arguments, with TLS and a key.

    >>> supernode_arguments(["--app", "app", "--auth-supernode-private-key", "key"])[0].name
    'app'

    Raises:
        SystemExit: the app or the key is missing, or an argument would turn TLS off.
    """
    rest = list(given)
    if len(rest) < 2 or rest[0] != "--app":
        sys.exit("begin with --app FOLDER: the app that this node may run, once it was read")
    refuse_arguments(rest[2:], forbidden=_FORBIDDEN, program="flower-supernode")
    if not any(argument.partition("=")[0] == _KEY for argument in rest):
        sys.exit(f"give {_KEY} FILE, whose public half the server has registered")
    return Path(rest[1]), rest[2:]


def require_readable_data(given: Sequence[str]) -> None:
    """Read the model and every record that `--node-config` names, before anything is connected.

    Raises:
        SystemExit: in one line, what is missing or does not fit.
    """
    from flwr.common.config import parse_config_args

    from dpacc.federated.deployment.node_client import require_readable

    known = argparse.ArgumentParser(add_help=False)
    known.add_argument("--node-config", default=None)
    named = known.parse_known_args(list(given))[0].node_config
    if named is None:
        sys.exit("give --node-config FILE: what this node decides for itself")
    try:
        require_readable(parse_config_args([named]))
    except DpaccError as error:
        sys.exit(f"this node cannot be a client: {error}")


def code_of(fab: bytes) -> dict[str, Any]:
    """What a Flower App is made of, by file: all but the settings of its runs.

    Raises:
        ConfigurationError: it is no app, or names a file twice.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(fab)) as archive:
            names = [name for name in archive.namelist() if name != _MANIFEST]
            files: dict[str, Any] = {name: archive.read(name) for name in names}
            project = tomllib.loads(files[_PROJECT].decode())
            project["tool"]["flwr"]["app"].pop("config", None)
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError("what the server sent is no Flower App") from error
    if len(names) != len(files):
        raise ConfigurationError("the server's app names a file twice")
    return files | {_PROJECT: project}


def require_same_code(fab: bytes, reviewed: Mapping[str, Any], *, folder: Path) -> None:
    """Refuse an app whose files are not the reviewed ones.

    Raises:
        ConfigurationError: naming the files.
    """
    sent = code_of(fab)
    differing = sorted(
        name for name in sent.keys() | reviewed.keys() if sent.get(name) != reviewed.get(name)
    )
    if differing:
        raise ConfigurationError(
            f"the server's app differs from {folder} in {', '.join(differing)}; read its copy, "
            "and start this node again with that as --app"
        )


if __name__ == "__main__":
    main()
