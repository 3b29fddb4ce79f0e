"""Python programs that begin where torch is loaded already, each a process of its own.

A deployed federation starts a process for every message, and most of a process is the seconds in
which it loads torch. Here one process loads it once, and forks for each program that a script of
`shims` asks for: same code, arguments, folder, environment and output. A script that is killed
takes its program with it, and ends when that ends.

    python warm_programs.py SOCKET
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import stat
import sys
import traceback
from pathlib import Path

SHIMS = {
    "flower-superexec": "from flwr.supercore.cli import flower_superexec as main; main()",
    "flwr-clientapp": "from flwr.supernode.cli import flwr_clientapp as main; main()",
    "flwr-serverapp": "from flwr.superlink.cli import flwr_serverapp as main; main()",
    "flwr": "from flwr.cli.app import app as main; main()",
    "warm-python": "",  # runs the code that it is given first
}
"""What each program does."""

_LOADED = (
    "torch",
    "transformers",
    "peft",
    "dpacc.federated.deployment.node_client",
    "dpacc.federated.deployment.server_run",
    "dpacc.federated.superlink",
    "dpacc.federated.supernode",
    "flwr.cli.app",
    "flwr.superlink.main",
    *(code.split()[1] for code in SHIMS.values() if code),
)
_SHIM = """#!{python} -SE
import json, os, socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect({socket!r})
code, first = {code!r}, 1
if not code:
    code, first = sys.argv[1], 2
argv = [sys.argv[0], *sys.argv[first:]]
asked = {{"code": code, "argv": argv, "cwd": os.getcwd(), "env": dict(os.environ)}}
said = json.dumps(asked).encode()
socket.send_fds(link, [len(said).to_bytes(8, "big")], [0, 1, 2])
link.sendall(said)
sys.exit(int(link.recv(8) or b"1"))
"""


def shims(folder: Path, *, at: Path) -> None:
    """Scripts that look like Flower's programs, to be found first in a PATH."""
    folder.mkdir()
    for name, code in SHIMS.items():
        script = folder / name
        script.write_text(_SHIM.format(python=sys.executable, socket=str(at), code=code))
        script.chmod(script.stat().st_mode | stat.S_IXUSR)


def main(at: str) -> None:
    """Load what all need, then fork for each that asks."""
    for name in _LOADED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    door = socket.socket(socket.AF_UNIX)
    door.bind(f"{at}.new")
    door.listen(64)
    Path(f"{at}.new").rename(at)  # whoever sees it may knock
    while True:
        link, _ = door.accept()
        if os.fork() == 0:
            door.close()
            os._exit(_serve(link))
        link.close()


def _serve(link: socket.socket) -> int:
    """One program, from its first line to its end, or its script's."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, files, _, _ = socket.recv_fds(link, 8, 3)
    said = b""
    while len(said) < int.from_bytes(size, "big"):
        said += link.recv(1 << 16)
    program = os.fork()
    if program == 0:
        link.close()
        os._exit(_run(json.loads(said), files))
    while True:
        ended, status = os.waitpid(program, os.WNOHANG)
        if ended:
            with contextlib.suppress(OSError):
                link.sendall(str(abs(os.waitstatus_to_exitcode(status))).encode())
            return 0
        if select.select([link], [], [], 0.05)[0]:  # the script was killed
            os.kill(program, signal.SIGKILL)
            return 0


def _run(asked: dict[str, object], files: list[int]) -> int:
    for to, own in enumerate(files):
        os.dup2(own, to)
    os.chdir(str(asked["cwd"]))
    os.environ.clear()
    os.environ.update(asked["env"])  # type: ignore[call-overload]
    sys.argv = list(asked["argv"])  # type: ignore[call-overload]
    try:
        exec(compile(str(asked["code"]), "<program>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    main(sys.argv[1])
