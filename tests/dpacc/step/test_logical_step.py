"""The order of calls: nothing is counted twice, left out, or released without noise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from dpacc_accounting import read_ledger

from dpacc.errors import PrivacyError
from dpacc.losses.per_example import causal_lm_losses
from tests.dpacc.step.engine_runs import LENGTHS, plan_for, prepared
from tests.tiny_models import collate, examples


def first_step(ledger: Path, *, tokens: int = 24) -> tuple[Any, torch.nn.Module, Any]:
    engine, model, _ = prepared(plan_for(len(LENGTHS)), ledger, micro_batch_tokens=tokens)
    steps = engine.steps(examples(LENGTHS), collate)
    return next(steps), model, steps


def test_two_backwards_for_one_micro_batch_are_refused(ledgers: Iterator[Path]) -> None:
    """Its examples would count twice, for a sensitivity of 2C."""
    step, model, _ = first_step(next(ledgers))
    batch = next(iter(step))
    step.backward(causal_lm_losses(model, batch))
    with pytest.raises(PrivacyError, match="count its examples twice"):
        step.backward(causal_lm_losses(model, batch))


def test_a_micro_batch_without_backward_is_refused(ledgers: Iterator[Path]) -> None:
    """Every drawn example takes part: passing one over stops the run."""
    step, _, _ = first_step(next(ledgers))
    with pytest.raises(PrivacyError, match="passed over"):
        list(step)


def test_an_update_before_the_last_backward_is_refused(ledgers: Iterator[Path]) -> None:
    """A dropped tail micro-batch is an error, not a smaller batch."""
    ledger = next(ledgers)
    step, model, _ = first_step(ledger)
    with pytest.raises(PrivacyError, match="without a backward"):
        step.update()
    for count, batch in enumerate(step):
        step.backward(causal_lm_losses(model, batch))
        if count == 2:
            break
    with pytest.raises(PrivacyError, match="without a backward"):
        step.update()
    assert read_ledger(path=ledger).releases == ()


def test_a_second_update_is_refused(ledgers: Iterator[Path]) -> None:
    """One release a step."""
    step, model, _ = first_step(next(ledgers))
    for batch in step:
        step.backward(causal_lm_losses(model, batch))
    step.update()
    with pytest.raises(PrivacyError, match="updated already"):
        step.update()


def test_a_skipped_step_is_refused(ledgers: Iterator[Path]) -> None:
    """Whether a step happens must not depend on what it saw."""
    step, model, steps = first_step(next(ledgers))
    for batch in step:
        step.backward(causal_lm_losses(model, batch))
    with pytest.raises(PrivacyError, match=r"left without step\.update"):
        next(steps)
