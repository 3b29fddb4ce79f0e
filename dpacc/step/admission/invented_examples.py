"""Invented examples that look like the data and differ wherever examples can differ.

Four of them, for the coupling probe: one to watch, a long one that sets how wide a batch is
padded, and two that take each other's place beside them: one hard, of large numbers, learned
throughout; the other easy, of small numbers, and hardly learned at all. A fifth is of other words
and numbers than the hard one, and of as many: beside it nothing is computed in other shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dpacc.data.sequences import SEQUENCE_IDS, joined, parted
from dpacc.data.supervision import IGNORED
from dpacc.errors import PrivacyError

_CLASSES = 2
_LENGTHS_OF_CHANGE = (
    "original_max_position_embeddings",
    "sliding_window",
    "attention_window",
    "attention_chunk_size",
)
_LONGEST_TRIED = 2048
_REMEDY = "pass probe_examples=[...] with at least two invented ones, better four"
_WORDS = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india")
_CODES = ("xq", "zv", "kj", "wq", "vx")


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What one invented example is like.

    Args:
        length: its tokens, or words of a text.
        level: how large its numbers are, from 0 to 1.
        category: its classes and switches.
        unlearned: the share of its labels, from the left, that is not learned.
        easy: whether it says one thing over and over.
        filled: the share of a row of fixed length that is not padding.
    """

    length: int
    level: float
    category: int
    unlearned: float
    easy: bool = False
    filled: float = 1.0


_PARTS = (
    _Part(length=6, level=0.5, category=1, unlearned=0.3, filled=0.5),
    _Part(length=13, level=0.3, category=0, unlearned=0.5),
    _Part(length=9, level=0.95, category=0, unlearned=0.0, filled=0.8),
    _Part(length=11, level=0.05, category=1, unlearned=0.75, easy=True, filled=0.9),
)
_WATCHED, _LONG = _PARTS[:2]
_TWIN = replace(_PARTS[2], level=0.05, category=1)


def made_up_examples(
    *,
    model: nn.Module,
    like: Any,
    lengths: Sequence[int] | None = None,
    classes: int | None = None,
) -> list[Any]:
    """Invented examples with the fields, types and shapes of `like`.

    Token ids are pseudo-random words of the model's vocabulary, and so are labels of each token
    where the model predicts words; other classes are 0 or 1, other numbers lie between 0 and 1.

    Args:
        model: tells the vocabulary.
        like: a real example, of which types, names and shapes are read.
        lengths: of the sequences, one an example; by default four different ones.
        classes: how many values a token's label may have, where it is no word of the vocabulary.

    Raises:
        PrivacyError: a field whose type says nothing of how to invent it.
    """
    parts: Sequence[_Part] = _PARTS
    if lengths is not None:
        parts = [replace(_PARTS[i % 4], length=length) for i, length in enumerate(lengths)]
    return _invented(model=model, like=like, parts=parts, fixed=None, classes=classes)


def examples_for_probe(
    *, model: nn.Module, like: Any, collate: Callable[[list[Any]], Any]
) -> tuple[list[Any], Any, list[Any]]:
    """Made-up examples that `collate` accepts, together and each alone.

    Where it only stacks, all are as long as `like`.

    Args:
        model: tells the vocabulary, and the lengths at which it may behave otherwise.
        like: a real example, of which types, names and shapes are read.
        collate: makes a batch of them.

    Returns:
        Four examples, one with as much to learn as the third, and one of each such length.

    Raises:
        PrivacyError: they cannot be invented.
    """
    longer = [replace(_LONG, length=length) for length in lengths_of_change(model)]
    every = (*_PARTS, _TWIN)
    for parts, fixed in (((*every, *longer), None), (every, _tokens_of(like))):
        examples = _invented(model=model, like=like, parts=parts, fixed=fixed)
        try:
            for batch in (examples, *([each] for each in examples)):
                collate(batch)
        except Exception as error:  # a collator may raise what it likes
            refusal = f"{type(error).__name__}: {error}"
        else:
            four = len(_PARTS)
            return examples[:four], examples[four], examples[four + 1 :]
    raise PrivacyError(f"the collate function refuses invented examples ({refusal}); {_REMEDY}")


def lengths_of_change(model: nn.Module) -> list[int]:
    """One token more than every length at which a model's configuration may change behaviour.

    Lengths whose rows would take long to run are left out.
    """
    config = getattr(model, "config", None)
    find = getattr(config, "get_text_config", None)
    settings = vars(config if find is None else find()) if config is not None else {}
    longest = min(_LONGEST_TRIED, settings.get("max_position_embeddings") or _LONGEST_TRIED)
    named = [settings.get(name) for name in _LENGTHS_OF_CHANGE]
    lengths = {int(value) + 1 for value in named if isinstance(value, int)}
    return sorted(length for length in lengths if _LONG.length < length <= longest)


def _invented(
    *,
    model: nn.Module,
    like: Any,
    parts: Sequence[_Part],
    fixed: int | None,
    classes: int | None = None,
    seed: int = 0,
) -> list[Any]:
    if isinstance(like, Mapping) and SEQUENCE_IDS in like:
        return _invented_sequences(model=model, like=like, parts=parts)
    generator = np.random.default_rng(seed)
    tokens = _tokens_of(like)
    inventors = [_Inventor(model, tokens, part, fixed, generator, classes) for part in parts]
    return [each.example(like) for each in inventors]


def _invented_sequences(
    *, model: nn.Module, like: Mapping[str, Any], parts: Sequence[_Part]
) -> list[Any]:
    """Examples of as many sequences as `like` has, each of other words and a token longer."""
    sequences = [
        _invented(
            model=model,
            like=sequence,
            parts=[replace(part, length=part.length + at) for part in parts],
            fixed=None,
            seed=at,
        )
        for at, sequence in enumerate(parted(like))
    ]
    by_token = {SEQUENCE_IDS, *parted(like)[0]}
    others = {name: value for name, value in like.items() if name not in by_token}
    of_example = _invented(model=model, like=others, parts=parts, fixed=None)
    return [joined(each) | other for *each, other in zip(*sequences, of_example, strict=True)]


def _tokens_of(like: Any) -> int | None:
    """How many tokens an example has, by its input ids, or none where it has no such field."""
    ids = like.get("input_ids") if isinstance(like, Mapping) else None
    if ids is not None and np.ndim(ids) == 1:
        return len(ids)
    return None


class _Inventor:
    """Invents one example, field by field.

    Args:
        model: tells the vocabulary.
        tokens: how many the real example has.
        part: what the invented one is to be like.
        fixed: the length that all sequences must have, if collating only stacks.
        generator: of what is left open.
        classes: how many values a token's label may have, where it is no word.
    """

    def __init__(
        self,
        model: nn.Module,
        tokens: int | None,
        part: _Part,
        fixed: int | None,
        generator: np.random.Generator,
        classes: int | None,
    ) -> None:
        self._labels = classes
        self._model = model
        self._tokens = tokens
        self._part = part
        self._length = part.length if fixed is None else fixed
        self._filled = self._length if fixed is None else max(2, round(part.filled * fixed))
        self._generator = generator
        self._words = _words_of(model)
        self._ids = self._token_ids()

    def example(self, like: Any) -> Any:
        """One with the fields of `like`, a mapping, a tuple or a single value."""
        if isinstance(like, Mapping):
            return {key: self._field(str(key), value) for key, value in like.items()}
        if isinstance(like, tuple):
            fields = [self._field(f"number {at}", value) for at, value in enumerate(like)]
            return type(like)(*fields) if hasattr(like, "_fields") else tuple(fields)
        if isinstance(like, Tensor | np.ndarray):
            return self._field("example", like)
        raise PrivacyError(
            f"cannot make up examples like a {type(like).__name__} for the coupling probe; "
            f"{_REMEDY}"
        )

    def _field(self, key: str, value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, str):
            return self._text()
        if type(value).__module__.partition(".")[0] == "PIL":
            return self._picture(value)
        shape, kind = _shape_and_kind(value)
        if kind is None:
            raise PrivacyError(
                f"cannot make up the field {key!r} for the coupling probe; {_REMEDY}"
            )
        if kind == "U":
            return [self._word(at) for at in range(self._length)]
        return _in_the_type_of(value, self._numbers(key, shape, kind))

    def _numbers(self, key: str, shape: tuple[int, ...], kind: str) -> np.ndarray[Any, Any]:
        part = self._part
        if shape and self._is_by_token(key, shape):
            shape = (self._length, *shape[1:])
            named = self._sequence(key) if len(shape) == 1 and kind in "iub" else None
            if named is not None:
                return np.asarray(named)
        if kind == "u":
            return 255 * part.level * self._generator.uniform(0.5, 1.0, size=shape)
        if kind == "f":
            return part.level * self._generator.uniform(0.5, 1.0, size=shape)
        if not shape:
            return np.asarray(part.category)
        return self._generator.integers(_CLASSES, size=shape)

    def _is_by_token(self, key: str, shape: tuple[int, ...]) -> bool:
        """Whether a field has one entry a token, so that its length goes with the tokens'."""
        if key == "input_ids":
            return True
        return self._tokens is not None and len(shape) < 3 and shape[0] in (0, self._tokens)

    def _sequence(self, key: str) -> list[int] | None:
        """A sequence whose name says what it holds; none for one that is not known."""
        length, filled = self._length, self._filled
        unlearned = min(round(self._part.unlearned * filled), filled - 2)
        padding = length - filled
        if key == "input_ids":
            return [*self._ids, *[_padding_of(self._model)] * padding]
        if key == "position_ids":
            return list(range(length))
        if "attention_mask" in key:
            return [1] * filled + [0] * padding
        if key == "token_type_ids" or key.startswith("special"):
            return [0] * length
        if key.endswith(("mask", "masks")):  # completion_mask: which tokens are learned
            return [0] * unlearned + [1] * (filled - unlearned) + [0] * padding
        if key.startswith("label"):
            labels = self._ids if self._predicts_words else self._classes(filled)
            return [*[IGNORED] * unlearned, *labels[unlearned:], *[IGNORED] * padding]
        return None

    def _token_ids(self) -> list[int]:
        words = self._words[:1] if self._part.easy else self._words
        return [int(i) for i in self._generator.choice(words, size=self._filled)]

    def _classes(self, length: int) -> list[int]:
        return [int(i) for i in self._generator.integers(self._labels or _CLASSES, size=length)]

    @property
    def _predicts_words(self) -> bool:
        head = getattr(self._model, "get_output_embeddings", lambda: None)
        return self._labels is None and head() is not None

    def _text(self) -> str:
        """Of as many words as there would be tokens; the long one is the longest in tokens too."""
        many = 40 if self._part.length == _LONG.length else self._part.length
        if self._part.easy:
            many = 2 * self._part.length
        return " ".join(self._word(at) for at in range(many))

    def _word(self, at: int) -> str:
        if self._part.easy:
            return "the"
        if self._part.unlearned == 0.0:
            return _CODES[(-at if self._part.level < 0.5 else at) % len(_CODES)]
        return _WORDS[(at + self._part.length) % len(_WORDS)]

    def _picture(self, like: Any) -> Any:
        values = self._part.level * self._generator.uniform(0, 255, size=(*like.size[::-1], 3))
        return _pictures().fromarray(values.astype(np.uint8)).convert(like.mode)


def _pictures() -> Any:
    from PIL import Image

    return Image


def _shape_and_kind(value: Any) -> tuple[tuple[int, ...], str | None]:
    """The shape of a number or an array, and what it holds; None if that cannot be invented.

    b truth, i whole numbers, f others, u a picture's bytes, U a list of words.
    """
    if isinstance(value, Tensor):
        kind = "f" if value.is_floating_point() else "b" if value.dtype == torch.bool else "i"
        is_picture = value.dtype == torch.uint8 and value.ndim > 1
        return tuple(value.shape), None if value.is_complex() else "u" if is_picture else kind
    try:
        array = np.asarray(value)
    except ValueError:  # lists of lists of different lengths
        return (), None
    if array.size == 0 and isinstance(value, list):
        return array.shape, "i"
    kind = array.dtype.kind
    if kind == "u":
        is_picture = array.dtype == np.uint8 and array.ndim > 1
        return array.shape, "u" if is_picture else "i"
    texts = kind == "U" and array.ndim == 1
    return array.shape, kind if kind in "bif" or texts else None


def _in_the_type_of(value: Any, invented: np.ndarray[Any, Any]) -> Any:
    if isinstance(value, Tensor):
        return torch.as_tensor(invented).to(value)
    if isinstance(value, np.ndarray | np.generic):
        made = np.asarray(invented, dtype=value.dtype)
        return made if isinstance(value, np.ndarray) else made[()]
    if isinstance(value, bool):
        return bool(invented)
    return type(value)(invented) if np.ndim(value) == 0 else invented.tolist()


def _words_of(model: nn.Module) -> np.ndarray[Any, Any]:
    """The ids of a vocabulary, but for those that mean something of their own."""
    embeddings = word_embeddings(model)
    size = int(getattr(embeddings, "num_embeddings", _CLASSES))
    words = np.arange(size)
    config = getattr(model, "config", None)
    names = ("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id")
    special = [np.ravel(getattr(config, name, None) or 0) for name in names]
    others = np.setdiff1d(words, np.concatenate(special))
    return others if len(others) >= _CLASSES else words


def word_embeddings(model: nn.Module) -> Any:
    """The module that looks up a model's tokens; None where it has none."""
    try:
        return getattr(model, "get_input_embeddings", lambda: None)()
    except NotImplementedError:
        return None


def _padding_of(model: nn.Module) -> int:
    found = getattr(getattr(model, "config", None), "pad_token_id", None)
    return 0 if found is None or found < 0 else int(found)
