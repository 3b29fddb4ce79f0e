"""What brings files to the disk, on every system: nobody else asks for it.

What is written before something else must be on the disk before it, whatever the power does. Linux
does so by `fsync`; macOS needs one command more, and Windows wants a file that may be written to.
"""

import os
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path

_IS_WINDOWS = os.name == "nt"
_TRIES, _PAUSE_SECONDS = 40, 0.05
"""Windows replaces no file that somebody reads just now: it is asked for two seconds."""


def sync_file(descriptor: int) -> None:
    """Bring a file to the disk; macOS's fsync leaves it in the drive's own memory.

    Args:
        descriptor: of a file open for writing, whose buffers are flushed.

    Raises:
        OSError: the disk refuses.
    """
    os.fsync(descriptor)
    with suppress(ImportError, AttributeError, OSError):  # elsewhere there is no such command
        fcntl = import_module("fcntl")
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)


def sync_folder(folder: Path) -> None:
    """Bring a folder's list of files to the disk; Windows does so by itself.

    Raises:
        OSError: the disk refuses.
    """
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(*, path: Path, content: bytes) -> None:
    """Write a file that only its owner may read; it is on the disk on return.

    Raises:
        OSError: the disk refuses.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        sync_file(file.fileno())


def replace_durably(*, path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, and that is there whole or not at all.

    Raises:
        OSError: the disk refuses; what was there before still is.
    """
    scratch = path.with_name(f".{path.name}.partial")
    try:
        write_durably(path=scratch, content=content)
        _take_place(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def _take_place(scratch: Path, path: Path) -> None:
    for _ in range(_TRIES - 1):
        try:
            scratch.replace(path)
            return
        except PermissionError:
            if not _IS_WINDOWS:
                raise
            time.sleep(_PAUSE_SECONDS)
    scratch.replace(path)
