"""Canaries in text: sentences of random tokens, and how far training lowered their losses.

Random tokens are what a model knows least about, so that one that was learned stands out. Whoever
has the base model and the adapter can score them: nothing else of the run is looked at.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from dpacc.data.supervision import IGNORED, Example


def random_texts(
    *, canaries: int, tokens: int, vocabulary: int, avoid: Collection[int] = (), seed: int = 0
) -> list[Example]:
    """m canaries of random tokens, none of them in `avoid` (the tokenizer's special ones).

    >>> texts = random_texts(canaries=2, tokens=3, vocabulary=50, avoid={0, 1})
    >>> [len(each["input_ids"]) for each in texts]
    [3, 3]
    """
    usable = np.setdiff1d(np.arange(vocabulary), np.array(sorted(avoid), dtype=int))
    drawn = np.random.default_rng(seed).choice(usable, size=(canaries, tokens))
    return [{"input_ids": ids, "labels": list(ids)} for ids in drawn.tolist()]


def left_out(example: Example) -> Example:
    """The same example with nothing to learn: it adds zero to every sum, and N stays the same.

    >>> left_out({"input_ids": [5, 6], "labels": [5, 6]})
    {'input_ids': [5, 6], 'labels': [-100, -100]}
    """
    return {**example, "labels": [IGNORED] * len(example["labels"])}
