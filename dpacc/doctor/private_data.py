"""What in the private data itself weakens its unit, or teaches nothing. For the owner's eyes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dpacc.data.privacy_units import normalised
from dpacc.data.sequences import lengths_of
from dpacc.doctor.finding import Finding
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.examples import (
    load_training_examples,
    load_units,
    read_training_records,
    teaches,
)
from dpacc.recipe.pretrained import load_tokenizer

IN_A_ROW = 13
"""So many words in a row of two texts are no chance, as usual where benchmarks are looked for in
training data (arXiv 2005.14165)."""
_WORD = re.compile(r"\w+")
_NO_LIMIT = 1 << 20


def data_findings(*, config: TrainingConfig) -> list[Finding]:
    """Look through what a configuration trains on; nothing of what it says is shown.

    Args:
        config: the data, its fields and its unit, and the model whose tokens are counted.

    Raises:
        ConfigurationError: the data is not there, or owners or the model are none.
    """
    try:
        records = read_training_records(config=config)
    except ConfigurationError as unusable:
        return [Finding(subject="records", healthy=False, words=str(unusable))]
    owners = load_units(config=config)
    texts = [" ".join(_strings(_told(record, config))) for record in records]
    units: Sequence[Hashable] = range(len(records)) if owners is None else owners
    return [
        Finding(subject="records", healthy=True, words=f"all {len(records)} can be read"),
        _repeated(texts, units, config.unit),
        _overlapping(texts, units, config.unit),
        *([] if owners is None else [_largest(owners, config)]),
        *_lengths(config),
    ]


def _told(record: Mapping[str, Any], config: TrainingConfig) -> list[Any]:
    """What of a record is text, without its class."""
    return [value for name, value in record.items() if name != config.label_field]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _strings([each for name, each in value.items() if name not in ("role", "from")])
    elif isinstance(value, list):
        for each in value:
            yield from _strings(each)


def _repeated(texts: Sequence[str], units: Sequence[Hashable], unit: str) -> Finding:
    """The same text of several units: what it says is not protected as one unit's."""
    by_text: dict[str, set[Hashable]] = {}
    for text, owner in zip(texts, units, strict=True):
        by_text.setdefault(normalised(text), set()).add(owner)
    by_text.pop("", None)
    shared = [owners for owners in by_text.values() if len(owners) > 1]
    if not shared:
        return Finding(
            subject="the same text twice", healthy=True, words=f"no two {unit}s have the same"
        )
    most = max(map(len, shared))
    return Finding(
        subject="the same text twice",
        healthy=False,
        words=f"{len(shared)} texts belong to several {unit}s, one of them to {most}: what it says "
        f"is protected as a group of {most} is, by an ε {most} times as large or more; keep one of "
        "each, or give them one owner",
    )


def _overlapping(texts: Sequence[str], units: Sequence[Hashable], unit: str) -> Finding:
    """Long runs of words that several units share, beside equal texts."""
    subject = f"{IN_A_ROW} words in a row"
    first: dict[int, int] = {}
    whole = [normalised(text) for text in texts]
    sharing: set[int] = set()
    for at, text in enumerate(texts):
        for window in _windows(text):
            other = first.setdefault(window, at)
            if units[other] != units[at] and whole[other] != whole[at]:
                sharing |= {at, other}
    if not sharing:
        return Finding(subject=subject, healthy=True, words=f"no two {unit}s share any")
    return Finding(
        subject=subject,
        healthy=False,
        words=f"{len(sharing)} of {len(texts)} records share some with another {unit}'s: what is "
        f"quoted, signed or copied so is protected less than one {unit}'s own words",
    )


def _windows(text: str) -> Iterator[int]:
    words = _WORD.findall(text.casefold())
    for start in range(len(words) - IN_A_ROW + 1):
        yield hash(tuple(words[start : start + IN_A_ROW]))


def _largest(owners: Sequence[Hashable], config: TrainingConfig) -> Finding:
    counts = Counter(owners)
    most, unit = max(counts.values()), config.unit
    remedy = (
        ""
        if config.unit_cap is not None
        else "; unit_cap bounds how many count, which costs no more noise"
    )
    return Finding(
        subject=f"records of one {unit}",
        healthy=2 * most <= len(owners),
        words=f"{len(counts)} {unit}s have {len(owners)} records, the one with most {most}{remedy}",
    )


def _lengths(config: TrainingConfig) -> list[Finding]:
    tokenizer = load_tokenizer(model=config.model)
    kept = config.max_length
    whole = replace(config, max_length=_NO_LIMIT)
    try:
        examples = load_training_examples(config=whole, tokenizer=tokenizer)
    except ConfigurationError as nothing:
        return [Finding(subject="nothing to learn", healthy=False, words=str(nothing))]
    empty = sum(not teaches(example) for example in examples)
    cut = sum(max(lengths_of(example)) > kept for example in examples)
    count = len(examples)
    return [
        Finding(
            subject="nothing to learn",
            healthy=empty == 0,
            words=f"{empty} of {count} records teach nothing, and count in N all the same",
        ),
        Finding(
            subject="cut",
            healthy=2 * cut <= count,
            words=f"{cut} of {count} records are longer than max_length={kept} tokens",
        ),
    ]
