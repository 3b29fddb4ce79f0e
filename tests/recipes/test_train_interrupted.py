"""Runs of the training recipe that end too early: what they leave, and how they go on."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest
import torch
from dpacc_accounting import epsilon, read_ledger
from safetensors.torch import load_file

from dpacc.doctor.run_folder import ledger_findings
from dpacc.errors import PrivacyError
from dpacc.ranks.preemption import RETURN_LATER
from tests.ranks import require_success, run_ranks
from tests.recipes.training import Train, lines


def test_a_run_that_is_refused_before_its_first_charge_leaves_no_folder(
    train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The probe's refusal comes after the ledger was opened, and takes it away again."""
    monkeypatch.setattr("dpacc.step.engine.CouplingProbe", RefusingProbe)
    with pytest.raises(SystemExit, match="2"):
        train()
    assert "coupled, said the probe" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    monkeypatch.undo()
    train()
    monkeypatch.setattr("dpacc.step.engine.CouplingProbe", RefusingProbe)
    with pytest.raises(SystemExit, match="2"):
        train()
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"tiny"}


class RefusingProbe:
    """A probe that refuses every model."""

    @classmethod
    def before(cls, *_: object, **__: object) -> None:
        raise PrivacyError("coupled, said the probe")


def test_a_run_that_was_charged_keeps_its_ledger(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error at the first update, after the charge: what was spent stays on the books."""

    def failing(*_: object) -> None:
        raise PrivacyError("no update")

    monkeypatch.setattr("dpacc.ranks.backends.replicated.Replicated.update", failing)
    with pytest.raises(SystemExit, match="2"):
        train()
    assert len(read_ledger(path=tmp_path / "runs/tiny/ledger.jsonl").releases) == 1


def test_a_killed_run_is_resumed(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dying at the third update and resuming takes the steps that are left, and no more."""
    from dpacc.ranks.backends.replicated import Replicated

    update, updates = Replicated.update, []

    def dying(*arguments: object) -> None:
        updates.append(arguments)
        if len(updates) == 3:
            raise KeyboardInterrupt
        update(*arguments)

    monkeypatch.setattr(Replicated, "update", dying)
    with pytest.raises(KeyboardInterrupt):
        train(checkpoint_every=2)
    monkeypatch.setattr(Replicated, "update", update)
    gc.collect()  # the interrupted engine lets go of its ledger
    folder = train(checkpoint_every=2, resume="tiny") / "tiny"
    record = read_ledger(path=folder / "ledger.jsonl")
    assert [release.step for release in record.releases] == [0, 1, 2, 3]
    assert (folder / "adapter_model.safetensors").exists()
    assert [row["step"] for row in lines(folder / "metrics.jsonl")] == [0, 1, 2, 3, 4]
    assert "| before training (step 0)" in (folder / "README.md").read_text()


def test_a_killed_run_of_correlated_noise_goes_on_at_the_next_cycle(
    train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dying at the third of eight updates, in a cycle of four: on at the fifth, within its ε."""
    from dpacc.ranks.backends.replicated import Replicated

    update, updates = Replicated.update, []

    def dying(*arguments: object) -> None:
        updates.append(arguments)
        if len(updates) == 3:
            raise KeyboardInterrupt
        update(*arguments)

    settings = {"correlation": "banded", "bands": 4, "steps": 8, "checkpoint_every": 2}
    monkeypatch.setattr(Replicated, "update", dying)
    with pytest.raises(KeyboardInterrupt):
        train(**settings)
    monkeypatch.setattr(Replicated, "update", update)
    gc.collect()  # the interrupted engine lets go of its ledger
    folder = train(**settings, resume="tiny") / "tiny"
    record = read_ledger(path=folder / "ledger.jsonl")
    assert [release.step for release in record.releases] == [0, 1, 2, 4, 5, 6, 7]
    assert all(finding.healthy for finding in ledger_findings(folder=folder))
    spent = epsilon(event=record.event, delta=record.plan["target_delta"]).epsilon
    assert 7.9 < spent <= 8
    assert "correlated over 4 steps" in capsys.readouterr().out
    assert "cyclic Poisson sampling" in (folder / "README.md").read_text()


def test_a_killed_run_of_allocated_examples_goes_on_at_the_next_epoch(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dying at the second of four steps of an epoch: on at the next one, within its ε."""
    from dpacc.ranks.backends.replicated import Replicated

    update, updates = Replicated.update, []

    def dying(*arguments: object) -> None:
        updates.append(arguments)
        if len(updates) == 2:
            raise KeyboardInterrupt
        update(*arguments)

    settings = {"sampling": "allocated", "checkpoint_every": 1}
    settings |= {"expected_batch_size": 16, "steps": 8}
    monkeypatch.setattr(Replicated, "update", dying)
    with pytest.raises(KeyboardInterrupt):
        train(**settings)
    monkeypatch.setattr(Replicated, "update", update)
    gc.collect()  # the interrupted engine lets go of its ledger
    folder = train(**settings, resume="tiny") / "tiny"
    record = read_ledger(path=folder / "ledger.jsonl")
    size = record.plan["dataset_size"]
    epoch = -(-size // 16)
    assert epoch == 4
    assert [release.step for release in record.releases] == [0, 1, 4, 5, 6, 7]
    assert all(finding.healthy for finding in ledger_findings(folder=folder))
    spent = epsilon(event=record.event, delta=record.plan["target_delta"]).epsilon
    assert 7.9 < spent <= 8
    card = (folder / "README.md").read_text()
    assert "An epoch has 4 steps" in card
    assert "in exactly one of them" in card


def test_a_killed_run_of_changing_ranks_ends_where_it_would_have(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replayed gradients meet whole adapters, and later steps draw the ranks they would have."""
    from dpacc.ranks.backends.replicated import Replicated

    update = Replicated.update
    seen: list[torch.Tensor] = []
    dies = [True]

    def watched(
        self: Replicated, parameters: list[torch.nn.Parameter], gradient: torch.Tensor
    ) -> None:
        if dies and len(seen) == 3:
            dies.clear()
            raise KeyboardInterrupt
        update(self, parameters, gradient)
        seen.append(gradient.clone())

    settings = {"lora_method": "dylora", "lora_rank": 4, "checkpoint_every": 2, "steps": 5}
    monkeypatch.setattr(Replicated, "update", watched)
    with pytest.raises(KeyboardInterrupt):
        train(**settings)
    gc.collect()  # the interrupted engine lets go of its ledger
    folder = train(**settings, resume="tiny") / "tiny"
    assert len(seen) == 6
    assert torch.equal(seen[3], seen[2])
    silent = [int((gradient == 0).sum()) for gradient in seen]
    assert len({*silent}) > 1
    saved = load_file(folder / "adapter_model.safetensors")
    assert all(bool(each.isfinite().all()) and bool(each.any()) for each in saved.values())


def test_a_run_within_a_subspace_resumes_within_it(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in its second phase: what it goes on with lies in two directions all the same."""
    from dpacc.ranks.backends.replicated import Replicated

    update = Replicated.update
    seen: list[torch.Tensor] = []
    dies = [True]

    def watched(
        self: Replicated, parameters: list[torch.nn.Parameter], gradient: torch.Tensor
    ) -> None:
        if dies and len(seen) == 4:
            dies.clear()
            raise KeyboardInterrupt
        update(self, parameters, gradient)
        seen.append(gradient.clone())

    within = {"lora_method": "subspace", "subspace_rank": 2, "subspace_steps": 0.5}
    settings = {**within, "checkpoint_every": 2, "steps": 6}
    monkeypatch.setattr(Replicated, "update", watched)
    with pytest.raises(KeyboardInterrupt):
        train(**settings)
    gc.collect()
    folder = train(**settings, resume="tiny") / "tiny"
    sizes = torch.linalg.svdvals(torch.stack(seen[3:]).double())
    assert sizes[2] < 1e-5 * sizes[0]
    assert torch.linalg.svdvals(torch.stack(seen[:3]).double())[2] > 1e-2 * sizes[0]
    card = (folder / "README.md").read_text()
    assert "in 2 phases that were fixed beforehand" in card


def test_a_killed_run_averages_what_an_uninterrupted_one_would(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dying amid the averaged steps, the third and fourth, changes nothing in their mean."""
    from dpacc.ranks.backends.replicated import Replicated

    update = Replicated.update
    seen: list[list[torch.Tensor]] = []
    dies = [True]

    def watched(
        self: Replicated, parameters: list[torch.nn.Parameter], gradient: torch.Tensor
    ) -> None:
        if dies and len(seen) == 3:
            dies.clear()
            raise KeyboardInterrupt
        update(self, parameters, gradient)
        seen.append([p.detach().clone() for p in parameters])

    monkeypatch.setattr(Replicated, "update", watched)
    with pytest.raises(KeyboardInterrupt):
        train(average_iterates=0.5, checkpoint_every=3)
    gc.collect()  # the interrupted engine lets go of its ledger
    folder = train(average_iterates=0.5, checkpoint_every=3, resume="tiny") / "tiny"
    assert len(seen) == 4
    means = [(third + fourth) / 2 for third, fourth in zip(seen[2], seen[3], strict=True)]
    saved = load_file(folder / "adapter_model.safetensors").values()
    for mean in means:
        assert any(t.shape == mean.shape and torch.allclose(t, mean) for t in saved)


def test_auto_takes_one_run_to_its_end_however_often_it_is_started(
    train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Begun, told to stop by a signal after its third step, gone on with, and then left alone."""
    from dpacc.ranks.backends.replicated import Replicated

    update, updates = Replicated.update, []

    def told_amid_the_third(*arguments: object) -> None:
        updates.append(arguments)
        if len(updates) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        update(*arguments)

    monkeypatch.setattr(Replicated, "update", told_amid_the_third)
    with pytest.raises(SystemExit) as stopped:
        train(checkpoint_every=100, resume="auto")
    assert stopped.value.code == RETURN_LATER
    ledger = tmp_path / "runs/tiny/ledger.jsonl"
    assert [release.step for release in read_ledger(path=ledger).releases] == [0, 1, 2]
    assert "told to stop after step 3" in capsys.readouterr().err
    gc.collect()  # the interrupted engine lets go of its ledger
    train(checkpoint_every=100, resume="auto")
    assert len(updates) == 4  # the checkpoint at the signal holds what three updates made
    assert [release.step for release in read_ledger(path=ledger).releases] == [0, 1, 2, 3]
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    train(checkpoint_every=100, resume="auto")
    assert "is finished" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == written
    assert len(updates) == 4


def test_a_run_that_keeps_no_checkpoints_dies_of_a_signal_as_usual(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what can go on is stopped gently; handlers are as before, during and after."""
    from dpacc.ranks.backends.replicated import Replicated

    update, handlers = Replicated.update, []

    def watched(*arguments: object) -> None:
        handlers.append(signal.getsignal(signal.SIGTERM))
        update(*arguments)

    monkeypatch.setattr(Replicated, "update", watched)
    before = signal.getsignal(signal.SIGTERM)
    train(steps=1)
    assert handlers == [before]
    train(steps=1, checkpoint_every=1, name="kept")
    assert handlers[1] != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_ranks_stop_after_the_same_step_though_one_alone_is_told(
    material: Path, tmp_path: Path
) -> None:
    """SIGTERM comes to the second of two; both end to be started again, and go on as one run."""
    done = run_ranks("tests.recipes.preempted_ranks_program", material, tmp_path / "runs", ranks=1)
    require_success(done)
    codes = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert codes == [f"[{RETURN_LATER}, {RETURN_LATER}]", "[0, 0]"]
    record = read_ledger(path=tmp_path / "runs/tiny/ledger.jsonl")
    assert [release.step for release in record.releases] == [0, 1, 2, 3, 4]
    assert len(record.sessions) == 2
    assert (tmp_path / "runs/tiny/adapter_model.safetensors").exists()
