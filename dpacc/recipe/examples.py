"""From a configuration to tokens: what each example shows and what it teaches.

Errors name the file, the line and the field, and never the content of a record: it is private.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from dpacc.data.chats import pair_complaint, tools_complaint, turn_complaint
from dpacc.data.labelling import class_complaint, tag_complaint, tokenize_classes, tokenize_tags
from dpacc.data.pairs import CHOSEN, REJECTED, preference_complaint, tokenize_pairs
from dpacc.data.privacy_units import owners_of
from dpacc.data.records import TEXT_OR_MESSAGES, FieldType, Record, read_records
from dpacc.data.sequences import SEQUENCE_IDS, parted
from dpacc.data.supervision import IGNORED, TOOLS_FIELD, Example, tokenize_examples
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

Held = TypeVar("Held")


def load_training_examples(
    *, config: TrainingConfig, tokenizer: PreTrainedTokenizerBase
) -> list[Example]:
    """Read and tokenize the private examples that the configuration names.

    Raises:
        ConfigurationError: they cannot be read, lack a field, there are none, or none of them
            teaches anything.
    """
    records = read_training_records(config=config)
    examples = _tokenize(records, config=config, tokenizer=tokenizer)
    if not any(map(teaches, examples)):
        raise ConfigurationError(_nothing_to_learn(config))
    return examples


def read_training_records(*, config: TrainingConfig) -> list[Record]:
    """The private records, each with the fields that the configuration names, and no tokens yet.

    Raises:
        ConfigurationError: they cannot be read, lack a field, or there are none.
    """
    return _read(config.train_data, config.train_split, config=config)


def load_units(*, config: TrainingConfig) -> list[Hashable] | None:
    """Whose each private example is, in the order of `load_training_examples`.

    Returns:
        Nothing when the configuration names no unit field: every example is then its own unit.

    Raises:
        ConfigurationError: a record lacks the field, or the owners are none that
            [`owners_of`][dpacc.data.privacy_units.owners_of] takes.
    """
    if config.unit_field is None:
        return None
    records = read_records(
        source=config.train_data,
        fields={config.unit_field: str | int | list},  # lists are refused with the remedy below
        split=config.train_split,
        subset=config.data_subset,
    )
    try:
        return owners_of([record[config.unit_field] for record in records])
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{config.train_data}, field {config.unit_field!r}, records counted from 0: {error}"
        ) from None


def load_held_out_units(*, config: TrainingConfig) -> list[Hashable]:
    """Whose held-out examples are, as far as their records name somebody in the unit field."""
    if config.unit_field is None or config.held_out_data is None:
        return []
    records = read_records(
        source=config.held_out_data,
        fields={},
        optional={config.unit_field: str | int},
        split=config.held_out_split,
        subset=config.data_subset,
    )
    named = chosen([record.get(config.unit_field) for record in records], config=config)
    return [owner for owner in named if owner is not None]


def load_held_out_examples(
    *, config: TrainingConfig, tokenizer: PreTrainedTokenizerBase
) -> list[Example]:
    """Read and tokenize the held-out examples, `held_out_examples` of them chosen by the seed.

    Returns:
        Nothing when the configuration names no held-out data.

    Raises:
        ConfigurationError: they cannot be read, lack a field, or there are none.
    """
    return _tokenize(read_held_out_records(config=config), config=config, tokenizer=tokenizer)


def read_held_out_records(*, config: TrainingConfig) -> list[Record]:
    """The held-out records, `held_out_examples` of them chosen by the seed; none if none are named.

    Raises:
        ConfigurationError: they cannot be read, lack a field, or there are none.
    """
    if config.held_out_data is None:
        return []
    records = _read(config.held_out_data, config.held_out_split, config=config)
    return chosen(records, config=config)


def chosen(held_out: Sequence[Held], *, config: TrainingConfig) -> list[Held]:
    """The `held_out_examples` of all, the same ones for the same seed."""
    wanted = min(config.held_out_examples or len(held_out), len(held_out))
    return random.Random(config.seed).sample(held_out, wanted)


def teaches(example: Example) -> bool:
    """Whether an example has a label to learn; a text's first token is never predicted.

    >>> teaches({"input_ids": [5, 6], "labels": [5, IGNORED]}), teaches({"labels": 0})
    (False, True)
    """
    labels = example["labels"]
    return isinstance(labels, int) or any(label != IGNORED for label in labels[1:])


def pad_examples(
    examples: Sequence[Mapping[str, Any]], *, pad_token_id: int, pad_to_multiple_of: int = 1
) -> dict[str, torch.Tensor]:
    """Collate examples into one batch, padded on the right to the longest of them.

    Lists become [examples, tokens]: `labels` padded with -100, `input_ids` with `pad_token_id`,
    others with 0. Numbers, such as the class of an example, become [examples]. Of examples of
    several sequences ([`dpacc.data.sequences`][]) lists become [examples, sequences, tokens].
    `partial(pad_examples, pad_token_id=...)` is a collate function.

    Raises:
        ConfigurationError: examples of several sequences do not all have as many.

    >>> batch = pad_examples([{"input_ids": [5, 6]}, {"input_ids": [7]}], pad_token_id=0)
    >>> batch["input_ids"].tolist(), batch["attention_mask"].tolist()
    ([[5, 6], [7, 0]], [[1, 1], [1, 0]])
    """
    import torch

    if SEQUENCE_IDS in examples[0]:
        return _padded_sequences(examples, pad_token_id, pad_to_multiple_of)
    masked = [{"attention_mask": [1] * len(each["input_ids"]), **each} for each in examples]
    longest = max(len(each["input_ids"]) for each in masked)
    width = -(-longest // pad_to_multiple_of) * pad_to_multiple_of
    padding = {"input_ids": pad_token_id, "labels": IGNORED}
    return {
        name: torch.tensor([_padded(each[name], width, padding.get(name, 0)) for each in masked])
        for name in masked[0]
    }


def _padded_sequences(
    examples: Sequence[Mapping[str, Any]], pad_token_id: int, pad_to_multiple_of: int
) -> dict[str, torch.Tensor]:
    """One batch of all rows, in which each example's stand together; and the examples' numbers."""
    import torch

    sequences = [parted(example) for example in examples]
    each = len(sequences[0])
    if any(len(rows) != each for rows in sequences):
        raise ConfigurationError(
            f"an example has {each} sequences and another has not: give all of them as many"
        )
    rows = pad_examples(
        [row for rows in sequences for row in rows],
        pad_token_id=pad_token_id,
        pad_to_multiple_of=pad_to_multiple_of,
    )
    batch = {name: value.view(-1, each, value.shape[1]) for name, value in rows.items()}
    numbers = [name for name, value in examples[0].items() if not isinstance(value, Sequence)]
    return batch | {name: torch.tensor([e[name] for e in examples]) for name in numbers}


def _padded(values: Any, width: int, padding: int) -> Any:
    if not isinstance(values, Sequence):
        return values
    return [*values, *[padding] * (width - len(values))]


# --- reading ------------------------------------------------------------------------------


def _read(source: str, split: str, *, config: TrainingConfig) -> list[Record]:
    fields, optional = _fields(config)
    records = read_records(
        source=source,
        fields=fields,
        split=split,
        subset=config.data_subset,
        complaint=partial(_complaint, config),
        optional=optional,
    )
    if config.prompt_field is None:
        return records
    return [with_one_prompt(record, config.prompt_field) for record in records]


def _fields(config: TrainingConfig) -> tuple[dict[str, FieldType], dict[str, FieldType]]:
    """The fields that every record must have, and those that it may have."""
    if config.task == "sequence-classification":
        return {config.text_field: str, config.label_field: str | int}, {}
    if config.task == "token-classification":
        return {config.words_field: list, config.label_field: list}, {}
    if config.task == "preference":
        return dict.fromkeys((config.pair_prompt, CHOSEN, REJECTED), TEXT_OR_MESSAGES), {}
    if config.messages_field is not None:
        return {config.messages_field: list}, {TOOLS_FIELD: list | str}
    if config.prompt_field is not None and config.completion_field is not None:
        prompt, *more = config.prompt_field.split(",")
        if more:
            return {prompt: str, config.completion_field: str}, dict.fromkeys(more, str)
        return {prompt: TEXT_OR_MESSAGES, config.completion_field: TEXT_OR_MESSAGES}, {
            TOOLS_FIELD: object
        }
    return {config.text_field: str}, {}


def with_one_prompt(record: Record, prompt_field: str) -> Record:
    """A record with all parts of its prompt as one text that ends with a blank line.

    A prompt that is one field stays as it is.

    >>> with_one_prompt({"ask": "Who?", "input": "Ann"}, "ask,input")["ask,input"]
    'Who?\\n\\nAnn\\n\\n'
    """
    if "," not in prompt_field:
        return record
    parts = [record[name] for name in prompt_field.split(",") if record.get(name)]
    return record | {prompt_field: "".join(f"{part}\n\n" for part in parts)}


def _complaint(config: TrainingConfig, record: Record) -> str | None:
    labels: dict[str, Any] = {"label_field": config.label_field, "labels": config.labels or ()}
    if config.task == "sequence-classification":
        return class_complaint(record, **labels)
    if config.task == "token-classification":
        return tag_complaint(record, words_field=config.words_field, **labels)
    if config.task == "preference":
        return preference_complaint(record, prompt_field=config.pair_prompt)
    if config.messages_field is not None:
        chat = turn_complaint(record[config.messages_field])
        return chat or tools_complaint(record.get(TOOLS_FIELD))
    prompt, completion = config.prompt_field, config.completion_field
    if prompt is None or completion is None:
        return None
    if "," not in prompt:
        found = pair_complaint(record[prompt], record[completion], fields=(prompt, completion))
        if found is None and isinstance(record[prompt], list):
            found = tools_complaint(record.get(TOOLS_FIELD))
        if found is not None:
            return found
    if config.answers and record[completion] not in config.answers:
        return f"field {completion!r} is none of the answers"
    return None


# --- tokens -------------------------------------------------------------------------------


def _tokenize(
    records: Sequence[Record], *, config: TrainingConfig, tokenizer: PreTrainedTokenizerBase
) -> list[Example]:
    given: dict[str, Any] = {
        "records": records,
        "tokenizer": tokenizer,
        "max_length": config.max_length,
    }
    labels: dict[str, Any] = {"label_field": config.label_field, "labels": config.labels or ()}
    if config.task == "sequence-classification":
        return tokenize_classes(text_field=config.text_field, **labels, **given)
    if config.task == "token-classification":
        return tokenize_tags(words_field=config.words_field, **labels, **given)
    if config.task == "preference":
        return tokenize_pairs(prompt_field=config.pair_prompt, learn_end=config.learn_end, **given)
    return tokenize_examples(
        text_field=config.text_field,
        prompt_field=config.prompt_field,
        completion_field=config.completion_field,
        messages_field=config.messages_field,
        learn_end=config.learn_end,
        answers=config.answers,
        **given,
    )


def _nothing_to_learn(config: TrainingConfig) -> str:
    if config.messages_field is not None:
        why = "no chat holds words of the role `assistant` without `weight` 0"
    elif config.task == "token-classification":
        why = "no record holds a word"
    elif config.task == "preference":
        why = "no answer holds a token"
    elif config.completion_field is not None:
        why = "no completion holds a token, or words of the role `assistant` without `weight` 0"
    else:
        why = "no text holds two tokens"
    return f"{config.train_data} teaches nothing, and would spend the whole budget on it: {why}"
