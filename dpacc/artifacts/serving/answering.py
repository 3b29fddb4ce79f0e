"""What a finished run's adapter says to records: classes with their probabilities, or a text.

Nothing here is private: what is said to a record is computed from it without noise. A run's
guarantee is that of its training data alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from dpacc.artifacts.synthetic.generation import Sampling, write_batch
from dpacc.artifacts.synthetic.requests import prompt_name, request_for
from dpacc.artifacts.synthetic.sources import chat_complaint, given_fields
from dpacc.data.labelling import tokenize_classes, tokenize_tags
from dpacc.data.record_files import read_lines
from dpacc.data.records import FieldType, Record, checked_records, read_records
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.examples import pad_examples, with_one_prompt
from dpacc.recipe.predictions import answer_probabilities, class_probabilities

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Answer = dict[str, Any]


def read_questions(*, source: str | Iterable[str], config: TrainingConfig) -> list[Record]:
    """Records with what training read of them; labels and completions are not needed.

    Args:
        source: a file, or lines of JSON, such as standard input.
        config: of the run: the names of the fields.

    Raises:
        ConfigurationError: they cannot be read, or lack a field.
    """
    fields, optional = _asked(config)
    complaint = _words_complaint if config.task == "token-classification" else chat_complaint
    told: dict[str, Any] = {"fields": fields, "optional": optional, "complaint": complaint}
    if isinstance(source, str):
        return read_records(
            source=source, split=config.train_split, subset=config.data_subset, **told
        )
    name = "standard input"
    return checked_records(places=read_lines(lines=source, source=name), source=name, **told)


def answers_to(
    *,
    records: Sequence[Record],
    config: TrainingConfig,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    sampling: Sampling | None,
    batch_size: int,
) -> Iterator[Answer]:
    """What the model says to each record, in their order.

    A text gets a `label`, words get `labels` (null where they were cut off), and a prompt whose
    `answers` were learned an `answer`, each with probabilities. Any other gets the `text` that
    follows, and whether it `ended` there.

    Args:
        records: what `read_questions` returns.
        config: of the run.
        model: the base with the run's adapter.
        tokenizer: what training read the texts with.
        sampling: how text is written; None where classes or answers are chosen among.
        batch_size: records that are read at once.
    """
    for number, start in enumerate(range(0, len(records), batch_size)):
        batch = records[start : start + batch_size]
        if config.task == "sequence-classification":
            yield from _classes(batch, config, model, tokenizer)
        elif config.task == "token-classification":
            yield from _tags(batch, config, model, tokenizer)
        elif config.answers is not None:
            yield from _chosen(batch, config, model, tokenizer)
        else:
            assert sampling is not None
            yield from _texts(batch, config, model, tokenizer, sampling, number)


def _asked(config: TrainingConfig) -> tuple[dict[str, FieldType], dict[str, FieldType]]:
    if config.task == "token-classification":
        return {config.words_field: list}, {}
    return given_fields(config=config)


def _words_complaint(record: Record) -> str | None:
    ((field, words),) = record.items()
    return None if all(isinstance(word, str) for word in words) else f"{field!r} must hold texts"


def _classes(
    records: Sequence[Record], config: TrainingConfig, model: Any, tokenizer: Any
) -> Iterator[Answer]:
    labels = config.labels or ()
    examples = tokenize_classes(
        records=[record | {config.label_field: 0} for record in records],
        tokenizer=tokenizer,
        max_length=config.max_length,
        text_field=config.text_field,
        label_field=config.label_field,
        labels=labels,
    )
    for (shares,) in _probabilities(examples, config, model, tokenizer):
        yield {"label": _likeliest(shares, labels), "probabilities": _named(shares, labels)}


def _tags(
    records: Sequence[Record], config: TrainingConfig, model: Any, tokenizer: Any
) -> Iterator[Answer]:
    labels, words = config.labels or (), config.words_field
    examples = tokenize_tags(
        records=[record | {config.label_field: [0] * len(record[words])} for record in records],
        tokenizer=tokenizer,
        max_length=config.max_length,
        words_field=words,
        label_field=config.label_field,
        labels=labels,
    )
    found = _probabilities(examples, config, model, tokenizer)
    for record, rows in zip(records, found, strict=True):
        cut: list[None] = [None] * (len(record[words]) - len(rows))
        yield {
            "labels": [*(_likeliest(shares, labels) for shares in rows), *cut],
            "probabilities": [*(_named(shares, labels) for shares in rows), *cut],
        }


def _chosen(
    records: Sequence[Record], config: TrainingConfig, model: Any, tokenizer: Any
) -> Iterator[Answer]:
    answers, prompt = config.answers or (), str(prompt_name(config=config))
    found = answer_probabilities(
        model=model,
        tokenizer=tokenizer,
        prompts=[with_one_prompt(each, prompt)[prompt] for each in records],
        answers=answers,
        collate=partial(pad_examples, pad_token_id=tokenizer.pad_token_id),
        max_length=config.max_length,
        max_tokens=config.micro_batch_tokens,
    )
    for shares in found.tolist():
        yield {"answer": _likeliest(shares, answers), "probabilities": _named(shares, answers)}


def _texts(
    records: Sequence[Record],
    config: TrainingConfig,
    model: Any,
    tokenizer: Any,
    sampling: Sampling,
    number: int,
) -> Iterator[Answer]:
    requests = [request_for(fields=each, config=config, tokenizer=tokenizer) for each in records]
    written = write_batch(
        model=model, tokenizer=tokenizer, requests=requests, sampling=sampling, number=number
    )
    for each in written:
        text = str(tokenizer.decode(each.tokens, skip_special_tokens=True))
        yield {"text": text, "ended": each.ended}


def _probabilities(
    examples: Any, config: TrainingConfig, model: Any, tokenizer: Any
) -> list[list[list[float]]]:
    return class_probabilities(
        model=model,
        examples=examples,
        collate=partial(pad_examples, pad_token_id=tokenizer.pad_token_id),
        max_tokens=config.micro_batch_tokens,
    )


def _named(shares: Sequence[float], names: Sequence[str]) -> dict[str, float]:
    return dict(zip(names, shares, strict=True))


def _likeliest(shares: Sequence[float], names: Sequence[str]) -> str:
    return max(zip(shares, names, strict=True), key=lambda pair: pair[0])[1]
