"""The secret beside the data: it keys the fingerprint, and remembers the registry's heads.

A text file of mode 0600. Its first line holds the key and the registry's number; each later one a
hash of the registry's last line, as it was after some change. A registry that does not hold the
last of them was shortened, restored from an older copy, or is a copy beside which another went on.
The file only grows, so that its lock stays with it: whoever changes the registry, or any copy of
it, holds this one lock.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dpacc_accounting.ledger.disk import sync_file, sync_folder
from dpacc_accounting.ledger.locks import wait_for_lock
from dpacc_accounting.ledger.record import LedgerError

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_CLAIM_TRIES, _CLAIM_PAUSE_SECONDS = 300, 0.1


class BudgetError(LedgerError):
    """A budget that cannot be trusted or changed; or what was asked of it is refused."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """What a key file holds: the secret, whose it is, and the registry's last head.

    Args:
        secret: keys the data's fingerprint.
        budget: the registry's number.
        head: the hash of the last line that anybody wrote to it.
    """

    secret: bytes
    budget: str
    head: str


def create_key(*, path: Path, secret: bytes, budget: str, head: str) -> None:
    """Write a new key file, which remembers the head of a new registry.

    Raises:
        BudgetError: there is one, or the disk refuses.
    """
    line = json.dumps({"budget": budget, "key": secret.hex(), "kind": "budget-key"})
    try:
        write_new(path=path, data=f"{line}\n{head}\n".encode())
    except FileExistsError:
        raise BudgetError(
            f"{path} exists: this data set has a budget already, and two would add up; use that "
            "one, or name another file with --key for data that shares nobody with it"
        ) from None
    except OSError as failure:
        raise BudgetError(f"cannot write the key {path}: {failure.strerror}") from failure


def write_new(*, path: Path, data: bytes) -> None:
    """Make a file of mode 0600 and bring it to the disk; one that cannot be filled goes away.

    Raises:
        OSError: there is such a file, or the disk refuses.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            sync_file(descriptor)
        sync_folder(path.parent)
    except BaseException:
        path.unlink()
        raise


def read_key(*, path: Path) -> Key:
    """Read a key file, also while somebody writes to it.

    Raises:
        BudgetError: there is none, or it is none.
    """
    try:
        first, *heads = path.read_bytes().split(b"\n")[:-1]
        document = json.loads(first)
        return Key(
            secret=bytes.fromhex(document["key"]),
            budget=document["budget"],
            head=heads[-1].decode("ascii"),
        )
    except OSError as failure:
        raise BudgetError(
            f"cannot read the budget's key {path} ({failure.strerror}): put it back, or make it "
            "reachable at that path; it stays beside the data"
        ) from failure
    except (ValueError, LookupError, TypeError) as failure:
        raise BudgetError(f"{path} is no key of a budget: restore it from a copy") from failure


def remember_head(*, path: Path, head: str) -> None:
    """Append the registry's newest head; for whoever holds the lock."""
    with path.open("r+b") as file:
        whole = file.read().rpartition(b"\n")[0] + b"\n"
        file.truncate(len(whole))
        file.seek(len(whole))
        file.write(head.encode() + b"\n")
        file.flush()
        sync_file(file.fileno())


@contextmanager
def held(*, path: Path) -> Iterator[None]:
    """Be the only one who changes a budget, on this machine by a lock, on others by a claim.

    A lock ends with its process. Where several machines share the folder some file systems keep
    locks to themselves, so that a file is made, too, which only one can make. One that this very
    machine left behind is stale whenever the lock is ours; another machine's is waited for.

    Raises:
        BudgetError: no key, no locks, or another machine's claim that stays.
    """
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError as failure:
        raise BudgetError(
            f"cannot open the budget's key {path} ({failure.strerror}): put it back, or make it "
            "reachable and writable at that path; it stays beside the data"
        ) from failure
    try:
        wait_for_lock(descriptor, path=path)
        claim = path.with_name(f"{path.name}.claim")
        try:
            _claim(claim)
        except OSError as failure:
            raise BudgetError(f"cannot write {claim}: {failure.strerror}") from failure
        try:
            yield
        finally:
            claim.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _claim(claim: Path) -> None:
    for tried in range(_CLAIM_TRIES):
        if tried:
            time.sleep(_CLAIM_PAUSE_SECONDS)
        if _machine_of(_left_by(claim)) == _machine_of(_this_machine()):
            claim.unlink(missing_ok=True)
        with suppress(FileExistsError):
            _make(claim)
            return
    raise BudgetError(
        f"{claim} says that another machine ({_left_by(claim) or 'unnamed'}) is changing this "
        "budget: wait for it, or, if it died, delete that file"
    )


def _make(claim: Path) -> None:
    """A link to nowhere, for it appears together with the name in it, also over a network."""
    try:
        claim.symlink_to(_this_machine())
    except FileExistsError:
        raise
    except OSError:  # no such links on this disk
        write_new(path=claim, data=_this_machine().encode())


def _left_by(claim: Path) -> str:
    try:
        return str(claim.readlink()) if claim.is_symlink() else claim.read_text("utf-8")
    except OSError:
        return ""


def _this_machine() -> str:
    """Its name, and the number of its boot: equal ones share one kernel, and so its locks."""
    with suppress(OSError):
        return f"{platform.node()} {_BOOT.read_text('utf-8').strip()}"
    return platform.node() or "unnamed"


def _machine_of(words: str) -> str:
    return words.rpartition(" ")[2]
