"""A private Trainer's evaluations as points of a utility monitor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from dpacc.recipe.public_times import COMPUTED_WITHOUT_NOISE
from dpacc.step.engine import PrivacyEngine
from dpacc.trainer.private_trainer import PrivateTrainer

_OF_THE_CLOCK = ("_runtime", "_per_second")


class EvaluationPoints(TrainerCallback):  # type: ignore[misc]
    """Records what the Trainer's evaluation and the monitor's own metrics find.

    Args:
        trainer: whose ledger says what was spent.
        note: has an engine's ledger say what the monitor looks at.
        observe: records a point.
    """

    def __init__(
        self,
        *,
        trainer: PrivateTrainer,
        note: Callable[[PrivacyEngine], None],
        observe: Callable[..., object],
    ) -> None:
        self._trainer = trainer
        self._note = note
        self._observe = observe

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Say in the ledger what will be measured of private data, before it is."""
        engine = self._trainer.engine
        if engine is not None:
            self._note(engine)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, model: Any = None, **_: Any
    ) -> None:
        """A point with the evaluation's metrics, but for its times."""
        engine = self._trainer.engine
        if engine is None:
            return
        told = {
            name: value
            for name, value in (metrics or {}).items()
            if isinstance(value, int | float)
            and name not in COMPUTED_WITHOUT_NOISE | {"epoch"}
            and not name.endswith(_OF_THE_CLOCK)
        }
        self._observe(engine=engine, model=model, besides=told)
