"""Chats as people write them down become what chat templates read."""

import pytest

from dpacc.data.chats import is_learned, read_tools, read_turns, tools_complaint, turn_complaint

CALL = {"type": "function", "function": {"name": "look", "arguments": '{"at": "x"}'}}


def test_other_peoples_words_are_understood():
    """`from` and `value`, other names of the roles, and contents in parts."""
    written = [
        {"from": "system", "value": "be kind"},
        {"from": "human", "value": "hello"},
        {"from": "gpt", "value": "good day", "weight": None},
        {"role": "user", "content": [{"type": "text", "text": "mo"}, {"text": "re"}], "name": None},
        {"role": "model", "content": "no", "weight": 1},
    ]
    assert turn_complaint(written) is None
    assert read_turns(written) == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "good day"},
        {"role": "user", "content": "more"},
        {"role": "assistant", "content": "no"},
    ]


def test_a_call_needs_no_content_and_its_arguments_become_an_object():
    """`content: null` beside a call is an empty text; arguments that are JSON text are read."""
    (turn,) = read_turns([{"role": "assistant", "content": None, "tool_calls": [CALL]}])
    assert turn["content"] == ""
    assert turn["tool_calls"][0]["function"] == {"name": "look", "arguments": {"at": "x"}}
    (told,) = read_turns(
        [{"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": None}]
    )
    assert told == {"role": "assistant", "content": "", "reasoning_content": "hm"}


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ({"role": "assistant", "content": None}, "needs text"),
        ({"role": "user", "content": [{"type": "image", "url": "x"}]}, "needs text"),
        ({"role": "assistant", "content": "a", "weight": 0.5}, "`weight` other than 0 and 1"),
        ({"role": "assistant", "content": "a", "tool_calls": ["f"]}, "objects in `tool_calls`"),
        ({"from": 3, "value": "a"}, "needs text"),
    ],
)
def test_what_cannot_be_understood_is_told_by_its_number(message, complaint):
    """The message is counted from 0 and not quoted."""
    found = turn_complaint([{"role": "user", "content": "a"}, message])
    assert found is not None
    assert "message 1" in found
    assert complaint in found


def test_only_the_assistant_is_learned_and_not_where_its_weight_is_0():
    """A turn of weight 0 is read like a user's."""
    assert is_learned({"from": "gpt", "value": "a"})
    assert is_learned({"role": "assistant", "content": "a", "weight": 1})
    assert not is_learned({"role": "assistant", "content": "a", "weight": 0})
    assert not is_learned({"role": "user", "content": "a"})


def test_tools_may_be_json_in_a_text():
    """As datasets keep them whose tools have different fields."""
    assert read_tools('[{"name": "look"}]') == [{"name": "look"}]
    assert read_tools([]) is None
    assert tools_complaint("look") == tools_complaint(["look"]) is not None
    assert tools_complaint([{"name": "look"}]) is None
