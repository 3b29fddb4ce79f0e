"""The ledger keeps every charge through any ending, and refuses every tampering but lost ends."""

import json
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from dpacc_accounting import (
    Composed,
    Ledger,
    LedgerError,
    Repeated,
    read_ledger,
)
from dpacc_accounting.events.documents import event_to_json
from dpacc_accounting.ledger.record import seal

from tests.accounting.ledger.ledgers import LOUD, PLAN, STEP, three_charges


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger of three charges and a note between them."""
    return three_charges(tmp_path)


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def _refusal(path: Path) -> str:
    with pytest.raises(LedgerError) as refusal:
        read_ledger(path=path)
    message = str(refusal.value)
    assert "\n" not in message
    return message


class TestRecord:
    """What goes in comes out."""

    def test_everything_written_is_read_back(self, path: Path) -> None:
        """Plan, steps, events and notes come back as they went in."""
        record = read_ledger(path=path)
        assert record.plan == PLAN
        assert record.releases == ((1, STEP), (2, STEP), (3, LOUD))
        assert record.notes == (("checkpoint", "saved, then resumed"),)
        assert not record.torn
        assert record.last_step == 3

    def test_equal_neighbours_fold(self, path: Path) -> None:
        """The event is compact, and has as many releases of each kind as were charged."""
        expected = Composed(events=(Repeated(event=STEP, times=2), LOUD))
        assert read_ledger(path=path).event == expected

    def test_no_release_is_an_empty_composition(self, tmp_path: Path) -> None:
        """A ledger that was opened and never charged spends nothing."""
        Ledger.open(path=tmp_path / "new.jsonl", plan=PLAN).close()
        record = read_ledger(path=tmp_path / "new.jsonl")
        assert record.event == Composed(events=())
        assert record.last_step is None

    def test_every_line_ends_with_its_hash(self, path: Path) -> None:
        """Anyone can check the chain: SHA-256 of the last hash and the line without its own."""
        previous = "0" * 64
        for line in _lines(path):
            document = json.loads(line)
            digest = document.pop("hash")
            assert seal(document, previous=previous) == (line, digest)
            previous = digest
        assert read_ledger(path=path).head == previous

    def test_two_runs_of_one_plan_differ(self, path: Path, tmp_path: Path) -> None:
        """A run's random name tells its ledger from another run's with the same plan."""
        Ledger.open(path=tmp_path / "other.jsonl", plan=PLAN).close()
        assert read_ledger(path=tmp_path / "other.jsonl").run != read_ledger(path=path).run

    def test_missing_file(self, tmp_path: Path) -> None:
        """Reading creates nothing and names the file that is missing."""
        assert "nowhere.jsonl: No such file" in _refusal(tmp_path / "nowhere.jsonl")
        assert not list(tmp_path.iterdir())


class TestTorn:
    """A crash costs at most the line that was being written."""

    def test_torn_at_every_byte_of_the_last_line(self, path: Path) -> None:
        """A last line cut anywhere is left out, and a writer goes on where the whole lines end."""
        *whole, last = _lines(path)
        for kept in range(1, len(last) - 1):
            path.write_bytes(b"".join(whole) + last[:kept])
            torn = read_ledger(path=path)
            assert torn.torn
            assert torn.last_step == 2
            with Ledger.open(path=path, plan=PLAN) as ledger:
                assert ledger.steps_charged == 2
                ledger.charge(step=3, event=LOUD)
            assert path.read_bytes().startswith(b"".join(whole))
            assert read_ledger(path=path).releases == ((1, STEP), (2, STEP), (3, LOUD))

    def test_a_whole_line_without_its_newline_counts(self, path: Path) -> None:
        """An editor that drops the final newline does not drop the last charge."""
        data = path.read_bytes()
        path.write_bytes(data[:-1])
        record = read_ledger(path=path)
        assert record.last_step == 3
        assert not record.torn
        Ledger.open(path=path, plan=PLAN).close()
        assert path.read_bytes() == data

    def test_torn_at_every_byte_of_the_opening(self, path: Path) -> None:
        """A crash while a ledger was being opened leaves nothing that blocks opening it again."""
        first = _lines(path)[0]
        for kept in range(len(first) - 1):
            path.write_bytes(first[:kept])
            assert "line 1" in _refusal(path)
            with Ledger.open(path=path, plan=PLAN) as ledger:
                ledger.charge(step=1, event=STEP)
            assert read_ledger(path=path).last_step == 1

    def test_zeros_after_a_power_cut(self, path: Path) -> None:
        """Zeros left by a file system that extends a file before its data arrive count as torn."""
        path.write_bytes(path.read_bytes() + bytes(100))
        record = read_ledger(path=path)
        assert record.torn
        assert record.last_step == 3


class TestDamage:
    """Everything but a torn end is refused, by line number."""

    def test_any_changed_byte_is_refused(self, path: Path) -> None:
        """Flipping one bit of any byte but the final newline names the line it stands in."""
        data = path.read_bytes()
        for at in range(len(data) - 1):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            number = data.count(b"\n", 0, at) + 1
            assert f"line {number}:" in _refusal(path)

    def test_a_missing_line_is_refused(self, path: Path) -> None:
        """Removing any line but the last is found where the next one does not follow."""
        lines = _lines(path)
        for gone in range(len(lines) - 1):
            path.write_bytes(b"".join(lines[:gone] + lines[gone + 1 :]))
            assert f"line {gone + 1}:" in _refusal(path)

    def test_swapped_lines_are_refused(self, path: Path) -> None:
        """Swapping any two neighbours is found at the first of them."""
        lines = _lines(path)
        for at in range(len(lines) - 1):
            swapped = [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]
            path.write_bytes(b"".join(swapped))
            assert f"line {at + 1}:" in _refusal(path)

    def test_a_repeated_line_is_refused(self, path: Path) -> None:
        """Copying the last line does not extend the chain."""
        lines = _lines(path)
        path.write_bytes(b"".join([*lines, lines[-1]]))
        assert f"line {len(lines) + 1}:" in _refusal(path)

    @pytest.mark.parametrize(
        ("body", "complaint"),
        [
            ({"kind": "release", "step": 3, "event": {"event": "gaussian"}}, "step 3 comes after"),
            ({"kind": "release", "step": 4, "event": {"event": "magic"}}, "unknown event kind"),
            ({"kind": "release", "step": "4", "event": {}}, "not an opening, a release or a note"),
            ({"kind": "opened", "version": 1, "run": "x", "plan": {}}, "not an opening, a release"),
            ({"kind": "opened", "version": 3}, "upgrade"),
            ({"kind": "refund", "step": 3}, "not an opening, a release or a note"),
        ],
    )
    def test_well_chained_nonsense_is_refused(
        self, path: Path, body: dict[str, object], complaint: str
    ) -> None:
        """A line can follow its chain and still mean nothing."""
        line, _ = seal(body, previous=read_ledger(path=path).head)
        path.write_bytes(path.read_bytes() + line)
        assert complaint in _refusal(path)
        assert "line 6:" in _refusal(path)

    def test_another_file_is_left_alone(self, tmp_path: Path) -> None:
        """Opening a ledger over a file of another kind refuses and does not touch it."""
        other = tmp_path / "model.safetensors"
        for data in (b"\x00weights", b'{"kind":"other"', b"text\n", bytes(64)):
            other.write_bytes(data)
            with pytest.raises(LedgerError, match="line 1"):
                Ledger.open(path=other, plan=PLAN)
            assert other.read_bytes() == data


class TestWriting:
    """What the writer promises."""

    def test_private_file_in_a_new_folder(self, tmp_path: Path) -> None:
        """The folder is made, and only the owner may read what was trained when."""
        path = tmp_path / "runs" / "first" / "ledger.jsonl"
        Ledger.open(path=str(path), plan=PLAN).close()
        assert path.stat().st_mode & 0o777 == 0o600

    def test_each_line_is_synced_before_charge_returns(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """fsync sees every line complete, and the folder of a new file is synced too."""
        path, synced, sizes = tmp_path / "ledger.jsonl", [], []
        real = os.fsync

        def spy(descriptor: int) -> None:
            synced.append(os.fstat(descriptor).st_ino)
            sizes.append(path.stat().st_size)
            real(descriptor)

        monkeypatch.setattr(os, "fsync", spy)
        with Ledger.open(path=path, plan=PLAN) as ledger:
            assert synced == [path.stat().st_ino, tmp_path.stat().st_ino]
            ledger.charge(step=1, event=STEP)
            assert synced[2:] == [path.stat().st_ino]
            assert sizes[-1] == path.stat().st_size == len(b"".join(_lines(path)))

    def test_steps_only_move_forward(self, path: Path) -> None:
        """No step is charged twice, in one process or after reopening; gaps are allowed."""
        with Ledger.open(path=path, plan=PLAN) as ledger:
            before = path.read_bytes()
            for step in (3, 1, -1):
                with pytest.raises(LedgerError, match=f"step={step} is before .*step=4"):
                    ledger.charge(step=step, event=STEP)
            assert path.read_bytes() == before
            ledger.charge(step=7, event=STEP)
            assert (ledger.steps_charged, ledger.last_step) == (4, 7)
        assert read_ledger(path=path).last_step == 7

    def test_the_first_step_may_be_zero_but_not_negative(self, tmp_path: Path) -> None:
        """What the writer accepts, the reader accepts."""
        with Ledger.open(path=tmp_path / "ledger.jsonl", plan=PLAN) as ledger:
            assert ledger.last_step is None
            with pytest.raises(LedgerError, match="step=-1 is before the next free step=0"):
                ledger.charge(step=-1, event=STEP)
            ledger.charge(step=0, event=STEP)
        assert read_ledger(path=tmp_path / "ledger.jsonl").last_step == 0

    def test_reopening_goes_on_with_the_books(self, path: Path) -> None:
        """Steps of earlier processes stay charged, and the chain continues."""
        with Ledger.open(path=path, plan=dict(PLAN)) as ledger:
            assert ledger.steps_charged == 3
            ledger.charge(step=4, event=STEP)
        assert [step for step, _ in read_ledger(path=path).releases] == [1, 2, 3, 4]

    def test_going_on_writes_a_session_of_its_own(self, path: Path, tmp_path: Path) -> None:
        """Two copies that both go on with the same charges differ from there, and only there."""
        copy = tmp_path / "copy.jsonl"
        copy.write_bytes(path.read_bytes())
        Ledger.open(path=copy, plan=PLAN).close()
        assert copy.read_bytes() == path.read_bytes()
        for each in (path, copy):
            with Ledger.open(path=each, plan=PLAN) as ledger:
                ledger.charge(step=4, event=STEP)
                ledger.charge(step=5, event=STEP)
        one, other = read_ledger(path=path), read_ledger(path=copy)
        assert one.releases == other.releases
        assert (len(one.sessions), len(other.sessions)) == (1, 1)
        shared = set(one.release_hashes) & set(other.release_hashes)
        assert len(shared) == 3
        assert len(one.chain) == 5 + 1 + 2
        assert one.chain[-1] == one.head

    def test_ledgers_of_version_1_are_read_and_gone_on_with(self, tmp_path: Path) -> None:
        """A ledger without session lines keeps its charges, and does not tell copies apart."""
        path = tmp_path / "old.jsonl"
        opening, head = seal(
            {"kind": "opened", "plan": PLAN, "run": "a" * 32, "version": 1}, previous="0" * 64
        )
        event = event_to_json(event=STEP)
        line, _ = seal({"event": event, "kind": "release", "step": 1}, previous=head)
        path.write_bytes(opening + line)
        assert not read_ledger(path=path).tells_copies_apart
        with Ledger.open(path=path, plan=PLAN) as ledger:
            ledger.charge(step=2, event=STEP)
        record = read_ledger(path=path)
        assert record.releases == ((1, STEP), (2, STEP))
        assert len(record.sessions) == 1
        assert not record.tells_copies_apart

    def test_what_was_saved_is_in_the_chain(self, path: Path) -> None:
        """Each save leaves the checksums of its files, once; notes are known to the writer too."""
        with Ledger.open(path=path, plan=PLAN) as ledger:
            assert [note.subject for note in ledger.notes] == ["checkpoint"]
            for files in ({"a": "1"}, {"a": "1"}, {"a": "2"}):
                ledger.saved(files=files)
        with Ledger.open(path=path, plan=PLAN) as ledger:
            ledger.saved(files={"a": "2"})
        assert read_ledger(path=path).saved == ({"a": "1"}, {"a": "2"})

    def test_a_plan_that_nobody_can_price_is_told_at_once(self, tmp_path: Path) -> None:
        """The first line cannot be changed later, so what it lacks is named when it is written."""
        poor = {"steps": 3, "unit": "example"}
        with pytest.warns(UserWarning, match=r"lacks adjacency, clipping, .* add them now"):
            Ledger.open(path=tmp_path / "ledger.jsonl", plan=poor).close()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Ledger.open(path=tmp_path / "ledger.jsonl", plan=poor).close()
            Ledger.open(path=tmp_path / "other.jsonl", plan=PLAN).close()

    def test_another_plan_is_refused(self, path: Path) -> None:
        """The refusal names each setting that differs, with both values, and writes nothing."""
        before = path.read_bytes()
        with pytest.raises(
            LedgerError,
            match=re.escape(
                "(epochs absent -> 2, noise_multiplier 0.8 -> 0.5, unit example -> absent)"
            ),
        ):
            Ledger.open(
                path=path,
                plan={k: v for k, v in PLAN.items() if k != "unit"}
                | {"noise_multiplier": 0.5, "epochs": 2},
            )
        assert path.read_bytes() == before
        Ledger.open(path=path, plan=PLAN).close()

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, Path("x")])
    def test_a_plan_that_json_cannot_hold(self, tmp_path: Path, value: object) -> None:
        """Such a plan is refused before any file is made."""
        with pytest.raises(LedgerError, match="cannot hold this plan"):
            Ledger.open(path=tmp_path / "ledger.jsonl", plan={"delta": value})
        assert not list(tmp_path.iterdir())

    def test_closed_means_closed(self, path: Path) -> None:
        """A closed ledger charges nothing, and closing twice is harmless."""
        ledger = Ledger.open(path=path, plan=PLAN)
        ledger.close()
        ledger.close()
        with pytest.raises(LedgerError, match="is closed"):
            ledger.charge(step=9, event=STEP)

    @pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"{}\n")])
    def test_a_file_changed_underneath_is_refused(
        self, path: Path, spoil: Callable[[Path], object]
    ) -> None:
        """A charge to a deleted or overwritten file would be lost, so it is not made."""
        with Ledger.open(path=path, plan=PLAN) as ledger:
            spoil(path)
            with pytest.raises(LedgerError, match="deleted, replaced or changed"):
                ledger.charge(step=4, event=STEP)

    def test_a_folder_or_a_read_only_place(self, tmp_path: Path) -> None:
        """What the operating system refuses is one line, with its reason."""
        with pytest.raises(LedgerError, match=r"cannot open ledger .*Is a directory"):
            Ledger.open(path=tmp_path, plan=PLAN)
        (tmp_path / "file").touch()
        with pytest.raises(LedgerError, match="cannot open ledger"):
            Ledger.open(path=tmp_path / "file" / "ledger.jsonl", plan=PLAN)
