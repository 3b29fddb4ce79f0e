"""Options and arguments that several commands share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

as_json: Decorator = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout."
)
ledger: Decorator = click.argument("ledger", type=click.Path(path_type=Path))
source: Decorator = click.argument("source", type=click.Path(path_type=Path))
delta: Decorator = click.option(
    "--delta", type=float, help="δ at which ε is stated.  [default: the plan's]"
)
settings: Decorator = click.option(
    "--settings",
    type=click.Path(path_type=Path, dir_okay=False),
    help="YAML or JSON with settings that the ledger's own plan lacks.",
)
plot: Decorator = click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Write a figure here (PNG)."
)


@contextmanager
def training_stack() -> Iterator[None]:
    """Where torch and its friends are loaded; they are an extra of this package.

    Raises:
        ConfigurationError: they are not installed.
    """
    from dpacc.errors import ConfigurationError

    try:
        yield
    except ModuleNotFoundError as missing:
        raise ConfigurationError(
            f"this needs {missing.name}, which is not installed; pip install '.[train]'"
        ) from None


def write_picture(*, path: Path, picture: bytes) -> None:
    """Store a PNG.

    Raises:
        ConfigurationError: the folder is missing or cannot be written.
    """
    from dpacc.errors import ConfigurationError

    try:
        path.write_bytes(picture)
    except OSError as failure:
        raise ConfigurationError(f"cannot write {path}: {failure.strerror}") from None
