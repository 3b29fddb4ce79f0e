"""Flower's SuperLink, open to registered nodes alone: `python -m dpacc.federated.superlink`.

Flower serves three interfaces on one port and asks an account for none of them: whoever reaches it
may register nodes, start apps on all of them, or take the server's own task. Here only what
registered nodes need is reachable from other machines; the rest answers this machine alone.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Sequence
from typing import Any

import dpacc.federated  # noqa: F401 - sets what Flower reads when it is imported
from dpacc.federated.deployment.flower_programs import refuse_arguments, require_checked_flower

NODES = "/v1/fleet/"
"""Where nodes connect: every request there is signed by a registered key."""

_ALWAYS = ("--enable-supernode-auth", "--disable-runtime-dependency-installation")
_FORBIDDEN = ("--insecure", "--allow-runtime-dependency-installation", "--simulation")
_PORT = "8443"


class NodesOnly:
    """Refuses, from other machines, every request that is not a node's.

    Args:
        app: the ASGI application behind it.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass on or refuse one connection."""
        if scope["type"] == "lifespan" or _is_open(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b"only from the SuperLink's machine"})
        else:
            await send({"type": "websocket.close", "code": 1008})


def main() -> None:
    """Start the SuperLink with Flower's own arguments, after those that privacy needs."""
    require_checked_flower()
    # Who connects is read off the connection, or off a proxy on this machine, and no one else.
    os.environ["FORWARDED_ALLOW_IPS"] = "127.0.0.1"
    sys.argv[1:] = superlink_arguments(sys.argv[1:])
    from flwr.superlink import main as superlink
    from flwr.superlink.cli import flower_superlink

    create_app = superlink.create_app

    def create_guarded_app(*given: Any, **named: Any) -> Any:
        app = create_app(*given, **named)
        app.add_middleware(NodesOnly)
        return app

    superlink.create_app = create_guarded_app
    flower_superlink()


def superlink_arguments(given: Sequence[str]) -> list[str]:
    """Flower's arguments with TLS and node authentication, which may not be turned off.

    >>> superlink_arguments(["--port", "9000"])[-2:]
    ['--port', '9000']

    Raises:
        SystemExit: one of the arguments would turn them off.
    """
    refuse_arguments(given, forbidden=_FORBIDDEN, program="flower-superlink")
    return [*_ALWAYS, "--port", _PORT, *given]


def _is_open(scope: Any) -> bool:
    return scope["path"].startswith(NODES) or _is_this_machine(scope.get("client"))


def _is_this_machine(client: Sequence[Any] | None) -> bool:
    try:
        assert client is not None
        address = ipaddress.ip_address(client[0])
    except (AssertionError, ValueError):
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


if __name__ == "__main__":
    main()
