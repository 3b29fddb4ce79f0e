"""A plain loop within its data set's budget."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from dpacc_accounting import Budget, BudgetExceeded, create_budget

from dpacc import PrivacyEngine
from tests.dpacc.loops.test_drop_in import loader_of
from tests.dpacc.step.engine_runs import LENGTHS
from tests.tiny_models import examples, tiny_model


def test_a_plain_loop_reserves_before_its_first_batch(tmp_path: Path) -> None:
    """The first run has its ε of the budget, and the second gets no batch of it."""
    path = tmp_path / "budget.jsonl"
    create_budget(path=path, name="notes", epsilon=8.0, delta=1e-3)
    for name in ("one", "two"):
        engine = PrivacyEngine(ledger=tmp_path / f"{name}.jsonl", budget=path)
        model = tiny_model("llama")
        model, optimizer, loader = engine.make_private_with_epsilon(
            model=model,
            optimizer=torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1),
            data_loader=loader_of(examples(LENGTHS)),
            target_epsilon=8.0,
            target_delta=1e-3,
            max_grad_norm=1.0,
            epochs=1,
        )
        if name == "two":
            with pytest.raises(BudgetExceeded, match=r"earlier runs \(1, 0 only reserved\) hold"):
                next(iter(loader))
            continue
        for batch in loader:
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()
        engine.close()
    assert [share.state for share in Budget(path=path).read().shares.values()] == ["committed"]
    assert not (tmp_path / "two.jsonl").exists()
