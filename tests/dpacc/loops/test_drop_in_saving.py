"""What a plain loop saves carries its privacy, and can be the average of its last adapters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from dpacc_accounting import read_ledger
from peft import PeftModel

from dpacc.errors import ConfigurationError
from tests.dpacc.loops.test_drop_in import PlainRun, loader_of, one_pass
from tests.dpacc.step.engine_runs import LENGTHS
from tests.dpacc.step.test_averaging import averaged_by_an_open_loop, trained
from tests.tiny_models import examples, tiny_base, tiny_model


def test_saved_adapters_carry_their_privacy(tmp_path: Path) -> None:
    """PEFT loads what was trained; `privacy.json` and the card state the ε of the ledger."""
    ledger = tmp_path / "run/ledger.jsonl"
    run = PlainRun(ledger, lr=0.1, seed=None)
    stated = []
    for _ in range(2):
        for batch in run.loader:
            run.train_on(batch)
        run.engine.save_pretrained(tmp_path / "run")
        proof = json.loads((tmp_path / "run/privacy.json").read_text())
        assert proof["guarantee"]["epsilon"] == pytest.approx(
            run.engine.get_epsilon(run.plan.target_delta)
        )
        assert proof["ledger"] == {"file": "ledger.jsonl", "head": read_ledger(path=ledger).head}
        stated.append(proof["guarantee"]["epsilon"])
    assert 0 < stated[0] < stated[1]
    card = (tmp_path / "run/README.md").read_text()
    assert card.count("# Privacy statement") == 1
    assert "add-or-remove" in card
    assert "PEFT" in card
    again = PeftModel.from_pretrained(tiny_base("llama"), tmp_path / "run", is_trainable=True)
    torch.testing.assert_close(trained(again), trained(run.model), rtol=0, atol=0)
    assert not torch.equal(trained(again), trained(tiny_model("llama")))
    assert [path.name for path in (tmp_path / "run").iterdir() if "partial" in path.name] == []


def test_what_cannot_be_stated_is_not_saved(tmp_path: Path) -> None:
    """Before the first release, or without PEFT's adapters, the remedy is told and no file made."""
    run = PlainRun(tmp_path / "ledger.jsonl")
    with pytest.raises(ConfigurationError, match="train first"):
        run.engine.save_pretrained(tmp_path / "early")
    base = tiny_base("bert").train()
    for name, parameter in base.named_parameters():
        parameter.requires_grad_("classifier" in name)
    loader = loader_of(examples(LENGTHS, family="bert"), batch_size=10)
    engine = one_pass(tmp_path / "head.jsonl", model=base, loader=loader)
    with pytest.raises(ConfigurationError, match="its own save_pretrained"):
        engine.save_pretrained(tmp_path / "head")
    assert not (tmp_path / "early").exists()
    assert not (tmp_path / "head").exists()


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_the_average_is_the_recipes(ledgers: Iterator[Path], share: float) -> None:
    """After the last update the model is the mean of its last iterates, as an open loop makes it;
    before, it is the last iterate."""
    run = PlainRun(next(ledgers), lr=0.1, steps=4, average_iterates=share)
    at = trained(run.model)
    for batch in run.loader:
        run.train_on(batch)
    halfway = trained(run.model)
    for batch in run.loader:
        run.train_on(batch)
    iterates = at - 0.1 * torch.stack(run.inner.received).cumsum(dim=0)
    torch.testing.assert_close(halfway, iterates[1], rtol=1e-5, atol=1e-7)
    last = iterates[-int(4 * share) :]
    torch.testing.assert_close(trained(run.model), last.mean(dim=0), rtol=1e-5, atol=1e-7)
    expected = averaged_by_an_open_loop(
        run.plan, examples(LENGTHS), next(ledgers), share=share, lr=0.1
    )
    torch.testing.assert_close(trained(run.model), expected, rtol=1e-5, atol=1e-7)


def test_a_resumed_loop_has_the_average_in_place(tmp_path: Path) -> None:
    """Killed after its last update, past its last checkpoint: the average, and what is saved."""
    settings: dict[str, Any] = {
        "checkpoints": tmp_path / "kept",
        "lr": 0.1,
        "average_iterates": 1.0,
    }
    ledger = tmp_path / "ledger.jsonl"
    killed = PlainRun(ledger, **settings)
    killed.train()
    resumed = PlainRun(ledger, **settings)
    assert resumed.engine.resume() == 3
    torch.testing.assert_close(trained(resumed.model), trained(killed.model), rtol=0, atol=0)
    resumed.engine.save_pretrained(tmp_path / "saved")
    resumed.engine.close()
    again = PeftModel.from_pretrained(tiny_base("llama"), tmp_path / "saved", is_trainable=True)
    torch.testing.assert_close(trained(again), trained(killed.model), rtol=0, atol=0)
    unaveraged = PlainRun(tmp_path / "other.jsonl", lr=0.1)
    unaveraged.train()
    assert not torch.allclose(trained(unaveraged.model), trained(killed.model), atol=1e-5)
