"""Records of a file, a folder or a hub dataset: the named fields of each, checked.

What is wrong is said of all records at once, by their numbers, and never with their content: it is
private.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any

from dpacc.errors import ConfigurationError
from dpacc.data.record_files import Place, Placed, Unreadable, file_type, read_files, without_fillers
from dpacc.data.shape import is_a_name, usual_fields

Record = dict[str, Any]
FieldType = type | UnionType
TEXT_OR_MESSAGES: FieldType = str | list
Complaint = Callable[[Record], str | None]

_MOST_PLACES = 10
_MOST_REASONS = 5
_MOST_NAMES = 20
_NAMING = (
    "name the fields that every record has with --text_field, --prompt_field and "
    "--completion_field, --messages_field, or --words_field and --label_field"
)


def read_records(
    *,
    source: str,
    fields: Mapping[str, FieldType],
    split: str = "train",
    subset: str | None = None,
    complaint: Complaint | None = None,
    optional: Mapping[str, FieldType] | None = None,
) -> list[Record]:
    """Read the named fields of every record of a local file or folder, or a hub dataset.

    Args:
        source: a .jsonl, .json (a list of objects), .csv, .tsv, .parquet or .txt (one example a
            line, in the field `text`) file, packed as .gz or not; a folder of files of one of
            these types, or one that the `datasets` library saved; or a dataset id on the hub.
        fields: the fields to keep and the type each must have.
        split: which split of a hub dataset.
        subset: which configuration of a hub dataset.
        complaint: says what else is wrong with a record, without quoting it; None if nothing is.
        optional: fields to keep where a record has them and they are not null.

    Raises:
        ConfigurationError: the source cannot be read, is malformed, or is empty.
    """
    path = Path(source).expanduser()
    if file_type(path) is not None or path.exists():
        places = read_files(path=path, source=source, split=split)
    else:
        places = _read_hub(source, split, subset)
    return checked_records(
        places=places, source=source, fields=fields, complaint=complaint, optional=optional
    )


def checked_records(
    *,
    places: Placed,
    source: str,
    fields: Mapping[str, FieldType],
    complaint: Complaint | None = None,
    optional: Mapping[str, FieldType] | None = None,
) -> list[Record]:
    """The named fields of every record, each of the type that it must have.

    Half of a surrogate pair, which no UTF-8 text holds, becomes U+FFFD.

    Args:
        places: records with their places, such as `read_lines` gives.
        source: what the user calls them.
        fields: as for `read_records`, as are `complaint` and `optional`.

    Raises:
        ConfigurationError: one is malformed, or there are none.
    """
    taken: list[Record] = []
    faults: list[tuple[Place, str]] = []
    shared: set[str] | None = None
    for place, record in places:
        reason = _fault(record, fields, optional or {})
        if isinstance(record, Mapping):
            shared = set(record) if shared is None else shared & record.keys()
        if reason is None:
            kept = {name: _whole(record[name]) for name in fields}
            kept |= {n: _whole(record[n]) for n in optional or {} if record.get(n) is not None}
            reason = None if complaint is None else complaint(kept)
        if reason is None:
            taken.append(kept)
        else:
            faults.append((place, reason))
    if faults:
        raise ConfigurationError(_told(source, faults, fields, shared))
    if not taken:
        raise ConfigurationError(f"{source} holds no examples: there is nothing to learn from")
    return taken


def _fault(
    record: Any, fields: Mapping[str, FieldType], optional: Mapping[str, FieldType]
) -> str | None:
    """What is wrong with a record's fields, without quoting it; None if nothing is."""
    if isinstance(record, Unreadable):
        return record.reason
    if not isinstance(record, Mapping):
        return "is not an object with named fields"
    for name, wanted in fields.items():
        if name not in record:
            return f"has no field {name!r}"
        if not _fits(record[name], wanted):
            null = ", and is null" if record[name] is None else ""
            return f"field {name!r} must be {_words(wanted)}{null}"
    for name, wanted in optional.items():
        if record.get(name) is not None and not _fits(record[name], wanted):
            return f"field {name!r} must be {_words(wanted)}"
    return None


def _fits(value: Any, wanted: FieldType) -> bool:
    return isinstance(value, wanted) and not isinstance(value, bool)


def _words(wanted: FieldType) -> str:
    words: dict[FieldType, str] = {
        list: "a list",
        str: "text",
        TEXT_OR_MESSAGES: "text or a list",
    }
    return words.get(wanted, "text or a whole number")


def _whole(value: Any) -> Any:
    """The same, with U+FFFD for what UTF-8 cannot hold."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole(each) for each in value]
    if isinstance(value, dict):
        return {_whole(name): _whole(each) for name, each in value.items()}
    return value


# --- what is wrong ------------------------------------------------------------------------


def _told(
    source: str,
    faults: Sequence[tuple[Place, str]],
    fields: Mapping[str, FieldType],
    shared: set[str] | None,
) -> str:
    missing = [name for name in fields if any(r == f"has no field {name!r}" for _, r in faults)]
    remedy = f"; {_fields_there(shared or set())}" if missing else ""
    if len(faults) == 1:
        ((place, reason),) = faults
        is_said_of_it = reason.startswith(("is ", "has "))
        return f"{place}{' ' if is_said_of_it else ': '}{reason}{remedy}"
    found: dict[tuple[str, str], list[Place]] = {}
    for place, reason in faults:
        found.setdefault((reason, place.file), []).append(place)
    several = len({file for _, file in found}) > 1
    parts = [
        f"{reason} ({f'{file} ' if several else ''}{_numbers(places)})"
        for (reason, file), places in list(found.items())[:_MOST_REASONS]
    ]
    if len(found) > _MOST_REASONS:
        parts.append("and others")
    return f"{source}: {len(faults)} records cannot be used: {'; '.join(parts)}{remedy}"


def _numbers(places: Sequence[Place]) -> str:
    shown = ", ".join(str(place.number) for place in places[:_MOST_PLACES])
    more = f" and {len(places) - _MOST_PLACES} more" if len(places) > _MOST_PLACES else ""
    return f"{places[0].kind}{'s' if len(places) > 1 else ''} {shown}{more}"


def _fields_there(shared: set[str]) -> str:
    """The fields that all records have, so that no key which is somebody's own is shown."""
    names = sorted(name for name in shared if is_a_name(name))
    if not names:
        return _NAMING
    more = ", ..." if len(names) > _MOST_NAMES else ""
    return f"every record has {', '.join(names[:_MOST_NAMES])}{more}: {_naming(shared)}"


def _naming(shared: set[str]) -> str:
    named = usual_fields(names=shared)
    if not named:
        return _NAMING
    options = " ".join(f"--{name} {value}" for name, value in named.items())
    return f"name its chats with {options}" if "messages_field" in named else f"try {options}"


# --- the hub ------------------------------------------------------------------------------


def _read_hub(source: str, split: str, subset: str | None) -> Placed:
    from datasets import load_dataset

    try:
        _ask_hub(source)
        rows = load_dataset(source, subset, split=split)
    except Exception as error:  # every loader raises errors of its own
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigurationError(
            f"{source} is no file here, and the hub did not give its split {split!r}: {reason} "
            "(check the path or the id, the network, and HF_HUB_OFFLINE)"
        ) from error
    return _numbered(f"{source} ({split})", rows)


def _numbered(source: str, rows: Any) -> Iterator[tuple[Place, Any]]:
    for number, row in enumerate(rows, 1):
        yield Place(source, "record", number), without_fillers(row)


def _ask_hub(source: str) -> None:
    """Fail at once where loading would retry for half a minute: no such id, or no network."""
    from huggingface_hub import dataset_info
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if not HF_HUB_OFFLINE:
        dataset_info(source, timeout=10)
