"""Canaries whose echo is looked for in synthetic text, with nothing else of the run in sight.

A canary of random tokens alone has no effect on what a model writes when it is asked for usual
text. One that begins like public text and goes on with words that nobody would say leaves traces
there, if it was learned (Meeus et al. 2025, arXiv 2502.14921). Scores come from the synthetic texts
by an n-gram model.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence

import numpy as np

from dpacc.artifacts.synthetic.likeness import Words, texts_of
from dpacc.audit.verdict import Scores
from dpacc.data.records import Record
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig


def echoing_records(
    *, public: Sequence[Record], config: TrainingConfig, canaries: int, begun: int, words: int
) -> list[Record]:
    """Records that begin as public ones do, and go on with random words of public ones.

    Args:
        public: records of the training data's form that are nobody's secret.
        config: names the fields; its seed draws beginnings and words.
        canaries: how many.
        begun: words of a public text that each begins with.
        words: how many follow, drawn uniformly from all different words of the public texts.

    Raises:
        ConfigurationError: what the model writes is not text, or is one of a few answers.
    """
    field = config.completion_field or config.text_field
    if config.messages_field is not None or config.answers is not None:
        raise ConfigurationError(
            "canaries are texts and completions: chats and answers are not audited by what is "
            "written; leave messages_field and answers out"
        )
    if any(not isinstance(record[field], str) for record in public):
        raise ConfigurationError(f"field {field!r} holds messages, which hold no canaries here")
    draw = random.Random(config.seed)
    known = sorted({word for record in public for word in record[field].split()})
    if not known:
        raise ConfigurationError("the held-out texts hold no word that canaries could be made of")
    made = []
    for _ in range(canaries):
        like = draw.choice(public)
        text = [*like[field].split()[:begun], *draw.choices(known, k=words)]
        made.append({**like, field: " ".join(text)})
    return made


class NgramModel:
    """p(w | h) = (count(h, w) + p(w | h without its first word)) / (count(h) + 1), and so on.

    Beneath single words lies a uniform law over the vocabulary: of a hierarchical Dirichlet prior
    with concentration 1 the predictive law, given the counts (MacKay & Peto 1995).

    Args:
        texts: that are counted, each with its end.
        vocabulary: how many words there are, with the end.
        n: words of an n-gram.

    >>> model = NgramModel([("a", "b")], vocabulary=4, n=1)
    >>> round(math.exp(model.log_probability(("a",))) * 16**2, 9)  # a, and the end
    25.0
    """

    def __init__(self, texts: Sequence[Words], *, vocabulary: int, n: int) -> None:
        self._vocabulary, self._n = vocabulary, n
        self._counts: Counter[Words] = Counter()
        self._begun: Counter[Words] = Counter()
        for text in texts:
            for history, word in self._steps(text):
                for start in range(len(history) + 1):
                    self._counts[*history[start:], word] += 1
                    self._begun[history[start:]] += 1

    def log_probability(self, text: Words) -> float:
        """Σ ln p(word | up to n−1 words before it), with the text's end."""
        return sum(math.log(self._probability(*step)) for step in self._steps(text))

    def _probability(self, history: Words, word: str) -> float:
        found = 1 / self._vocabulary
        for start in range(len(history), -1, -1):
            seen = history[start:]
            found = (self._counts[*seen, word] + found) / (self._begun[seen] + 1)
        return found

    def _steps(self, text: Words) -> list[tuple[Words, str]]:
        # No word holds a space, so that these are none.
        padded = (*[" begins"] * (self._n - 1), *text, " ends")
        first = self._n - 1
        return [(padded[at - first : at], padded[at]) for at in range(first, len(padded))]


def echo_scores(
    *,
    canaries: Sequence[Record],
    synthetic: Sequence[Record],
    public: Sequence[Record],
    config: TrainingConfig,
    n: int = 2,
) -> Scores:
    """[m], how much likelier each canary is by the synthetic texts than by public ones.

    Nothing but the synthetic texts depends on who took part.

    Args:
        canaries: in or not.
        synthetic: all that the attacker sees.
        public: of the same form, as what would be said anyway.
        config: names the fields.
        n: words of an n-gram.

    Returns:
        ln p(canary | n-grams of the synthetic texts) − the same of the public ones.
    """
    asked, ours, theirs = (
        texts_of(records=records, config=config) for records in (canaries, synthetic, public)
    )
    vocabulary = 1 + len({word for text in (*asked, *ours, *theirs) for word in text})
    written, said = (NgramModel(texts, vocabulary=vocabulary, n=n) for texts in (ours, theirs))
    return np.array([written.log_probability(t) - said.log_probability(t) for t in asked])
