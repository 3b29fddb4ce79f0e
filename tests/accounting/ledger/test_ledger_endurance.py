"""The ledger among failing disks, other processes and long runs."""

import errno
import json
import os
import signal
import subprocess
import sys
import types
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import pytest
from dpacc_accounting import (
    Composed,
    Gaussian,
    Ledger,
    LedgerError,
    Repeated,
    read_ledger,
)

from tests.accounting.ledger.ledgers import LOUD, PLAN, STEP, three_charges


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger of three charges and a note between them."""
    return three_charges(tmp_path)


class TestFailingDisk:
    """What happens when the disk refuses."""

    @pytest.fixture
    def ledger(self, path: Path) -> Iterator[Ledger]:
        """A ledger open for writing."""
        with Ledger.open(path=path, plan=PLAN) as ledger:
            yield ledger

    @pytest.mark.parametrize("failing", ["write", "fsync"])
    def test_a_full_disk_charges_nothing(
        self, ledger: Ledger, failing: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When a write or a sync fails the file is as before, and the charge can be made later."""
        before, write = ledger.path.read_bytes(), os.write

        def half_write(descriptor: int, data: bytes) -> int:
            if len(data) < 40:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(descriptor, data[: len(data) // 2])

        def no_sync(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as broken:
            broken.setattr(os, failing, half_write if failing == "write" else no_sync)
            with pytest.raises(LedgerError, match="No space left on device; nothing was charged"):
                ledger.charge(step=4, event=STEP)
        assert ledger.path.read_bytes() == before
        assert ledger.steps_charged == 3
        ledger.charge(step=4, event=STEP)
        assert read_ledger(path=ledger.path).last_step == 4

    def test_where_even_truncating_fails_the_ledger_stops(
        self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A half-written line that cannot be taken back is torn, never built upon."""

        def refuse(*_: object) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        real = os.write
        with monkeypatch.context() as broken:
            broken.setattr(os, "write", lambda fd, data: real(fd, data[:50]) and refuse())
            broken.setattr(os, "ftruncate", refuse)
            with pytest.raises(LedgerError, match="Input/output error"):
                ledger.charge(step=4, event=STEP)
        with pytest.raises(LedgerError, match="changed"):
            ledger.charge(step=4, event=STEP)
        record = read_ledger(path=ledger.path)
        assert record.torn
        assert record.last_step == 3

    def test_an_interrupt_takes_the_charge_back(
        self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Control-C inside a charge leaves no half line, and no charge that was not confirmed."""

        def interrupt(_: int) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", interrupt)
            with pytest.raises(KeyboardInterrupt):
                ledger.charge(step=4, event=STEP)
        ledger.charge(step=4, event=LOUD)
        assert read_ledger(path=ledger.path).releases[-1] == (4, LOUD)


class TestProcesses:
    """What other processes see."""

    def test_one_writer(self, path: Path) -> None:
        """A second writer is refused while the first is open, whoever it is; readers are not."""
        program = (
            "import sys; from dpacc_accounting import *\n"
            f"try: Ledger.open(path=sys.argv[1], plan={PLAN})\n"
            "except LedgerError as refusal: print(refusal)\n"
            "else: print('opened')"
        )
        with ExitStack() as stack:
            stack.enter_context(Ledger.open(path=path, plan=PLAN))
            with pytest.raises(LedgerError, match=r"this very process.*engine\.close\(\)"):
                Ledger.open(path=path, plan=PLAN)
            assert "another process: wait until it ends" in _run(program, path)
            assert read_ledger(path=path).last_step == 3
        assert _run(program, path) == "opened\n"

    def test_a_lost_ledger_frees_its_lock(self, path: Path) -> None:
        """A ledger that nobody holds any longer does not block the next one."""
        Ledger.open(path=path, plan=PLAN)
        Ledger.open(path=path, plan=PLAN).close()

    def test_one_lost_in_a_circle_frees_its_lock_too(self, path: Path) -> None:
        """As an engine's is after a notebook's cell has run again, long before a collection."""
        circle: list[object] = [Ledger.open(path=path, plan=PLAN)]
        circle.append(circle)
        del circle
        Ledger.open(path=path, plan=PLAN).close()

    def test_one_writer_on_windows(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without POSIX's locks a byte behind the file is locked, and no folder is synced."""
        locked: set[tuple[int, int]] = set()

        def locking(descriptor: int, mode: int, size: int) -> None:
            place = (os.fstat(descriptor).st_ino, os.lseek(descriptor, 0, os.SEEK_CUR))
            if place in locked:
                raise PermissionError(errno.EACCES, "Permission denied")
            locked.add(place)

        windows = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
        monkeypatch.setitem(sys.modules, "fcntl", None)
        monkeypatch.setitem(sys.modules, "msvcrt", windows)
        monkeypatch.delattr(os, "O_DIRECTORY")
        with Ledger.open(path=path, plan=PLAN) as ledger:
            with pytest.raises(LedgerError, match="this very process"):
                Ledger.open(path=path, plan=PLAN)
            ledger.charge(step=4, event=STEP)
        ((_, place),) = locked
        assert place > path.stat().st_size
        assert read_ledger(path=path).last_step == 4

    def test_a_macs_drive_is_told_to_keep_its_charges(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """There fsync stops at the drive's own memory; a disk without the command is no error."""
        told: list[int] = []

        def fcntl(descriptor: int, command: int) -> None:
            told.append(command)
            raise OSError(errno.ENOTSUP, "Operation not supported")

        mac = types.SimpleNamespace(flock=lambda *_: None, LOCK_EX=2, LOCK_NB=4)
        mac.fcntl, mac.F_FULLFSYNC = fcntl, 51
        monkeypatch.setitem(sys.modules, "fcntl", mac)
        with Ledger.open(path=path, plan=PLAN) as ledger:
            told.clear()
            ledger.charge(step=4, event=STEP)
        assert told == [51]
        assert read_ledger(path=path).last_step == 4

    def test_a_killed_process_leaves_its_charge(self, path: Path) -> None:
        """After SIGKILL right behind charge(), the charge is on the disk and the lock is free."""
        program = (
            "import os, sys; from dpacc_accounting import *\n"
            f"ledger = Ledger.open(path=sys.argv[1], plan={PLAN})\n"
            "ledger.charge(step=8, event=Gaussian(noise_multiplier=2.0))\n"
            "os.kill(os.getpid(), 9)"
        )
        done = subprocess.run([sys.executable, "-c", program, path], check=False)
        assert done.returncode == -signal.SIGKILL
        assert read_ledger(path=path).releases[-1] == (8, Gaussian(noise_multiplier=2.0))
        with Ledger.open(path=path, plan=PLAN) as ledger:
            assert ledger.last_step == 8


def test_twenty_thousand_releases(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long run's ledger is read and reopened line by line, once each, as one compact event."""
    with monkeypatch.context() as quick:
        quick.setattr(os, "fsync", lambda _: None)
        with Ledger.open(path=path, plan=PLAN) as ledger:
            for step in range(4, 20_001):
                ledger.charge(step=step, event=LOUD)
    parsed = mock.Mock(side_effect=json.loads)
    monkeypatch.setattr(json, "loads", parsed)
    record = read_ledger(path=path)
    assert record.event == Composed(
        events=(Repeated(event=STEP, times=2), Repeated(event=LOUD, times=19_998))
    )
    with Ledger.open(path=path, plan=PLAN) as ledger:
        assert ledger.steps_charged == 20_000
    lines = path.read_bytes().count(b"\n")
    assert lines > 19_990
    assert parsed.call_count <= 2 * lines + 10


def _run(program: str, path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, path], check=True, capture_output=True, text=True
    )
    return done.stdout
