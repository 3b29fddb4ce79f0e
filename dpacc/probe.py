"""The coupling probe: does an example's gradient depend on its neighbours?

Clipping bounds an example's share of the sum only if its gradient is its own. A loss averaged
over the batch, a balance term, or a layer that mixes rows breaks that silently. Before the
first logical step the user's own forward and loss run on made-up examples: once with the first
example alone and once among longer neighbours. Its two gradients must agree. Nothing private is
read but the names and types of the dataset's fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dpacc.errors import PrivacyError

_LENGTHS = (6, 9, 13)
_TOLERANCE = 1e-3
_TOLERANCE_IN_HALF_PRECISION = 0.1
_LARGEST_LABEL = 2


def made_up_examples(
    *, model: nn.Module, like: Any, lengths: Sequence[int] = _LENGTHS
) -> list[dict[str, Any]]:
    """Invented examples of different `lengths` with the fields and types of `like`.

    Token ids are pseudo-random words of the model's vocabulary; labels are 0 or 1, which both a
    causal LM and a classifier accept.

    Raises:
        PrivacyError: a field whose type says nothing of how to invent it.
    """
    if not isinstance(like, Mapping):
        raise PrivacyError(
            f"cannot make up examples like a {type(like).__name__} for the coupling probe; "
            "pass probe_examples=[...] with at least two invented ones"
        )
    vocabulary = _vocabulary_size(model)
    generator = np.random.default_rng(0)
    return [
        {
            key: _made_up_field(key, value, length, vocabulary, generator)
            for key, value in like.items()
        }
        for length in lengths
    ]


def probe_examples_for(
    *, model: nn.Module, like: Any, collate: Callable[[list[Any]], Any]
) -> list[dict[str, Any]]:
    """Made-up examples that `collate` accepts: where it only stacks, all as long as `like`."""
    examples = made_up_examples(model=model, like=like)
    try:
        collate(examples)
    except (RuntimeError, TypeError, ValueError):
        longest = max((len(value) for value in like.values() if np.ndim(value) == 1), default=1)
        return made_up_examples(model=model, like=like, lengths=[longest] * len(_LENGTHS))
    return examples


def _made_up_field(
    key: str, value: Any, length: int, vocabulary: int, generator: np.random.Generator
) -> Any:
    if isinstance(value, str):
        return "made up"
    if value is None or isinstance(value, bool):
        return value if value is None else False
    if _is_integer(value):
        return int(generator.integers(_LARGEST_LABEL))
    if isinstance(value, float):
        return 0.5
    if np.ndim(value) == 1 and (len(value) == 0 or _is_integer(value[0])):
        sequence = _made_up_sequence(key, length, vocabulary, generator)
        return _in_the_type_of(value, sequence)
    raise PrivacyError(
        f"cannot make up the field {key!r} for the coupling probe; "
        "pass probe_examples=[...] with at least two invented examples"
    )


def _made_up_sequence(
    key: str, length: int, vocabulary: int, generator: np.random.Generator
) -> list[int]:
    if key.endswith("mask"):  # attention_mask, completion_mask: read, and learned
        return [1] * length
    if key == "position_ids":
        return list(range(length))
    if key == "input_ids":
        return [int(i) for i in generator.integers(vocabulary, size=length)]
    if key.startswith("label"):
        return [int(i) for i in generator.integers(_LARGEST_LABEL, size=length)]
    return [0] * length


def _in_the_type_of(value: Any, sequence: list[int]) -> Any:
    if isinstance(value, Tensor):
        return value.new_tensor(sequence)
    return np.asarray(sequence, dtype=value.dtype) if isinstance(value, np.ndarray) else sequence


def _is_integer(value: Any) -> bool:
    return np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iu"


def _vocabulary_size(model: nn.Module) -> int:
    embeddings = getattr(model, "get_input_embeddings", lambda: None)()
    return int(getattr(embeddings, "num_embeddings", _LARGEST_LABEL))


class CouplingProbe:
    """Two made-up micro-batches and the verdict on the gradients they gave.

    Args:
        model: the prepared model; its dtype sets how closely gradients must agree.
        examples: at least two invented examples; the first is the one watched.
        rounds: whether the gradients were computed in 16 bits, as under autocast.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        examples: Sequence[Any],
        rounds: Callable[[], bool] = lambda: False,
    ) -> None:
        if len(examples) < 2:
            raise PrivacyError("the coupling probe needs at least two probe_examples")
        self._model = model
        self._examples = list(examples)
        self._rounds = rounds
        self._watched: list[Tensor] = []

    def rehearsals(self) -> Iterator[list[Any]]:
        """The examples of the two micro-batches: one alone, then among its neighbours.

        Dropout goes on meanwhile: an invented example's masks are the same in both.
        """
        yield self._examples[:1]
        yield self._examples

    def observe(self, gradients: Tensor) -> None:
        """Keep the watched example's row of [examples, width] gradients."""
        self._watched.append(gradients[0].clone())

    def conclude(self) -> None:
        """Refuse to train when the watched gradient changed with the company it kept."""
        alone, among_neighbours = self._watched
        self._watched = []
        norm = float(alone.norm())
        if not norm > 0:
            raise PrivacyError(
                f"the coupling probe saw a gradient of norm {norm} on a made-up example, which "
                "shows nothing; pass probe_examples=[...] that the model can learn from"
            )
        change = float((alone - among_neighbours).norm()) / norm
        if not change <= self._tolerance:
            raise PrivacyError(
                f"an example's gradient changed by {change:.1%} with the examples beside it, so "
                "clipping cannot bound its influence; make each loss depend on its own example "
                "only (no mean over the batch or its tokens, no balance loss)"
            )

    @property
    def _tolerance(self) -> float:
        half = self._rounds() or any(p.dtype != torch.float32 for p in self._model.parameters())
        return _TOLERANCE_IN_HALF_PRECISION if half else _TOLERANCE
