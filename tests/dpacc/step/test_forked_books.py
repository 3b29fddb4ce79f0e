"""A run's folder that was copied, shortened, replaced or restored: its books cannot be mixed up."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from dpacc_accounting import epsilon, merge_ledgers, read_ledger

from dpacc import PrivacyEngine
from dpacc.errors import ConfigurationError
from dpacc.losses.per_example import causal_lm_losses
from tests.dpacc.step.engine_runs import LENGTHS, plan_for
from tests.tiny_models import collate, examples, tiny_model

PLAN = plan_for(len(LENGTHS), noise_multiplier=2.0, expected_batch_size=2, steps=8)


def go_on(folder: Path, *, until: int, keep: bool = False) -> None:
    """Begin or resume the run in a folder, up to a step; `keep` a checkpoint there."""
    model = tiny_model("llama")
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    engine = PrivacyEngine(
        Accelerator(cpu=True),
        PLAN,
        ledger=folder / "ledger.jsonl",
        checkpoints=folder / "checkpoints",
    )
    begun = (folder / "ledger.jsonl").exists()
    try:
        engine.prepare(model, optimizer)
        if begun:
            engine.resume()
        for step in engine.steps(examples(LENGTHS), collate):
            for batch in step:
                step.backward(causal_lm_losses(model, batch))
            step.update()
            if step.index + 1 == until:
                break
        if keep:
            engine.checkpoint()
    finally:
        engine.close()


@pytest.fixture
def copies(tmp_path: Path) -> tuple[Path, Path]:
    """A run of two steps, and a copy of its whole folder."""
    go_on(tmp_path / "one", until=2, keep=True)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    return tmp_path / "one", tmp_path / "two"


def test_copies_that_both_went_on_are_both_paid_for(copies: tuple[Path, Path]) -> None:
    """Two machines resume the same folder: two common steps, three and four of their own."""
    one, two = copies
    go_on(one, until=5)
    go_on(two, until=6)
    records = {each.name: read_ledger(path=each / "ledger.jsonl") for each in copies}
    found = merge_ledgers(records=records)
    exact = epsilon(event=PLAN.event(steps=9), delta=PLAN.target_delta)
    assert found.together is not None
    assert found.together.epsilon == pytest.approx(exact.epsilon, rel=1e-9)
    assert "2 common releases" in found.remarks[0]
    for each in copies:
        go_on(each, until=7)


@pytest.mark.parametrize("kept", [True, False], ids=["checkpoint", "journal"])
def test_a_ledger_that_went_on_elsewhere_is_refused(copies: tuple[Path, Path], kept: bool) -> None:
    """Long enough, of the same run and plan, but without the lines of the steps released here."""
    one, two = copies
    go_on(one, until=4, keep=kept)
    go_on(two, until=6)
    shutil.copy(two / "ledger.jsonl", one / "ledger.jsonl")
    with pytest.raises(ConfigurationError, match="a copy or a backup of it went on") as refused:
        go_on(one, until=8)
    assert "\n" not in str(refused.value)


def test_a_shortened_ledger_is_refused(copies: tuple[Path, Path]) -> None:
    """A backup put back in place of the ledger holds fewer steps than were released."""
    one, two = copies
    go_on(one, until=4)
    shutil.copy(two / "ledger.jsonl", one / "ledger.jsonl")
    with pytest.raises(ConfigurationError, match="the ledger was cut or replaced"):
        go_on(one, until=8)
