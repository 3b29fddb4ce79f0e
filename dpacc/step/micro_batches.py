"""The drawn examples as a loop gets them: read, cut for this rank, collated, and numbered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from accelerate.utils import send_to_device

from dpacc.data.sequences import padded_tokens, sequences_each
from dpacc.randomness.dropout_masks import MADE_UP
from dpacc.randomness.keyed_dropout import KeyedDropout
from dpacc.randomness.stray_draws import refusing_draws
from dpacc.step.batching import cut_into_micro_batches, starting_cost
from dpacc.step.logical_step import Collate, Unit
from dpacc.step.unit_members import Members

_DRAWN_BY_ITSELF = (
    "draw from a generator that the example alone seeds, such as "
    "numpy.random.default_rng(example['input_ids'])"
)


@dataclass(frozen=True, slots=True)
class Drawn:
    """An example of the dataset, and its number there."""

    number: int
    example: Any


class MicroBatches:
    """Reads what was drawn, and hands it out in micro-batches.

    Args:
        dataset: examples by index.
        members: which examples each drawn unit stands for.
        collate: makes a batch of examples; what it draws must be keyed.
        accelerator: the launch's.
        dropout: keys what is random in each micro-batch's forward.
        expect: told how many examples each has, and of how many sequences, before its forward.
        max_tokens: the most padded tokens in one.
        max_units: the most privacy units in one, if there is a most.
    """

    def __init__(
        self,
        *,
        dataset: Sequence[Any],
        members: Members,
        collate: Collate,
        accelerator: Accelerator,
        dropout: KeyedDropout,
        expect: Callable[..., None],
        max_tokens: int,
        max_units: int | None,
    ) -> None:
        self._dataset = dataset
        self._members = members
        self._collate = collate
        self._accelerator = accelerator
        self._dropout = dropout
        self._expect = expect
        self._max_tokens = max_tokens
        self._max_units = max_units

    def of_this_rank(self, drawn: Iterable[int], *, step: int) -> list[list[Unit]]:
        """This rank's micro-batches of the privacy units `drawn` for a step.

        Raises:
            PrivacyError: reading an example draws random numbers from a generator that all share.
        """
        with refusing_draws("reading the dataset", _DRAWN_BY_ITSELF):
            units: list[Unit] = [
                [Drawn(i, self._dataset[i]) for i in self._members.in_step(int(unit), step=step)]
                for unit in drawn
            ]
        cut = cut_into_micro_batches(
            lengths=[max(_length(each.example) for each in unit) for unit in units],
            counts=[len(unit) for unit in units],
            ranks=self._accelerator.num_processes,
            max_tokens=self._max_tokens,
            start_cost=starting_cost(self._accelerator.device.type),
            max_units=self._max_units,
        )
        mine = cut[self._accelerator.process_index]
        return [[units[position] for position in positions] for positions in mine]

    def presenting(self, step: int) -> Callable[[list[Any]], Any]:
        """What makes the batches of one step: from drawn examples, or from invented ones."""

        def present(examples: list[Any]) -> Any:
            numbers = [each.number if isinstance(each, Drawn) else MADE_UP for each in examples]
            plain = [each.example if isinstance(each, Drawn) else each for each in examples]
            return self._place(self._collate(plain), step=step, numbers=numbers)

        return present

    def place_made_up(self, batch: Any, examples: int) -> Any:
        """A batch of that many invented examples, where the model is."""
        return self._place(batch, step=0, numbers=[MADE_UP] * examples)

    def _place(self, batch: Any, *, step: int, numbers: Sequence[int]) -> Any:
        batch = send_to_device(batch, self._accelerator.device)
        sequences = sequences_each(batch)
        # What drops out of an example is its own: the same in all of its sequences.
        rows = [number for number in numbers for _ in range(sequences)]
        self._dropout.begin(step=step, examples=rows)
        self._expect(len(numbers), sequences=sequences)
        return batch


def _length(example: Any) -> int:
    try:
        return padded_tokens(example)
    except (KeyError, TypeError, IndexError):
        return 1
