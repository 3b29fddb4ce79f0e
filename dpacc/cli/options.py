"""Options and arguments that several commands share."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from dpacc.artifacts.figure_files import format_of
from dpacc.errors import ConfigurationError

_UNITS = {"": 10**9, "GB": 10**9, "GIB": 2**30, "MB": 10**6, "MIB": 2**20}


class LedgerOrPlan(click.Path):
    """A ledger or a plan; a run's folder stands for its ledger."""

    name = "path"

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: Any, ctx: Any) -> Path:
        """The file that is meant."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if not path.is_dir():
            return path
        if not (path / "ledger.jsonl").is_file():
            self.fail(f"{path} is a folder without a ledger.jsonl.", param, ctx)
        return path / "ledger.jsonl"


class Picture(click.Path):
    """Where a figure goes: refused before any work where it could not be drawn or stored."""

    name = "path"

    def __init__(self) -> None:
        super().__init__(path_type=Path, dir_okay=False)

    def convert(self, value: Any, param: Any, ctx: Any) -> Path:
        """The file to write."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        try:
            format_of(path=path)
        except ConfigurationError as refusal:
            self.fail(f"{refusal}.", param, ctx)
        if not path.parent.is_dir():
            self.fail(f"there is no folder {path.parent}.", param, ctx)
        if find_spec("matplotlib") is None:
            self.fail("figures need matplotlib: pip install 'dpacc[plot]'.", param, ctx)
        return path


class Memory(click.ParamType):  # type: ignore[type-arg]
    """An amount of memory, in bytes."""

    name = "memory"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """24GB or 22.5GiB, or bytes."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(value))
        if found is None or found[2].upper() not in _UNITS or not float(found[1]):
            self.fail(f"{value!r} is no amount of memory; write 24GB or 22.5GiB.", param, ctx)
        return int(float(found[1]) * _UNITS[found[2].upper()])


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

as_json: Decorator = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout."
)
ledger: Decorator = click.argument("ledger", type=LedgerOrPlan())
source: Decorator = click.argument("source", type=LedgerOrPlan())
delta: Decorator = click.option(
    "--delta", type=float, help="δ at which ε is stated.  [default: the plan's]"
)
settings: Decorator = click.option(
    "--settings",
    type=click.Path(path_type=Path, dir_okay=False),
    help="YAML or JSON with settings that the ledger's own plan lacks.",
)
plot: Decorator = click.option(
    "--plot", type=Picture(), help="Write a figure here (PNG, PDF or SVG)."
)


def gpus(*, default: int) -> Decorator:
    """How many GPUs there are."""
    return click.option(
        "--gpus", type=click.IntRange(min=0), default=default, show_default=True, help="0: none."
    )


memory_per_gpu: Decorator = click.option(
    "--memory-per-gpu",
    type=Memory(),
    default="24GB",
    show_default=True,
    help="Of each GPU, or of the machine where there is none.",
)


def sustained_tflops(*, gpus: int) -> float:
    """10¹² operations a second of one device, as assumed.

    >>> sustained_tflops(gpus=8), sustained_tflops(gpus=0)
    (120.0, 0.1)
    """
    return 120.0 if gpus else 0.1


def size(count: int) -> str:
    """An amount of memory as it is shown.

    >>> size(3 * 2**30), size(2**20)
    ('3.00 GiB', '1.00 MiB')
    """
    return f"{count / 2**30:.2f} GiB" if count >= 2**27 else f"{count / 2**20:.2f} MiB"


@contextmanager
def training_stack() -> Iterator[None]:
    """Where torch and its friends are loaded; they are an extra of this package.

    Raises:
        ConfigurationError: they are not installed.
    """
    try:
        yield
    except ModuleNotFoundError as missing:
        raise ConfigurationError(
            f"this needs {missing.name}, which is not installed; pip install '.[train]'"
        ) from None


def write_picture(*, path: Path, picture: bytes) -> None:
    """Store a figure.

    Raises:
        ConfigurationError: the folder is missing or cannot be written.
    """
    try:
        path.write_bytes(picture)
    except OSError as failure:
        raise ConfigurationError(f"cannot write {path}: {failure.strerror}") from None
