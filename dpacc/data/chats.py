"""Chats as people write them down, turned into messages that chat templates read.

`role` and `content`, or `from` and `value`; contents that are null where tools are called, or lists
of texts; arguments of tools as text; `weight` 0 for what is not to be learned.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Turn = dict[str, Any]

_ROLES = {
    "human": "user",
    **dict.fromkeys(("gpt", "chatgpt", "bot", "model", "ai"), "assistant"),
    "observation": "tool",
}
# What a message may say beside its content.
THOUGHTS = ("reasoning_content", "thinking")
_OWN_WORDS = ("from", "value", "weight")


def turn_complaint(messages: Sequence[Any]) -> str | None:
    """What is wrong with a chat's messages, in words that hold none of theirs; None if nothing.

    >>> turn_complaint([{"role": "user"}])
    'message 0 needs text in `role` and `content`'
    >>> turn_complaint([{"from": "human", "value": "hello"}])
    """
    for position, message in enumerate(messages):
        fields = message if isinstance(message, Mapping) else {}
        role, content = _role(fields), _content(fields)
        if not isinstance(role, str) or content is None:
            return f"message {position} needs text in `role` and `content`"
        if fields.get("weight") not in (None, 0, 1):
            return f"message {position} has a `weight` other than 0 and 1"
        calls = fields.get("tool_calls") or []
        if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
            return f"message {position} needs a list of objects in `tool_calls`"
    return None


def pair_complaint(prompt: Any, completion: Any, *, fields: Sequence[str]) -> str | None:
    """What is wrong with a prompt and a completion, two texts or two lists of messages.

    >>> pair_complaint("a", "b", fields=("p", "c"))
    >>> pair_complaint("a", [{"role": "assistant", "content": "b"}], fields=("p", "c"))
    "fields 'p' and 'c' must both be text, or both lists of messages"
    """
    lists = [isinstance(each, list) for each in (prompt, completion)]
    if lists[0] != lists[1]:
        named = " and ".join(map(repr, fields))
        return f"fields {named} must both be text, or both lists of messages"
    if not all(lists):
        return None
    for name, messages in zip(fields, (prompt, completion), strict=True):
        reason = turn_complaint(messages) if messages else "needs at least one message"
        if reason is not None:
            return f"field {name!r}: {reason}"
    return None


def as_one_chat(prompt: Sequence[Turn], completion: Sequence[Turn]) -> list[Turn]:
    """A chat of which nothing in the prompt is learned, whoever says it.

    >>> as_one_chat([{"role": "user", "content": "a"}], [{"role": "assistant", "content": "b"}])[0]
    {'role': 'user', 'content': 'a', 'weight': 0}
    """
    return [*({**message, "weight": 0} for message in prompt), *completion]


def tools_complaint(tools: Any) -> str | None:
    """What is wrong with the tools of a chat; None if nothing.

    >>> tools_complaint(None)
    >>> tools_complaint([{"type": "function"}])
    >>> tools_complaint('{"name": "look"}')
    'field `tools` needs a list of objects'
    """
    read = read_tools(tools)
    if read is None or (isinstance(read, list) and all(isinstance(t, Mapping) for t in read)):
        return None
    return "field `tools` needs a list of objects"


def read_tools(tools: Any) -> Any:
    """The tools of a chat, also where they are JSON in a text; None for none.

    >>> read_tools('[{"type": "function"}]')
    [{'type': 'function'}]
    """
    return (_parsed(tools) if isinstance(tools, str) else tools) or None


def read_turns(messages: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """The messages, without complaints, in the words of chat templates.

    >>> read_turns([{"from": "gpt", "value": "hello", "weight": 0}])
    [{'role': 'assistant', 'content': 'hello'}]
    """
    return [_read_turn(message) for message in messages]


def is_learned(message: Mapping[str, Any]) -> bool:
    """Whether the assistant says it, and it is not marked as an example to be read only.

    >>> is_learned({"role": "assistant", "content": "hello", "weight": 0})
    False
    """
    return _role(message) == "assistant" and message.get("weight") != 0


def _read_turn(message: Mapping[str, Any]) -> Turn:
    kept = {n: v for n, v in message.items() if n not in _OWN_WORDS and v not in (None, [], "")}
    if "tool_calls" in kept:
        kept["tool_calls"] = [_read_call(call) for call in kept["tool_calls"]]
    return kept | {"role": _role(message), "content": _content(message)}


def _role(message: Mapping[str, Any]) -> Any:
    named = message.get("role", message.get("from"))
    return _ROLES.get(named, named) if isinstance(named, str) else None


def _content(message: Mapping[str, Any]) -> str | None:
    """The text of a message; None where it has none, and nothing that stands for it."""
    content = message.get("content", message.get("value"))
    if isinstance(content, str):
        return content
    if content is None and any(message.get(name) for name in ("tool_calls", *THOUGHTS)):
        return ""
    if isinstance(content, list) and content and all(map(_is_text, content)):
        return "".join(part["text"] for part in content)
    return None


def _is_text(part: Any) -> bool:
    return isinstance(part, Mapping) and isinstance(part.get("text"), str)


def _read_call(call: Mapping[str, Any]) -> Turn:
    """A call of a tool, whose arguments templates want as an object."""
    if isinstance(call.get("function"), Mapping):
        return {**call, "function": _read_call(call["function"])}
    if not isinstance(call.get("arguments"), str):
        return dict(call)
    arguments = _parsed(call["arguments"])
    return {**call, "arguments": arguments if isinstance(arguments, dict) else call["arguments"]}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
