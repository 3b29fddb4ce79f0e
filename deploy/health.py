"""Whether a container's own port answers: `python health.py PORT [CA]`, where CA checks its TLS."""

from __future__ import annotations

import socket
import ssl
import sys

_SECONDS = 5


def main(port: int, authority: str | None) -> None:
    """Connect to this machine, through TLS where an authority is named; an error is unhealthy."""
    with socket.create_connection(("127.0.0.1", port), timeout=_SECONDS) as connection:
        if authority is not None:
            context = ssl.create_default_context(cafile=authority)
            context.wrap_socket(connection, server_hostname="localhost").close()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
