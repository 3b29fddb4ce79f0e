"""The engine's logical steps as the data of the Trainer's own loader."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import Dataset

from dpacc.step.logical_step import LogicalStep


class EpochOfSteps(Dataset[LogicalStep]):
    """An epoch as the Trainer's loader sees it: whatever it asks for, the next logical step."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self.source: Iterator[LogicalStep] = iter(())

    def __len__(self) -> int:
        return self._steps

    def close(self) -> None:
        """Let the engine put back what it had changed while it went from step to step."""
        close = getattr(self.source, "close", None)
        if close is not None:
            close()

    def __getitem__(self, index: int) -> LogicalStep:
        return next(self.source)


def only(steps: list[LogicalStep]) -> LogicalStep:
    """What a loader of batches of one collates: its one logical step."""
    (step,) = steps
    return step
