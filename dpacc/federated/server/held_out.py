"""What the server measures after each round: how well a classifier does on each kind of text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from dpacc.data.overlap import require_apart
from dpacc.errors import ConfigurationError
from dpacc.federated.settings import DPSettings, LoraSettings, Task, training_config
from dpacc.recipe.examples import load_held_out_examples, pad_examples
from dpacc.recipe.predictions import predict_classes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PREFIX = "held_out_"


class HeldOut:
    """The server's own examples, outside the guarantee: one file, `held_out_<kind>.jsonl`, a kind.

    Args:
        folder: where the files are.
        tokenizer: the model's.
        task: what is learned, as clients are told.

    Raises:
        ConfigurationError: there is no such file, or one cannot be read.
    """

    def __init__(
        self, *, folder: Path | str, tokenizer: PreTrainedTokenizerBase, task: Mapping[str, Any]
    ) -> None:
        files = sorted(Path(folder).glob(f"{_PREFIX}*.jsonl"))
        if not files:
            raise ConfigurationError(f"{folder} holds no {_PREFIX}<kind>.jsonl to measure on")
        self._read = partial(read_examples, tokenizer=tokenizer, task=task)
        self._collate = partial(pad_examples, pad_token_id=int(tokenizer.pad_token_id))
        self._examples = {file.stem.removeprefix(_PREFIX): self._read(file) for file in files}

    def require_apart(self, clients: Mapping[str, Path]) -> None:
        """See that no client's examples are measured on, where all files are in one place.

        Args:
            clients: each client's file.

        Raises:
            ConfigurationError: some of a client's examples are held out as well.
        """
        for name, file in clients.items():
            private = self._read(file)
            for kind, examples in self._examples.items():
                require_apart(
                    private=private,
                    held_out=examples,
                    what=f"{_PREFIX}{kind}.jsonl, with {name}'s",
                    remedy="name another folder with --data",
                )

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Balanced accuracy on each kind, from 0 to 1."""
        return {
            kind: balanced_accuracy(
                *predict_classes(model=model, examples=examples, collate=self._collate)
            )
            for kind, examples in self._examples.items()
        }

    def standard_errors(self, quality: Mapping[str, float]) -> dict[str, float]:
        """How far each kind's balanced accuracy may be off by the chance of which examples these
        are: √(p(1 − p)·Σ 1/n)/C, with C classes of n examples each.

        Args:
            quality: p of each kind, as this measured it.
        """
        return {
            kind: standard_error(share, [each["labels"] for each in self._examples[kind]])
            for kind, share in quality.items()
        }


def standard_error(share: float, true: Sequence[int]) -> float:
    """The binomial standard error of a balanced accuracy: where classes are found equally well.

    >>> round(standard_error(0.5, [0] * 100 + [1] * 100), 4)
    0.0354
    """
    counts = [*Counter(true).values()]
    return math.sqrt(share * (1 - share) * sum(1 / each for each in counts)) / len(counts)


def balanced_accuracy(predicted: Sequence[int], true: Sequence[int]) -> float:
    """The share of each class that is found, averaged over classes: guessing one gives 1/classes.

    >>> balanced_accuracy([1, 1, 1, 1], [1, 1, 1, 0])
    0.5
    """
    shares = []
    for each in sorted(set(true)):
        found = [
            guess == each for guess, truth in zip(predicted, true, strict=True) if truth == each
        ]
        shares.append(sum(found) / len(found))
    return sum(shares) / len(shares)


def read_examples(
    file: Path, *, tokenizer: PreTrainedTokenizerBase, task: Mapping[str, Any]
) -> Any:
    """What a file of held-out records holds, as the model reads it.

    Args:
        file: of records.
        tokenizer: the model's.
        task: what is learned, as clients are told.
    """
    # Model and budget are no matter here; a run's words ask for both.
    config = training_config(
        model="",
        data_path=str(file),
        lora=LoraSettings(),
        dp=DPSettings(epsilon=1.0, delta=0.5, expected_batch_size=1),
        task=Task(fields={**task, "held_out_data": str(file), "held_out_examples": None}),
    )
    return load_held_out_examples(config=config, tokenizer=tokenizer)
