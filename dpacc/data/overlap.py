"""Whether data that no guarantee covers holds private examples: compared by what they say.

Metrics on an example, and whatever else is computed from it without noise, tell about it exactly.
So held-out and public data may share no example with the private data, and no privacy unit. Token
ids are compared without their padding, texts without case, spaces and invisible characters; labels,
and which object holds an example, do not matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dpacc.errors import ConfigurationError
from dpacc.data.privacy_units import normalised

_LABELS = frozenset({"label", "labels", "label_ids", "weight"})
_TOKENS, _MASK = "input_ids", "attention_mask"


def shared_examples(*, private: Iterable[Any], others: Iterable[Any]) -> int:
    """How many of the other examples stand among the private ones too.

    Args:
        private: the private examples; a dataset by index, or anything that can be gone through.
        others: the same of data that no guarantee covers.

    Raises:
        ConfigurationError: the two have no field in common, so nothing can be compared.

    >>> private = [{"input_ids": [5, 6], "labels": [5, 6]}, {"input_ids": [7]}]
    >>> shared_examples(private=private, others=[{"input_ids": [7, 0], "attention_mask": [1, 0]}])
    1
    """
    fields = _common_fields(private, others)
    known = [_digest(example, fields) for example in _each(others)]
    wanted = set(known)
    found = {digest for each in _each(private) if (digest := _digest(each, fields)) in wanted}
    return sum(digest in found for digest in known)


def shared_units(*, private: Iterable[Any], others: Iterable[Any]) -> int:
    """How many owners of other examples own private ones too, by `normalised` names.

    >>> shared_units(private=["Ann", "Bob"], others=["ann ", "Eve"])
    1
    """
    protected = {normalised(str(owner)) for owner in private}
    return len(protected & {normalised(str(owner)) for owner in others})


def require_apart(
    *,
    private: Iterable[Any],
    held_out: Iterable[Any],
    what: str,
    remedy: str,
    owners: Iterable[Any] = (),
    held_out_owners: Iterable[Any] = (),
) -> None:
    """Refuse held-out data that holds private examples, or others of somebody who is protected.

    Args:
        private: the private examples; a dataset by index, or anything that can be gone through.
        held_out: the held-out ones.
        what: what the held-out data is called.
        remedy: what to do beside naming other data.
        owners: whose the private examples are.
        held_out_owners: whose the held-out ones are, as far as that is known.

    Raises:
        ConfigurationError: they share an example or an owner, or cannot be compared.
    """
    same = shared_examples(private=private, others=held_out)
    if same:
        raise ConfigurationError(
            f"{what}: {same} of its examples stand in the private training data too, and metrics "
            f"tell of them without noise; leave them out of one of the two, or {remedy}"
        )
    people = shared_units(private=owners, others=held_out_owners)
    if people:
        raise ConfigurationError(
            f"{what}: {people} of its owners own private training examples too, and metrics tell "
            f"of them without noise; hold out everything that they own, or {remedy}"
        )


OVERLAP_NOTE = (
    "non-private-metrics",
    "metrics were computed without noise on held-out data that holds private training examples, or "
    "others of protected units",
)
"""What the ledger says where such metrics were asked for: subject and text."""


def _common_fields(private: Iterable[Any], others: Iterable[Any]) -> tuple[str, ...] | None:
    """The fields to compare by: token ids where both have them; None for examples without fields.

    A private example decides for all: examples of one data set are alike.
    """
    one, other = next(_each(private), None), next(_each(others), None)
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return None
    if _TOKENS in one and _TOKENS in other:
        return (_TOKENS,)
    common = tuple(sorted((set(one) & set(other)) - _LABELS - {_MASK}))
    if not common:
        raise ConfigurationError(
            "held-out and private examples have no field in common, so it cannot be seen whether "
            "they are the same; prepare both in the same way"
        )
    return common


def _each(examples: Iterable[Any]) -> Iterator[Any]:
    by_place: Any = examples
    if hasattr(by_place, "__getitem__") and hasattr(by_place, "__len__"):
        return (by_place[place] for place in range(len(by_place)))
    return iter(examples)


def _digest(example: Any, fields: tuple[str, ...] | None) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    if fields is None:
        _add(digest, example)
    elif fields == (_TOKENS,):
        _add(digest, _real_tokens(example))
    else:
        for name in fields:
            _add(digest, example.get(name))
    return digest.digest()


def _real_tokens(example: Mapping[str, Any]) -> Any:
    tokens = np.asarray(example[_TOKENS])
    mask = np.asarray(example.get(_MASK, np.ones_like(tokens)))
    return tokens[mask.astype(bool)] if mask.shape == tokens.shape else tokens


def _add(digest: Any, value: Any) -> None:
    if isinstance(value, str):
        _put(digest, b"text", normalised(value).encode("utf-8", "surrogatepass"))
    elif isinstance(value, bytes):
        _put(digest, b"bytes", value)
    elif isinstance(value, Mapping):
        for name in sorted(value, key=repr):
            _add(digest, str(name))
            _add(digest, value[name])
        _put(digest, b"end", b"")
    elif isinstance(value, Sequence) and not _is_numeric(value):
        for item in value:
            _add(digest, item)
        _put(digest, b"end", b"")
    elif _is_numeric(value):
        array = np.asarray(value)
        _put(digest, str(array.shape).encode(), array.astype(np.float64).tobytes())
    elif value is None:
        _put(digest, b"none", b"")
    else:
        _add(digest, vars(value) if hasattr(value, "__dict__") else repr(value))


def _is_numeric(value: Any) -> bool:
    try:
        return np.asarray(value).dtype.kind in "biuf"
    except (TypeError, ValueError, RuntimeError):
        return False


def _put(digest: Any, kind: bytes, content: bytes) -> None:
    digest.update(kind + len(content).to_bytes(8, "big") + content)
