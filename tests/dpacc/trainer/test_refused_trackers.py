"""Trackers that tell when a step ended, or what the machine did, are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    MLflowCallback,
    TensorBoardCallback,
)

from dpacc.errors import ConfigurationError
from dpacc.trainer.refused_trackers import DATED_BY_STEP, refuse_trackers
from tests.dpacc.trainer.test_private_trainer import trainer
from tests.dpacc.trainer.test_refused_arguments import UNTOUCHED


@pytest.mark.parametrize("name", sorted(set(INTEGRATION_TO_CALLBACK) - set(DATED_BY_STEP)))
def test_what_cannot_be_dated_by_step_is_refused_by_name(tmp_path: Path, name: str) -> None:
    """Every other tracker that transformers knows, installed or not, before data is read."""
    with pytest.raises(ConfigurationError, match=f"report_to='{name}'.*(instead|leave it|DISABLE)"):
        trainer(tmp_path / "run", report_to=[name], train_dataset=UNTOUCHED)


def test_what_is_refused_as_an_option_is_refused_as_a_callback() -> None:
    """An instance, its class or a class of one's own; what is dated by step passes."""

    class Mine(MLflowCallback):
        pass

    for callback in (MLflowCallback, Mine, Mine.__new__(Mine)):
        with pytest.raises(ConfigurationError, match="report_to='mlflow'"):
            refuse_trackers(report_to=[], callbacks=[callback], log_non_private_metrics=False)
    refuse_trackers(
        report_to=DATED_BY_STEP, callbacks=[TensorBoardCallback], log_non_private_metrics=False
    )


def test_one_that_is_added_later_is_refused_too(tmp_path: Path) -> None:
    """Before the first step, and before a ledger is begun."""
    run = trainer(tmp_path / "run")
    run.callback_handler.callbacks.append(MLflowCallback.__new__(MLflowCallback))
    with pytest.raises(ConfigurationError, match="report_to='mlflow'"):
        run.train()
    assert not (tmp_path / "run/ledger.jsonl").exists()


def test_who_logs_losses_anyway_may_report_anywhere_but_energy() -> None:
    """The ledger says that losses were logged, which tell as much; energy it does not name."""
    for name in set(INTEGRATION_TO_CALLBACK) - {"codecarbon"}:
        refuse_trackers(report_to=[name], callbacks=[], log_non_private_metrics=True)
    with pytest.raises(ConfigurationError, match="energy"):
        refuse_trackers(report_to=["codecarbon"], callbacks=[], log_non_private_metrics=True)
