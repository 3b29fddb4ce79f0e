"""Kill a run anywhere, resume it, and it ends where it would have ended."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from dpacc_accounting import read_ledger
from safetensors.torch import load_file

from dpacc.errors import ConfigurationError
from dpacc.step.checkpoint import Checkpoints, JournalEntry
from tests.dpacc.step import resume_program
from tests.dpacc.step.kills_program import KILLS, Kill
from tests.dpacc.step.resume_program import DEATHS, STEPS
from tests.ranks import filled_once, require_success, run_ranks


def final(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "final.safetensors")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The adapters of a run that nobody killed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    resume_program.run(folder)
    return final(folder)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of runs that were killed and resumed, by the name of each kill."""

    def fill(folder: Path) -> None:
        require_success(run_ranks("tests.dpacc.step.kills_program", folder, ranks=1, seconds=600))

    return filled_once(tmp_path_factory, "killed", fill)


@pytest.mark.parametrize("kill", KILLS, ids=[kill.name for kill in KILLS])
def test_a_killed_run_resumes_and_ends_where_it_would_have(
    kill: Kill, killed: Path, uninterrupted: dict[str, torch.Tensor]
) -> None:
    """At every stage of a step and of a checkpoint: at most the charged step in flight is lost."""
    statuses = json.loads((killed / "statuses.json").read_text())[kill.name]
    assert -signal.SIGKILL in statuses["killed"]
    assert statuses["resumed"] == [0] * kill.ranks
    releases = read_ledger(path=killed / kill.name / "ledger.jsonl").releases
    assert [release.step for release in releases] == list(range(STEPS))
    resumed = final(killed / kill.name)
    worst = max(float((resumed[name] - uninterrupted[name]).abs().max()) for name in uninterrupted)
    if (kill.place, kill.call, True) in DEATHS:
        assert worst > 1e-3
    else:
        assert worst <= (1e-5 if kill.ranks > 1 else 0)


def test_what_two_ranks_have_kept_one_can_take_over(killed: Path, tmp_path: Path) -> None:
    """Killed as two ranks, resumed under FSDP2, and taken over by one: the same adapters."""
    (kept,) = (killed / kill.name for kill in KILLS if kill.resumes_under == "fsdp2")
    folder = shutil.copytree(kept, tmp_path / "copy")
    by_two = final(folder)
    (folder / "final.safetensors").unlink()
    resume_program.run(folder)
    by_one = final(folder)
    assert all(torch.equal(by_one[name], by_two[name]) for name in by_two)


@pytest.mark.parametrize("kill", [kill for kill in KILLS if kill.backend.startswith("zero")])
def test_zero_keeps_a_part_of_each_rank(kill: Kill, killed: Path) -> None:
    """Two ranks, each with its part of AdamW's state."""
    kept = sorted(path.name for path in (killed / kill.name / "checkpoints").glob("step-*/rank-*"))
    assert kept == ["rank-00000.safetensors", "rank-00001.safetensors"]


def test_a_checkpoint_that_is_cut_otherwise_is_refused(killed: Path) -> None:
    """ZeRO-2's parts are not ZeRO-3's: every rank is told what differs, and how to resume."""
    for rank in range(2):
        told = (killed / f"refusal-{rank}").read_text()
        assert "cut by ZeRO-2 over 2 ranks, and this launch's cut by ZeRO-3 over 2 ranks" in told


def test_an_optimizers_part_of_other_adapters_is_refused(killed: Path) -> None:
    """What ZeRO-3 gathers from the ranks' parts is not what the adapters are: all are told."""
    for rank in range(2):
        assert (
            "optimizer state is not that of its adapters"
            in (killed / f"mixed-up-{rank}").read_text()
        )


def test_a_finished_run_that_died_before_saving_can_still_be_saved(
    tmp_path: Path, uninterrupted: dict[str, torch.Tensor]
) -> None:
    """All steps charged and released: a resume takes no step and gives the same adapters."""
    resume_program.run(tmp_path)
    (tmp_path / "final.safetensors").unlink()
    resume_program.run(tmp_path)
    resumed = final(tmp_path)
    assert all(torch.equal(resumed[name], uninterrupted[name]) for name in uninterrupted)
    assert len(read_ledger(path=tmp_path / "ledger.jsonl").releases) == STEPS


def test_no_secret_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the secret nor anything derived from its bytes is in any file of the run."""
    from dpacc.randomness.run_secret import RunSecret

    made: list[bytes] = []
    original = RunSecret.__init__

    def spy(self: RunSecret, key: bytes, **named: int | None) -> None:
        made.append(key)
        original(self, key, **named)

    monkeypatch.setattr(RunSecret, "__init__", spy)
    resume_program.run(tmp_path)
    content = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert made
    assert len(content) > 10_000
    for key in made:
        assert key not in content
        assert key.hex().encode() not in content


def test_only_the_owner_may_read_checkpoints(tmp_path: Path) -> None:
    """Folders are 0700 and files 0600."""
    resume_program.run(tmp_path)
    paths = list((tmp_path / "checkpoints").rglob("*"))
    assert len(paths) > 3
    assert all(path.stat().st_mode & 0o077 == 0 for path in paths)


def checkpoints(tmp_path: Path) -> Checkpoints:
    kept = Checkpoints(tmp_path / "checkpoints")
    kept.save(step=2, facts={"run": "a"}, state={"values": [1, (2.5, None)], "x": torch.arange(3)})
    return kept


def test_a_checkpoint_gives_back_what_it_was_given(tmp_path: Path) -> None:
    """Nested lists, tuples, numbers, integer keys and tensors survive, without pickle."""
    kept = Checkpoints(tmp_path / "c")
    state = {"state": {0: {"step": torch.tensor(3.0), "m": torch.ones(2, 2)}}, "groups": [(0.9, 1)]}
    kept.save(step=4, facts={"run": "a"}, state=state)
    found = kept.latest()
    assert (found.step, dict(found.facts)) == (4, {"run": "a"})
    assert found.state["groups"] == [(0.9, 1)]
    assert found.state["state"][0]["step"] == 3
    assert torch.equal(found.state["state"][0]["m"], torch.ones(2, 2))


@pytest.mark.parametrize("file", ["checkpoint.json", "tensors.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_a_damaged_checkpoint_is_refused_in_one_line(
    file: str, damage: str, tmp_path: Path
) -> None:
    """Cut short, a byte flipped, or gone: named, with the remedy."""
    kept = checkpoints(tmp_path)
    path = tmp_path / "checkpoints/step-00000002" / file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[:-5])
    else:
        path.write_bytes(content[:-2] + bytes([content[-2] ^ 0xFF]) + content[-1:])
    with pytest.raises(ConfigurationError, match="is damaged") as error:
        kept.latest()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_damaged_part_is_refused(damage: str, tmp_path: Path) -> None:
    """What a rank kept for itself comes back as it was, or its rank and file are named."""
    kept = Checkpoints(tmp_path / "c")
    kept.make_room_for_parts()
    parts = [kept.keep_part(rank=rank, state={"m": torch.full((2,), rank)}) for rank in range(2)]
    kept.save(step=1, facts={}, state={}, parts=parts)
    found = kept.latest()
    assert kept.part(found, rank=1)["m"].tolist() == [1, 1]
    path = tmp_path / "c/step-00000001/rank-00001.safetensors"
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:-3])
    with pytest.raises(ConfigurationError, match="rank 1's part of the checkpoint"):
        kept.part(found, rank=1)
    assert kept.part(found, rank=0)["m"].tolist() == [0, 0]


def test_parts_on_other_disks_are_no_checkpoint(tmp_path: Path) -> None:
    """A rank that wrote to another machine's folder is named, and nothing appears."""
    kept = Checkpoints(tmp_path / "c")
    kept.make_room_for_parts()
    with pytest.raises(ConfigurationError, match="one shared folder"):
        kept.save(step=1, facts={}, state={}, parts=["0" * 64])
    assert list((tmp_path / "c").glob("step-*")) == []


def test_a_damaged_journal_entry_is_refused(tmp_path: Path) -> None:
    """A flipped byte in a gradient is noticed before it is replayed."""
    kept = checkpoints(tmp_path)
    kept.journal(JournalEntry(step=2, gradient=torch.ones(4), bound=1.0))
    assert [entry.step for entry in kept.journalled(since=2)] == [2]
    path = tmp_path / "checkpoints/journal/00000002"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ConfigurationError, match="is damaged"):
        list(kept.journalled(since=2))


def test_state_that_needs_pickle_is_refused(tmp_path: Path) -> None:
    """An object that JSON and safetensors cannot hold is named."""
    with pytest.raises(ConfigurationError, match="without pickle"):
        Checkpoints(tmp_path).save(step=0, facts={}, state={"odd": object()})


def test_another_runs_checkpoints_are_refused(tmp_path: Path) -> None:
    """A ledger that was replaced no longer matches the checkpoints beside it."""
    resume_program.run(tmp_path / "mine")
    resume_program.run(tmp_path / "other")
    (tmp_path / "mine/ledger.jsonl").write_bytes((tmp_path / "other/ledger.jsonl").read_bytes())
    with pytest.raises(ConfigurationError, match="belong to another run"):
        resume_program.run(tmp_path / "mine")


def test_a_shortened_ledger_is_refused(tmp_path: Path) -> None:
    """More steps released than charged: the ledger was cut, and nothing goes on."""
    resume_program.run(tmp_path)
    ledger = tmp_path / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    assert json.loads(lines[-1])["kind"] == "release"
    ledger.write_bytes(b"".join(lines[:-2]))
    with pytest.raises(ConfigurationError, match="the ledger was cut"):
        resume_program.run(tmp_path)
