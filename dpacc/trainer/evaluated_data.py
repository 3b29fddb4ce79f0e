"""What a private Trainer may evaluate on, and what it may tell of the rows that it trains on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from torch.utils.data import DataLoader
from transformers import Trainer

from dpacc.data.overlap import OVERLAP_NOTE, require_apart
from dpacc.errors import ConfigurationError
from dpacc.step.engine import PrivacyEngine
from dpacc.trainer.privacy_arguments import PrivacyArguments


class EvaluatesApart(Trainer):  # type: ignore[misc]
    """A Trainer that evaluates and predicts on no private example, unless it is allowed to.

    Attributes:
        privacy: says whether it is.
    """

    privacy: PrivacyArguments
    _engine: PrivacyEngine | None
    is_in_train: bool
    train_dataset: Any
    _admitted: tuple[Any, ...] = ()
    _overlaps = False

    @property
    def engine(self) -> PrivacyEngine | None:
        """What charges this trainer's steps; None until training has begun."""
        return self._engine

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """The Trainer's own, of data that was compared with the private examples."""
        loader: DataLoader[Any] = super().get_eval_dataloader(self._compared(eval_dataset))
        return loader

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader[Any]:
        """Likewise."""
        loader: DataLoader[Any] = super().get_test_dataloader(self._compared(test_dataset))
        return loader

    def admit_evaluated(self, dataset: Any) -> None:
        """Compare a data set, or several by name, with the private examples, each once.

        Raises:
            ConfigurationError: private examples are in it, which was not allowed, or it is called
                public and may steer the training.
        """
        for part in dataset.values() if isinstance(dataset, Mapping) else [dataset]:
            if part is not None and not any(part is each for each in self._admitted):
                self._compare(part)
                self._admitted = (*self._admitted, part)

    def note_evaluated(self) -> None:
        """Write into the ledger that metrics of private examples were allowed, if they were."""
        if self._overlaps and self._engine is not None:
            subject, text = OVERLAP_NOTE
            self._engine.note(subject=subject, text=text)

    def _compared(self, dataset: Any) -> Any:
        own = dataset is None or isinstance(dataset, str)
        self.admit_evaluated(self.eval_dataset if own else dataset)
        self.note_evaluated()
        if self._engine is not None and not self.is_in_train:
            self._engine.close()
        return dataset

    def _told_apart(self, dataset: Any) -> Any:
        """The rows of a data set, none of which may be private and evaluated."""
        return dataset

    def _compare(self, dataset: Any) -> None:
        public = self.privacy.eval_data_is_public
        try:
            require_apart(
                private=self._told_apart(self.train_dataset),
                held_out=self._told_apart(dataset),
                what="eval_dataset",
                remedy="do not call it public with eval_data_is_public"
                if public
                else "say so with PrivacyArguments(allow_eval_overlap=True)",
            )
        except ConfigurationError:
            if not self.privacy.allow_eval_overlap or public:
                raise
            self._overlaps = True


@contextmanager
def rows_untold(*, asked: bool) -> Iterator[None]:
    """Keep bars that count rows off the terminal, where how many there are is private.

    Args:
        asked: whether it is, for units of several rows.
    """
    if not asked or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
