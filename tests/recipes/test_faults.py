"""What machines do to a run of the recipe: it stops with one line, or goes on as it should."""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import random
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from dpacc_accounting import Ledger, read_ledger
from safetensors.torch import load_file

from dpacc.artifacts import run_folder
from dpacc.step.checkpoint import Checkpoints
from tests.recipes.training import Train, as_arguments, settings, write_texts

STEPS = [0, 1, 2, 3]
SETTINGS: dict[str, object] = {"checkpoint_every": 2, "held_out_data": "null"}
DAC_OVERRIDE = 1
"""The capability by which root writes where the mode forbids it."""


@contextmanager
def no_room() -> Iterator[None]:
    """The kernel refuses every write, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def modes_obeyed() -> Iterator[None]:
    """Modes bind this thread too, should it be root's."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    before, lowered = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, before) == 0
    lowered[:] = before[:]
    lowered[0] &= ~(1 << DAC_OVERRIDE)
    assert libc.capset(header, lowered) == 0
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0


def refusal(action: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which `action` ends, and exit code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit, match=r"^2$"):
        action()
    gc.collect()  # an engine that was stopped lets go of its ledger
    said = [line for line in capsys.readouterr().err.splitlines() if "step " not in line]
    errors = [line for line in said if line.startswith("error: ")]
    assert len(errors) == 1
    assert said[-1] == errors[0]
    return errors[0]


def charged(folder: Path) -> list[int]:
    return [release.step for release in read_ledger(path=folder / "ledger.jsonl").releases]


def require_whole(folder: Path) -> None:
    """All steps are charged, once each, and the adapter and its proof are there."""
    assert charged(folder) == STEPS
    assert load_file(folder / "adapter_model.safetensors")
    assert (folder / "privacy.json").exists()
    assert not list(folder.glob(".*"))


@pytest.fixture(scope="module")
def interrupted(
    recipe: ModuleType,
    material: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of a run that was interrupted when its third step was journalled."""
    runs = tmp_path_factory.mktemp("interrupted")
    calls, journal = itertools.count(), Checkpoints.journal

    def interrupt(self: Checkpoints, entry: Any) -> None:
        journal(self, entry)
        if next(calls) == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Checkpoints, "journal", interrupt)
        with pytest.raises(KeyboardInterrupt):
            recipe.main(as_arguments(settings(material, runs) | SETTINGS))
    gc.collect()
    assert charged(runs / "tiny") == [0, 1, 2]
    return runs / "tiny"


@pytest.fixture
def stopped(interrupted: Path, tmp_path: Path) -> Path:
    """A copy of it, where `train` looks for a run to resume."""
    return Path(shutil.copytree(interrupted, tmp_path / "runs/tiny"))


def resume(train: Train, **changes: object) -> None:
    train(**SETTINGS | {"resume": "tiny"} | changes)


PLACES: dict[str, tuple[Any, str, int, list[int]]] = {
    "the ledger is opened": (Ledger, "_take_over", 0, []),
    "a step is charged": (Ledger, "charge", 2, [0, 1]),
    "a step is journalled": (Checkpoints, "journal", 2, [0, 1, 2]),
    "a checkpoint is written": (Checkpoints, "save", 1, [0, 1]),
    "the adapter is saved": (run_folder, "save_adapter", 0, STEPS),
    "the proof is saved": (run_folder, "write_file", 0, STEPS),
}
"""What is being written, which call of it meets a full disk, and the steps charged by then."""


@pytest.mark.parametrize("place", list(PLACES))
def test_a_full_disk_stops_the_run_in_one_line_and_a_resume_goes_on(
    place: str,
    train: Train,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Wherever it happens the books are true; with room again the run is finished."""
    owner, name, call, steps = PLACES[place]
    write, calls = getattr(owner, name), itertools.count()

    def without_room(*arguments: Any, **named: Any) -> Any:
        if next(calls) != call:
            return write(*arguments, **named)
        with no_room():
            return write(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, without_room)
        line = refusal(lambda: train(**SETTINGS), capsys)
    assert "free the disk" in line
    folder = tmp_path / "runs/tiny"
    if steps:
        assert charged(folder) == steps
    resume(train)
    require_whole(folder)


def test_a_read_only_folder_is_told_in_one_line(
    train: Train,
    stopped: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A new run makes nothing there; a resumed one charges nothing, and goes on once it may."""
    for folder in (stopped, stopped.parent):
        folder.chmod(0o500)
    with modes_obeyed():
        new = refusal(lambda: train(**SETTINGS | {"name": "other"}), capsys)
        (stopped / "ledger.jsonl").chmod(0o400)
        old = refusal(lambda: resume(train), capsys)
    assert "Permission denied" in new
    assert "--output_dir" in new
    assert "Permission denied" in old
    assert [path.name for path in stopped.parent.iterdir()] == ["tiny"]
    assert charged(stopped) == [0, 1, 2]
    for path in (stopped.parent, stopped, stopped / "ledger.jsonl"):
        path.chmod(0o700)
    resume(train)
    require_whole(stopped)


def test_a_torn_ledger_goes_on_behind_its_last_whole_line(train: Train, stopped: Path) -> None:
    """Half a line at its end was never confirmed, so nothing was released for it."""
    with (stopped / "ledger.jsonl").open("ab") as file:
        file.write(b'{"event":{"ev')
    resume(train)
    require_whole(stopped)


DAMAGE: dict[str, tuple[str, str]] = {
    "ledger": ("ledger.jsonl", "ledger"),
    "checkpoint": ("checkpoints/step-00000002/checkpoint.json", "checkpoint"),
    "tensors": ("checkpoints/step-00000002/tensors.safetensors", "checkpoint"),
    "journal": ("checkpoints/journal/00000002", "journal entry"),
}


@pytest.mark.parametrize("what", list(DAMAGE))
def test_a_flipped_bit_is_found_wherever_it_is(
    what: str,
    train: Train,
    stopped: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In any of what a resume rests on: one line names the file; restored, the run goes on."""
    file, culprit = DAMAGE[what]
    path = stopped / file
    content = path.read_bytes()
    for at in random.Random(what).sample(range(len(content)), 3):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        line = refusal(lambda: resume(train), capsys)
        assert culprit in line
        assert str(path.relative_to(stopped)).partition("/")[0] in line
    path.write_bytes(content)
    resume(train)
    require_whole(stopped)


def test_lost_checkpoints_are_told_in_one_line(
    train: Train,
    stopped: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Charged steps whose effects are gone are not taken for a run's beginning."""
    shutil.rmtree(stopped / "checkpoints")
    assert "no checkpoint" in refusal(lambda: resume(train), capsys)
    assert charged(stopped) == [0, 1, 2]


def test_a_broken_configuration_is_told_in_one_line(
    train: Train,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Torn in the middle, or with a byte that is no text: named, and nothing is written."""
    path = tmp_path / "run.yaml"
    for content in (b"epsilon: 8\nlora_target_modules: [q_proj, v_", b"epsilon: 8\nname: \xff\n"):
        path.write_bytes(content)
        assert "run.yaml" in refusal(lambda: train(config=path), capsys)
    assert not (tmp_path / "runs").exists()


def test_jumps_of_the_clock_change_nothing(
    train: Train,
    stopped: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A year forth and back at every look, and files from the future: the run is finished."""
    jumps, now = itertools.cycle([-3.2e7, 3.2e7]), time.time
    monkeypatch.setattr(time, "time", lambda: now() + next(jumps))
    for path in stopped.rglob("*"):
        os.utime(path, (next(jumps) + now(),) * 2)
    resume(train)
    require_whole(stopped)


def test_a_second_run_in_the_same_folder_is_refused(
    train: Train,
    stopped: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """While somebody holds the ledger nobody else goes on with the run; afterwards one may."""
    plan = read_ledger(path=stopped / "ledger.jsonl").plan
    with Ledger.open(path=stopped / "ledger.jsonl", plan=plan):
        assert "very process" in refusal(lambda: resume(train), capsys)
    assert charged(stopped) == [0, 1, 2]
    resume(train)
    require_whole(stopped)


def test_a_ledger_that_disappears_stops_the_run(
    train: Train,
    stopped: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Moved away while the run goes on: the next step is not taken; put back, the run goes on."""
    ledger, charge = stopped / "ledger.jsonl", Ledger.charge

    def vanishing(self: Ledger, **step: Any) -> None:
        (stopped / "copy").write_bytes(ledger.read_bytes())
        ledger.unlink()
        charge(self, **step)

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "charge", vanishing)
        assert "deleted" in refusal(lambda: resume(train), capsys)
    (stopped / "copy").rename(ledger)
    assert charged(stopped) == [0, 1, 2]
    resume(train)
    require_whole(stopped)


def test_data_of_another_size_is_refused(
    train: Train,
    stopped: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One record more changes the sampling probability, so the ledger is another plan's."""
    write_texts(tmp_path / "grown.jsonl", count=61)
    line = refusal(lambda: resume(train, train_data=tmp_path / "grown.jsonl"), capsys)
    assert "dataset_size 60 -> 61" in line
    assert charged(stopped) == [0, 1, 2]


def test_other_data_of_the_same_size_is_charged_like_the_old(
    train: Train,
    stopped: Path,
    material: Path,
    tmp_path: Path,
) -> None:
    """A replay needs no data, and every record, gone or new, is within what the ledger holds."""
    lines = (material / "private.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "edited.jsonl").write_text("".join(lines[30:] + lines[:29] + lines[:1]))
    resume(train, train_data=tmp_path / "edited.jsonl")
    require_whole(stopped)
