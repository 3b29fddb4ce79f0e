"""An error said once more, when a launcher has said all that it says about it.

`accelerate launch` prints a traceback of its own, or a banner, beneath the line of a recipe that
stopped; what went wrong should be the last thing that a person reads.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

_PATIENCE_SECONDS = 120
# Only launchers set these.
_LAUNCHED = ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID")
# Waits until the launcher has ended, on its descriptor, and prints the line.
_PROGRAM = """
import os, select, sys
ended, _, _ = select.select([int(sys.argv[1])], [], [], float(sys.argv[2]))
if ended:
    sys.stderr.write(sys.argv[3] + "\\n")
os.rmdir(sys.argv[4])
"""


def say_after_the_launcher(line: str) -> None:
    """Print `line` on stderr once more after the launcher of this process, if there is one.

    One rank of a launch does so, the first that fails. A launcher that says nothing itself, with
    --quiet, is not followed.
    """
    if not any(name in os.environ for name in _LAUNCHED) or not hasattr(os, "pidfd_open"):
        return
    launcher = os.getppid()
    try:
        said = Path(f"/proc/{launcher}/cmdline").read_bytes().split(b"\0")
        began = Path(f"/proc/{launcher}/stat").read_text("utf-8").rpartition(")")[2].split()[19]
        if not {b"--quiet", b"-q"}.isdisjoint(said):
            return
        first = Path(tempfile.gettempdir()) / f"dpacc-{os.getuid()}-{launcher}-{began}"
        first.mkdir()
        descriptor = os.pidfd_open(launcher)
    except (OSError, IndexError):  # another rank speaks, or the launcher is gone
        return
    words = [str(descriptor), str(_PATIENCE_SECONDS), line, str(first)]
    subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[descriptor],
        start_new_session=True,
    )
