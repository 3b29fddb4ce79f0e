"""The machine that a run is planned for, as options tell it and as it is shown."""

import re
from collections.abc import Callable
from typing import Any

import click

_UNITS = {"": 10**9, "GB": 10**9, "GIB": 2**30, "MB": 10**6, "MIB": 2**20}

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


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
