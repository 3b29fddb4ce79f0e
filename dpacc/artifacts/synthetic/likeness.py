"""How synthetic texts look beside public ones: lengths, variety, words, labels, repeated n-grams.

All of it is counting of words, as `str.split` finds them, in lower case. Compared with public
held-out texts it costs nothing; compared with training texts it is private, and for their owner's
eyes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import mean, quantiles
from typing import Any

from dpacc.data.chats import read_turns
from dpacc.data.records import Record
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig

Words = tuple[str, ...]

# More different prompts or completions than these are texts, not labels.
_MOST_LABELS = 20
# Of records, for deciles and halves.
_FEWEST = 4


def texts_of(*, records: Sequence[Record], config: TrainingConfig) -> list[Words]:
    """The words of each record that a model learned to write: its text, completion or answers."""
    return [tuple(text.lower().split()) for text in written_texts(records=records, config=config)]


def written_texts(*, records: Sequence[Record], config: TrainingConfig) -> list[str]:
    """What a model learned to write of each record: its text, completion or answers."""
    field = config.messages_field or config.completion_field or config.text_field
    return [_text(record[field]) for record in records]


def labels_of(*, records: Sequence[Record], config: TrainingConfig) -> list[str] | None:
    """What stands in each record's prompt or completion, where there are at most 20 of them."""
    field = label_field_of(records=records, config=config)
    return None if field is None else [str(record[field]) for record in records]


def label_field_of(*, records: Sequence[Record], config: TrainingConfig) -> str | None:
    """The field, prompt or completion, that holds two to 20 different things; None without one."""
    for field in (config.prompt_field, config.completion_field):
        if field is None or field not in records[0]:
            continue
        if 2 <= len({str(record[field]) for record in records}) <= _MOST_LABELS:
            return field
    return None


def lengths_of(texts: Sequence[Words]) -> tuple[float, list[float]]:
    """Words of a text: the mean, and the first, fifth and ninth decile.

    >>> lengths_of([("a",) * n for n in range(1, 12)])
    (6, [2.0, 6.0, 10.0])
    """
    counts = [len(text) for text in texts]
    tenths = quantiles(counts, n=10, method="inclusive") if len(counts) > 1 else counts * 9
    return mean(counts), [float(tenths[at]) for at in (0, 4, 8)]


def distinct_ngrams(texts: Sequence[Words], *, n: int) -> float:
    """Different n-grams among all n-grams (distinct-n, arXiv 1510.03055); falls with more texts.

    >>> distinct_ngrams([("a", "b", "a", "b")], n=2)
    0.6666666666666666
    """
    found = Counter(ngram for text in texts for ngram in _ngrams(text, n))
    return len(found) / max(1, found.total())


def known_words(texts: Sequence[Words], *, others: Sequence[Words]) -> float:
    """The share of all words of `texts` that occur in `others`.

    >>> known_words([("a", "b"), ("a", "c")], others=[("a",)])
    0.5
    """
    known = {word for text in others for word in text}
    words = [word for text in texts for word in text]
    return sum(word in known for word in words) / max(1, len(words))


def repeated_ngrams(texts: Sequence[Words], *, others: Sequence[Words], n: int) -> float:
    """The share of texts that hold n words in a row that stand in one of `others`.

    >>> repeated_ngrams([("a", "b", "c"), ("a", "c")], others=[("x", "a", "b")], n=2)
    0.5
    """
    known = {ngram for text in others for ngram in _ngrams(text, n)}
    return mean(any(ngram in known for ngram in _ngrams(text, n)) for text in texts)


def compare(
    *, synthetic: Sequence[Record], held_out: Sequence[Record], config: TrainingConfig
) -> dict[str, dict[str, float]]:
    """Each figure of synthetic and of public texts, of equally many where it falls with more.

    Args:
        synthetic: records that were written.
        held_out: public records of the same form.
        config: of the run.

    Raises:
        ConfigurationError: fewer than four of either.
    """
    for name, records in (("synthetic", synthetic), ("held-out", held_out)):
        if len(records) < _FEWEST:
            raise ConfigurationError(
                f"{len(records)} {name} records are too few to compare: give at least {_FEWEST}"
            )
    ours = texts_of(records=synthetic, config=config)
    theirs = texts_of(records=held_out, config=config)
    half = len(theirs) // 2
    # The other half is the yardstick: what public texts know of public texts.
    found = {
        "synthetic": _figures(ours, asked=ours, known=theirs[:half]),
        "held-out": _figures(theirs, asked=theirs[half:], known=theirs[:half]),
    }
    for name, records in (("synthetic", synthetic), ("held-out", held_out)):
        labels = Counter(labels_of(records=records, config=config) or ())
        shares = {f"share of {label.strip()}": n for label, n in sorted(labels.items())}
        found[name] |= {label: n / labels.total() for label, n in shares.items()}
    size = min(len(ours), len(theirs))
    for n in (1, 2, 3):
        found["synthetic"][f"distinct {n}-grams"] = distinct_ngrams(ours[:size], n=n)
        found["held-out"][f"distinct {n}-grams"] = distinct_ngrams(theirs[:size], n=n)
    return found


def _figures(
    texts: Sequence[Words], *, asked: Sequence[Words], known: Sequence[Words]
) -> dict[str, float]:
    """Lengths, and how many of the words of those that are asked occur in other, public texts."""
    average, (low, middle, high) = lengths_of(texts)
    return {
        "words of a text, mean": average,
        "first decile": low,
        "median": middle,
        "ninth decile": high,
        "words that half of the held-out texts know": known_words(asked, others=known),
    }


def _text(value: Any) -> str:
    if isinstance(value, list):
        turns = read_turns(value)
        return " ".join(turn["content"] for turn in turns if turn["role"] == "assistant")
    return str(value)


def _ngrams(text: Words, n: int) -> Iterator[Words]:
    return (text[at : at + n] for at in range(len(text) - n + 1))


def columns(found: Mapping[str, Mapping[str, float]]) -> list[tuple[str, ...]]:
    """A table of what `compare` found, a row a figure; what one side lacks is a dash."""
    names = list(dict.fromkeys(name for figures in found.values() for name in figures))
    return [(name, *(_shown(figures.get(name)) for figures in found.values())) for name in names]


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
