"""What a collate function must keep: the number of examples, their order, and no memory.

Examined on invented examples, before any real one is collated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dpacc.data.sequences import sequences_each
from dpacc.data.supervision import IGNORED
from dpacc.errors import PrivacyError
from dpacc.randomness.global_generators import global_generators
from dpacc.randomness.run_secret import RunSecret

Collate = Callable[[list[Any]], Any]

_DRAWS = 64


class KeyedCollation:
    """A collate function that draws, if it does, from a secret stream, another one each time.

    So random masks are nobody's to know, and what one batch draws says nothing of another.

    Args:
        collate: the user's.
        secret: the run's.
        rank: this process, which must draw other numbers than the rest.
        begun: the step at which this loop over the data begins. A loop that begins again in the
            same run draws numbers that no released step has used.
    """

    def __init__(self, collate: Collate, secret: RunSecret, *, rank: int, begun: int = 0) -> None:
        self._collate = collate
        self._secret = secret
        self._purpose = f"collation on rank {rank} from step {begun}"
        self._calls = 0

    def __call__(self, examples: list[Any]) -> Any:
        """The batch of these examples."""
        stream = self._secret.stream(purpose=self._purpose, step=self._calls)
        self._calls += 1
        with global_generators(stream):
            return self._collate(examples)


class RehearsedCollation:
    """A collate function that draws the same random numbers each time, for the probe.

    Args:
        collate: the user's.
        examples: invented ones.

    Attributes:
        is_random: whether a batch depends on the global generators, as random masks do.

    Raises:
        PrivacyError: it remembers earlier calls, changes the order or the number of examples.
    """

    def __init__(self, collate: Collate, examples: Sequence[Any]) -> None:
        self._collate = collate
        self._draw = 0
        several = list(examples)
        batch = self(several)
        if not _same(batch, self(several)):
            raise PrivacyError(
                "the collate function makes two different batches of the same examples: it draws "
                "from a generator of its own, or keeps a state; let it draw from the global "
                "generators (leave out its seed), which the engine keys by the run's secret"
            )
        self._draw = 1
        self.is_random = not _same(batch, self(several))
        _require_as_many_rows(batch, len(several))
        if not self.is_random:
            _require_order(batch, [self([each]) for each in several])

    def __call__(self, examples: list[Any]) -> Any:
        """The batch of these examples, by the same draws as any other."""
        secret = RunSecret.from_fixed_seed(0)  # invented examples have nothing to hide
        with global_generators(secret.stream(purpose="rehearsal", step=self._draw)):
            return self._collate(examples)

    def teach_the_first(self, examples: list[Any]) -> None:
        """Go on with draws under which the first of `examples` has something to learn."""
        for self._draw in range(_DRAWS):
            labels = _named(self(examples), "labels")
            if labels is None or bool((labels[0] != IGNORED).any()):
                return


def first_alone(batch: Any) -> Any:
    """The first row of a batch that is padded on the right, without its padding; else the batch.

    What a random collate function made of the first example among others, for it draws anew for
    an example alone.
    """
    mask = _named(batch, "attention_mask")
    if mask is None or mask.ndim != 2:
        return None
    width, tokens = mask.shape[1], int(mask[0].sum())
    if not bool(mask[0, :tokens].all()):
        return None

    def cut(tensor: Tensor) -> Tensor:
        row = tensor[:1]
        return row[:, :tokens] if row.ndim > 1 and row.shape[1] == width else row

    return _mapped(batch, cut)


def padding_of(batch: Any) -> Tensor | None:
    """Where the rows of a batch are padded, [rows, tokens], by its attention mask; None without."""
    mask = _by_row(batch, "attention_mask")
    return None if mask is None or mask.ndim != 2 else mask == 0


def words_in_padding(batch: Any) -> set[int]:
    """The token ids that stand where a batch is padded."""
    padding, ids = padding_of(batch), _by_row(batch, "input_ids")
    if padding is None or ids is None or ids.shape != padding.shape:
        return set()
    return set(ids[padding].tolist())


def shapes_of(batch: Any) -> list[tuple[int, ...]]:
    """The shapes of all tensors of a batch."""
    return [tuple(tensor.shape) for _, tensor in _tensors(batch)]


def learned_in(batch: Any) -> int | None:
    """How many labels of a batch are learned; none where it has no field of that name."""
    labels = _named(batch, "labels")
    return None if labels is None else int((labels != IGNORED).sum())


def _tensors(batch: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a batch, however nested, with the names that lead to it."""
    if isinstance(batch, Tensor):
        yield name, batch
    elif isinstance(batch, Mapping):
        for key in batch:
            yield from _tensors(batch[key], f"{name}.{key}" if name else str(key))
    elif isinstance(batch, list | tuple):
        for at, part in enumerate(batch):
            yield from _tensors(part, f"{name}.{at}" if name else str(at))


def _named(batch: Any, name: str) -> Tensor | None:
    for path, tensor in _tensors(batch):
        if path.rpartition(".")[2] == name:
            return tensor
    return None


def _by_row(batch: Any, name: str) -> Tensor | None:
    """A field as the model reads it, where each example has several sequences."""
    found = _named(batch, name)
    return found if found is None or sequences_each(batch) == 1 else found.flatten(0, 1)


def _mapped(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        return {key: _mapped(batch[key], change) for key in batch}
    if isinstance(batch, list | tuple):
        parts = [_mapped(part, change) for part in batch]
        return parts if isinstance(batch, list) else tuple(parts)
    return batch


def _same(one: Any, other: Any) -> bool:
    first, second = list(_tensors(one)), list(_tensors(other))
    return [name for name, _ in first] == [name for name, _ in second] and all(
        a.shape == b.shape and torch.equal(a, b)
        for (_, a), (_, b) in zip(first, second, strict=True)
    )


def _require_as_many_rows(batch: Any, examples: int) -> None:
    rows = {name: len(tensor) for name, tensor in _tensors(batch) if tensor.ndim}
    if rows and examples not in rows.values():
        name, found = next(iter(rows.items()))
        raise PrivacyError(
            f"the collate function made {found} rows of {examples} examples (in {name}), so no "
            "gradient is that of one example; let it make one row of each"
        )


def _require_order(batch: Any, alone: Sequence[Any]) -> None:
    """Refuse a batch in whose rows the examples stand elsewhere than in the list.

    A row is known by what the collate function makes of its example alone, whatever padding
    lies around it. Fields that no row is known by say nothing.
    """
    singles = [dict(_tensors(each)) for each in alone]
    for name, tensor in _tensors(batch):
        if not tensor.ndim or len(tensor) != len(alone):
            continue
        rows = [each.get(name) for each in singles]
        for place, row in enumerate(rows):
            matches = [_lies_in(row, tensor[at]) for at in range(len(tensor))]
            if any(matches) and not matches[place]:
                raise PrivacyError(
                    f"the collate function put example {place} into row {matches.index(True)} (in "
                    f"{name}), so one unit's gradient would be taken for another's; let it keep "
                    "the order of the list"
                )


def _lies_in(single: Tensor | None, row: Tensor) -> bool:
    """Whether a batch of one example is a corner of `row`, the first or the last."""
    if single is None or single.ndim != row.ndim + 1 or len(single) != 1:
        return False
    own = single[0]
    if any(a > b for a, b in zip(own.shape, row.shape, strict=True)):
        return False
    first = tuple(slice(0, n) for n in own.shape)
    last = tuple(slice(w - n, w) for n, w in zip(own.shape, row.shape, strict=True))
    return any(torch.equal(row[corner], own) for corner in (first, last))
