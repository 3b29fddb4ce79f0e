"""One writer a file, on POSIX systems and on Windows."""

import errno
import gc
import os
import time
from pathlib import Path

from dpacc_accounting.ledger.record import LedgerError

_FAR_BYTE = (1 << 31) - 2
"""Windows locks bytes, and keeps others from reading them: this one lies behind every ledger."""

_PAUSE_SECONDS = 0.05
"""Windows has no lock that is waited for longer than ten seconds."""

_BUSY = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)

_held: dict[tuple[int, int], int] = {}
"""Which files this process has locked, by device and number, through which descriptor."""


def lock_alone(descriptor: int, *, path: Path) -> None:
    """Lock an open file for this descriptor alone; the lock goes when it is closed.

    Raises:
        LedgerError: another descriptor holds it, of this process or another, or the disk has no
            locks.
    """
    try:
        try:
            _lock(descriptor)
        except OSError:
            gc.collect()  # of what nobody holds any longer, some is in circles
            _lock(descriptor)
    except OSError as failure:
        if failure.errno not in _BUSY:
            raise LedgerError(
                f"cannot lock ledger {path} ({failure}): write it to a disk with file locks"
            ) from failure
        if _is_ours(descriptor):
            raise LedgerError(
                f"ledger {path} is open in this very process already, by an engine that was not "
                "closed (an earlier run of the same notebook cell?): call engine.close() on that "
                "one and resume it, or restart the kernel, or give this run a ledger of its own"
            ) from failure
        raise LedgerError(
            f"ledger {path} is being written by another process: wait until it ends, or give "
            "this run a ledger of its own"
        ) from failure
    _held[_identity(descriptor)] = descriptor


def wait_for_lock(descriptor: int, *, path: Path) -> None:
    """Lock an open file for this descriptor alone, after whoever holds it has let it go.

    Raises:
        LedgerError: the disk has no locks.
    """
    while True:
        try:
            return _wait(descriptor)
        except OSError as failure:
            if failure.errno not in _BUSY:
                raise LedgerError(
                    f"cannot lock {path} ({failure}): keep it on a disk with file locks"
                ) from failure
            time.sleep(_PAUSE_SECONDS)


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:
        _lock_far_byte(descriptor)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _wait(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:
        _lock_far_byte(descriptor)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _lock_far_byte(descriptor: int) -> None:
    import msvcrt  # of Windows alone

    os.lseek(descriptor, _FAR_BYTE, os.SEEK_SET)
    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    finally:
        os.lseek(descriptor, 0, os.SEEK_SET)


def _is_ours(descriptor: int) -> bool:
    """Whether a descriptor of this process, which is still open, holds the lock of this file."""
    identity = _identity(descriptor)
    holder = _held.get(identity)
    try:
        return holder is not None and _identity(holder) == identity
    except OSError:  # closed since
        return False


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino
