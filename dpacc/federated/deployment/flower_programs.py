"""What Flower's own programs must be, and may not be told, before this project starts them."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from importlib.metadata import version

_CHECKED = ("1.41.", "1.42.")


def require_checked_flower() -> None:
    """Refuse a Flower whose inside was not read: a guard that it went around would guard nothing.

    Raises:
        SystemExit: another version is installed.
    """
    installed = version("flwr")
    if not installed.startswith(_CHECKED):
        known = " or ".join(f"{each}*" for each in _CHECKED)
        sys.exit(f"flwr {installed} was not checked; install flwr=={known}")


def draw_apart() -> None:
    """Give Flower's threads a generator of their own, where a client trains.

    Its heartbeat draws from Python's generator every 20 seconds. The coupling probe sees that this
    moved while a model ran, takes the draw for the model's, and the client would stop for good.

    >>> draw_apart()
    """
    from flwr.supercore import heartbeat
    from flwr.supercore.retry import retry_invoker

    for threads in (heartbeat, retry_invoker):
        vars(threads)["random"] = random.Random()


def refuse_arguments(given: Sequence[str], *, forbidden: Sequence[str], program: str) -> None:
    """Refuse what would turn off TLS, keys, or the review of code.

    >>> refuse_arguments(["--port", "9000"], forbidden=["--insecure"], program="flower-superlink")

    Raises:
        SystemExit: naming the argument.
    """
    for argument in given:
        name = argument.partition("=")[0]
        # argparse takes any unambiguous beginning for the whole.
        if len(name) > len("--") and any(each.startswith(name) for each in forbidden):
            sys.exit(f"{name} would leave the federation open; for tests there is {program}")
