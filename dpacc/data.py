"""From a file or a hub dataset to tokens: what each example shows and what it teaches.

Errors name the file, the line and the field, and never the content of a record: it is private.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar

from dpacc.config import TrainingConfig
from dpacc.errors import ConfigurationError
from dpacc.labelling import class_complaint, tag_complaint, tokenize_classes, tokenize_tags
from dpacc.supervision import IGNORED, Example, tokenize_examples, turn_complaint
from dpacc.unit_identity import owners_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

Record = dict[str, Any]
FieldType = type | UnionType
Held = TypeVar("Held")
Complaint = Callable[[Record], str | None]

_FILE_TYPES = (".jsonl", ".json", ".parquet", ".txt")


def load_training_examples(
    *, config: TrainingConfig, tokenizer: PreTrainedTokenizerBase
) -> list[Example]:
    """Read and tokenize the private examples that the configuration names.

    Raises:
        ConfigurationError: they cannot be read, lack a field, or there are none.
    """
    return _load(config.train_data, config.train_split, config=config, tokenizer=tokenizer)


def load_units(*, config: TrainingConfig) -> list[Hashable] | None:
    """Whose each private example is, in the order of `load_training_examples`.

    Returns:
        Nothing when the configuration names no unit field: every example is then its own unit.

    Raises:
        ConfigurationError: a record lacks the field, or the owners are none that
            [`owners_of`][dpacc.unit_identity.owners_of] takes.
    """
    if config.unit_field is None:
        return None
    records = read_records(
        source=config.train_data,
        fields={config.unit_field: str | int},
        split=config.train_split,
        subset=config.data_subset,
    )
    try:
        return owners_of([record[config.unit_field] for record in records])
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{config.train_data}, field {config.unit_field!r}, records counted from 0: {error}"
        ) from None


def load_held_out_examples(
    *, config: TrainingConfig, tokenizer: PreTrainedTokenizerBase
) -> list[Example]:
    """Read and tokenize the held-out examples, `held_out_examples` of them chosen by the seed.

    Returns:
        Nothing when the configuration names no held-out data.

    Raises:
        ConfigurationError: they cannot be read, lack a field, or there are none.
    """
    if config.held_out_data is None:
        return []
    examples = _load(
        config.held_out_data, config.held_out_split, config=config, tokenizer=tokenizer
    )
    return chosen(examples, config=config)


def chosen(held_out: Sequence[Held], *, config: TrainingConfig) -> list[Held]:
    """The `held_out_examples` of all, the same ones for the same seed."""
    wanted = min(config.held_out_examples or len(held_out), len(held_out))
    return random.Random(config.seed).sample(held_out, wanted)


def read_records(
    *,
    source: str,
    fields: Mapping[str, FieldType],
    split: str = "train",
    subset: str | None = None,
    complaint: Complaint | None = None,
) -> list[Record]:
    """Read the named fields of every record of a local file or a hub dataset.

    Args:
        source: a .jsonl, .json (a list of objects), .parquet or .txt (one example a line, in the
            field `text`) file, or a dataset id on the hub.
        fields: the fields to keep and the type each must have.
        split: which split of a hub dataset.
        subset: which configuration of a hub dataset.
        complaint: says what else is wrong with a record, without quoting it; None if nothing is.

    Raises:
        ConfigurationError: the source cannot be read, is malformed, or is empty.
    """
    path = Path(source).expanduser()
    if path.suffix in _FILE_TYPES or path.exists():
        places = _read_file(path, source)
    else:
        rows = _read_hub(source, split, subset)
        places = ((f"{source} ({split}), record {i}", row) for i, row in enumerate(rows, 1))
    records = [_take_fields(record, fields, place, complaint) for place, record in places]
    if not records:
        raise ConfigurationError(f"{source} holds no examples: there is nothing to learn from")
    return records


def pad_examples(
    examples: Sequence[Mapping[str, Any]], *, pad_token_id: int, pad_to_multiple_of: int = 1
) -> dict[str, torch.Tensor]:
    """Collate examples into one batch, padded on the right to the longest of them.

    Lists become [examples, tokens]: `labels` padded with -100, `input_ids` with `pad_token_id`,
    others with 0. Numbers, such as the class of an example, become [examples].
    `partial(pad_examples, pad_token_id=...)` is a collate function.

    >>> batch = pad_examples([{"input_ids": [5, 6]}, {"input_ids": [7]}], pad_token_id=0)
    >>> batch["input_ids"].tolist(), batch["attention_mask"].tolist()
    ([[5, 6], [7, 0]], [[1, 1], [1, 0]])
    """
    import torch

    masked = [{"attention_mask": [1] * len(each["input_ids"]), **each} for each in examples]
    longest = max(len(each["input_ids"]) for each in masked)
    width = -(-longest // pad_to_multiple_of) * pad_to_multiple_of
    padding = {"input_ids": pad_token_id, "labels": IGNORED}
    return {
        name: torch.tensor([_padded(each[name], width, padding.get(name, 0)) for each in masked])
        for name in masked[0]
    }


def _padded(values: Any, width: int, padding: int) -> Any:
    if not isinstance(values, Sequence):
        return values
    return [*values, *[padding] * (width - len(values))]


def _load(
    source: str, split: str, *, config: TrainingConfig, tokenizer: PreTrainedTokenizerBase
) -> list[Example]:
    read = partial(read_records, source=source, split=split, subset=config.data_subset)
    limits: dict[str, Any] = {"tokenizer": tokenizer, "max_length": config.max_length}
    named: dict[str, Any] = {"label_field": config.label_field, "labels": config.labels or ()}
    if config.task == "sequence-classification":
        records = read(
            fields={config.text_field: str, config.label_field: str | int},
            complaint=partial(class_complaint, **named),
        )
        return tokenize_classes(records=records, text_field=config.text_field, **named, **limits)
    if config.task == "token-classification":
        named["words_field"] = config.words_field
        records = read(
            fields={config.words_field: list, config.label_field: list},
            complaint=partial(tag_complaint, **named),
        )
        return tokenize_tags(records=records, **named, **limits)
    return tokenize_examples(
        records=read(fields=_fields(config), complaint=partial(_complaint, config)),
        text_field=config.text_field,
        prompt_field=config.prompt_field,
        completion_field=config.completion_field,
        messages_field=config.messages_field,
        learn_end=config.learn_end,
        answers=config.answers,
        **limits,
    )


def _complaint(config: TrainingConfig, record: Record) -> str | None:
    if config.messages_field is not None:
        return turn_complaint(record[config.messages_field])
    completion = config.completion_field
    if completion and config.answers and record[completion] not in config.answers:
        return f"field {completion!r} is none of the answers"
    return None


def _fields(config: TrainingConfig) -> dict[str, FieldType]:
    if config.messages_field is not None:
        return {config.messages_field: list}
    if config.prompt_field is not None and config.completion_field is not None:
        return {config.prompt_field: str, config.completion_field: str}
    return {config.text_field: str}


# --- files --------------------------------------------------------------------------------

Placed = Iterator[tuple[str, Any]]


def _read_file(path: Path, source: str) -> Placed:
    readers = {
        ".jsonl": _read_jsonl,
        ".json": _read_json,
        ".parquet": _read_parquet,
        ".txt": _read_text,
    }
    if path.suffix not in readers:
        raise ConfigurationError(
            f"{source} is not a file of a known type: give one of {', '.join(_FILE_TYPES)}"
        )
    if not path.is_file():
        raise ConfigurationError(f"{source}: no such file (looked in {Path.cwd()})")
    try:
        yield from readers[path.suffix](path)
    except UnicodeDecodeError:
        raise ConfigurationError(f"{source} is not UTF-8 text: convert it first") from None
    except OSError as error:
        raise ConfigurationError(f"{source} cannot be read: {error.strerror}") from None


def _read_jsonl(path: Path) -> Placed:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{path}:{number}", _parse(line, f"{path}:{number}")


def _read_json(path: Path) -> Placed:
    records = _parse(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(records, list):
        raise ConfigurationError(f"{path} must hold a list of objects (or be named .jsonl)")
    yield from ((f"{path}, record {i}", record) for i, record in enumerate(records, 1))


def _parse(text: str, place: str) -> Any:
    # `from None`: the decoder's error carries the text that it failed on.
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigurationError(
            f"{place} is not JSON: {error.msg} (column {error.colno})"
        ) from None


def _read_parquet(path: Path) -> Placed:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException:
        raise ConfigurationError(f"{path} is not a Parquet file") from None
    yield from ((f"{path}, row {i}", row) for i, row in enumerate(table.to_pylist(), 1))


def _read_text(path: Path) -> Placed:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{path}:{number}", {"text": line.rstrip("\n")}


def _take_fields(
    record: Any, fields: Mapping[str, FieldType], place: str, complaint: Complaint | None
) -> Record:
    if not isinstance(record, Mapping):
        raise ConfigurationError(f"{place} is not an object with named fields")
    for name, wanted in fields.items():
        if name not in record:
            raise ConfigurationError(
                f"{place} has no field {name!r}: name the fields that every record has with "
                "--text_field, --prompt_field and --completion_field, --messages_field, or "
                "--words_field and --label_field"
            )
        if not isinstance(record[name], wanted) or isinstance(record[name], bool):
            kind = {list: "a list", str: "text"}.get(wanted, "text or a whole number")  # type: ignore[call-overload]
            raise ConfigurationError(f"{place}: field {name!r} must be {kind}")
    taken = {name: record[name] for name in fields}
    wrong = None if complaint is None else complaint(taken)
    if wrong is not None:
        raise ConfigurationError(f"{place}: {wrong}")
    return taken


# --- the hub ------------------------------------------------------------------------------


def _read_hub(source: str, split: str, subset: str | None) -> Iterable[Any]:
    from datasets import load_dataset

    try:
        _ask_hub(source)
        return load_dataset(source, subset, split=split)  # type: ignore[no-any-return]
    except Exception as error:  # every loader raises errors of its own
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigurationError(
            f"{source} is no file here, and the hub did not give its split {split!r}: {reason} "
            "(check the path or the id, the network, and HF_HUB_OFFLINE)"
        ) from error


def _ask_hub(source: str) -> None:
    """Fail at once where loading would retry for half a minute: no such id, or no network."""
    from huggingface_hub import dataset_info
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if not HF_HUB_OFFLINE:
        dataset_info(source, timeout=10)
