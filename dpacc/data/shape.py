"""What kind of data a file holds: how many records, which fields, of which kinds. Never a value."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpacc.data.record_files import Unreadable, read_files
from dpacc.errors import ConfigurationError

# What a column may be called; anything else could be a row of data where a header is missing.
_NAME = re.compile(r"[^\W\d][\w.-]{0,39}")
# What others call chats and prompts.
_CHATS = ("messages", "conversations", "conversation", "dialogue")
_PROMPTS = {"instruction": "output", "question": "answer", "prompt": "completion"}
_MORE_OF_A_PROMPT = ("input", "context")
_TURNS = ({"role", "content"}, {"from", "value"})
_MISSING, _LIST = "nothing", "list"


@dataclass(frozen=True, kw_only=True)
class DataShape:
    """What every record has.

    Attributes:
        rows: how many records there are.
        fields: the kind of each field that all records have, in the order of the first record:
            "text", "whole number", "number", "yes or no", "list of texts", "list of whole numbers",
            "chat", "list", "object", or several of them, joined by " or ".
        others: how many more fields there are, that some records lack or whose names could be data.
    """

    rows: int
    fields: Mapping[str, str]
    others: int

    def of_kind(self, *kinds: str) -> list[str]:
        """The names of the fields of one of these kinds.

        >>> DataShape(rows=1, fields={"id": "whole number", "note": "text"}, others=0).of_kind("text")
        ['note']
        """
        return [name for name, kind in self.fields.items() if kind in kinds]


def shape_of(*, source: str, split: str = "train") -> DataShape:
    """Look at every record of a file, or of a folder of files, and forget what it says.

    Args:
        source: as [`read_records`][dpacc.data.records.read_records] takes it, but for the hub.
        split: which split of a folder that the `datasets` library saved.

    Raises:
        ConfigurationError: it cannot be read, or holds no records, or some are not objects.
    """
    rows, bad = 0, 0
    kinds: dict[str, dict[str, None]] = {}
    seen: dict[str, int] = {}
    for _, record in read_files(path=Path(source).expanduser(), source=source, split=split):
        rows += 1
        if isinstance(record, Unreadable) or not isinstance(record, Mapping):
            bad += 1
            continue
        for name, value in record.items():
            seen[name] = seen.get(name, 0) + 1
            kinds.setdefault(name, {})[kind_of(value)] = None
    if bad:
        raise ConfigurationError(f"{source}: {bad} of {rows} records are no objects with fields")
    if not rows:
        raise ConfigurationError(f"{source} holds no examples: there is nothing to learn from")
    fields = {
        name: " or ".join(_told(found))
        for name, found in kinds.items()
        if seen[name] == rows and is_a_name(name)
    }
    return DataShape(rows=rows, fields=fields, others=len(kinds) - len(fields))


def is_a_name(text: str) -> bool:
    """Whether a column may well be called so; anything else could be a row where a header lacks.

    >>> is_a_name("patient_id"), is_a_name("She came back in March")
    (True, False)
    """
    return _NAME.fullmatch(text) is not None


def usual_fields(*, names: Collection[str]) -> dict[str, str]:
    """The settings of a run on a chat, or on prompts and answers, whose fields are named as usual.

    >>> usual_fields(names={"instruction", "input", "output"})
    {'prompt_field': 'instruction,input', 'completion_field': 'output'}
    >>> usual_fields(names={"conversations", "id"}), usual_fields(names={"text"})
    ({'messages_field': 'conversations'}, {})
    """
    for name in _CHATS:
        if name in names:
            return {"messages_field": name}
    for prompt, completion in _PROMPTS.items():
        if {prompt, completion} <= set(names):
            parts = [prompt, *(name for name in _MORE_OF_A_PROMPT if name in names)]
            return {"prompt_field": ",".join(parts), "completion_field": completion}
    return {}


def kind_of(value: Any) -> str:
    """What kind of thing a value is.

    >>> [kind_of(each) for each in ("a", 3, 0.5, True, None, ["a", "b"], [1])]
    ['text', 'whole number', 'number', 'yes or no', 'nothing', 'list of texts', \
'list of whole numbers']
    >>> kind_of([{"role": "user", "content": "hello"}]), kind_of({"lat": 1.0})
    ('chat', 'object')
    """
    if value is None:
        return _MISSING
    if isinstance(value, bool):
        return "yes or no"
    if isinstance(value, Mapping):
        return "object"
    if isinstance(value, list):
        return _kind_of_list(value)
    scalars: dict[type, str] = {str: "text", int: "whole number", float: "number"}
    return scalars.get(type(value), type(value).__name__)


def _kind_of_list(values: list[Any]) -> str:
    if values and all(isinstance(each, Mapping) for each in values):
        turns = any(all(turn <= each.keys() for each in values) for turn in _TURNS)
        return "chat" if turns else _LIST
    inner = {kind_of(each) for each in values}
    return f"list of {inner.pop()}s" if inner in ({"text"}, {"whole number"}) else _LIST


def _told(found: Iterable[str]) -> list[str]:
    """The kinds, without that of empty lists where others say more."""
    more = [kind for kind in found if kind.startswith("list of ") or kind == "chat"]
    return [kind for kind in found if kind != _LIST or not more]
