"""What is written reaches the disk, whole, on each system by its own commands."""

from __future__ import annotations

import errno
import os
import sys
import types
from pathlib import Path

import pytest
from dpacc_accounting.ledger import disk
from dpacc_accounting.ledger.disk import replace_durably, sync_file, sync_folder, write_durably


def test_a_durable_file_is_its_owners_alone_and_replaces_a_longer_one(tmp_path: Path) -> None:
    """Mode 0600 from the moment it exists, and nothing of what was there before."""
    path = tmp_path / "adapter"
    write_durably(path=path, content=b"longer than")
    write_durably(path=path, content=b"this")
    assert path.read_bytes() == b"this"
    assert path.stat().st_mode & 0o777 == 0o600


def test_all_of_it_is_written_before_the_disk_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing waits in Python's own buffer, and a disk that refuses is heard."""
    path, sizes = tmp_path / "adapter", list[int]()

    def refuse(descriptor: int) -> None:
        sizes.append(os.fstat(descriptor).st_size)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        write_durably(path=path, content=b"four")
    assert sizes == [4]


def test_a_mac_is_told_of_files_and_windows_has_no_folders_to_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F_FULLFSYNC goes to the file that was flushed; without O_DIRECTORY no folder is opened."""
    told: list[tuple[int, int]] = []
    mac = types.SimpleNamespace(fcntl=lambda *given: told.append(given), F_FULLFSYNC=51)
    monkeypatch.setitem(sys.modules, "fcntl", mac)
    with (tmp_path / "file").open("wb") as file:
        sync_file(file.fileno())
        assert told == [(file.fileno(), 51)]
    monkeypatch.delattr(os, "O_DIRECTORY")
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("a folder was opened"))
    sync_folder(tmp_path)


def test_a_file_is_replaced_whole_or_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk refuses, the old content is there and nothing beside it."""
    path = tmp_path / "state.json"
    replace_durably(path=path, content=b"first, and longer")
    replace_durably(path=path, content=b"second")

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        replace_durably(path=path, content=b"third")
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("is_windows", "tries"), [(True, 3), (False, 1)])
def test_windows_is_asked_again_while_somebody_reads_the_file(
    is_windows: bool, tries: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a file that is open is not replaced; elsewhere a refusal is meant, and told at once."""
    path, real, asked = tmp_path / "state.json", Path.replace, list[Path]()

    def refuse_twice(scratch: Path, target: Path) -> Path:
        asked.append(target)
        if len(asked) < 3:
            raise PermissionError(errno.EACCES, "Access is denied")
        return real(scratch, target)

    monkeypatch.setattr(disk, "_IS_WINDOWS", is_windows)
    monkeypatch.setattr(Path, "replace", refuse_twice)
    monkeypatch.setattr("time.sleep", lambda _: None)
    if is_windows:
        replace_durably(path=path, content=b"state")
        assert path.read_bytes() == b"state"
    else:
        with pytest.raises(PermissionError):
            replace_durably(path=path, content=b"state")
    assert asked == [path] * tries
    assert not list(tmp_path.glob(".*"))


def test_a_reader_that_never_ends_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After two seconds of pauses Windows' own refusal comes through."""
    slept: list[float] = []

    def refuse(scratch: Path, target: Path) -> Path:
        raise PermissionError(errno.EACCES, "Access is denied")

    monkeypatch.setattr(disk, "_IS_WINDOWS", True)
    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr("time.sleep", slept.append)
    with pytest.raises(PermissionError):
        replace_durably(path=tmp_path / "state.json", content=b"state")
    assert 1.5 < sum(slept) < 3
