"""What the assistant said is found in what any template writes, and nothing is dropped silently."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from dpacc.data.chat_spans import Chat, ChatError
from tests.dpacc.data.test_supervision import CHAT, TEMPLATE, byte_tokenizer

REWRITING = (
    "{% for m in messages %}[{{ m.role }}]"
    "{% if loop.last and m.role == 'assistant' %}(thought){% endif %}{{ m.content }}<end>"
    "{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "x"}}}
CALLING = [
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "42", "name": "look"},
    {"role": "assistant", "content": "it is 42"},
]
THINKING = [
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "good day", "reasoning_content": "hm"},
    {"role": "user", "content": "more"},
    {"role": "assistant", "content": "no", "reasoning_content": "ha"},
]


def said(messages, template, tools=None):
    """The learned parts of a chat under a template."""
    tokenizer = byte_tokenizer(bos_token="<s>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>", "<|eot_id|>"]})
    tokenizer.chat_template = template
    chat = Chat(messages, tools, tokenizer)
    return [chat.text[start:end] for start, end in chat.spans()]


@pytest.mark.parametrize(("role", "last"), [("assistant", "(thought)no<end>"), ("user", "no<end>")])
def test_a_template_that_marks_the_last_turn_is_read(role, last):
    """Earlier turns stand in the whole chat without the mark, and are found there."""
    template = REWRITING.replace("'assistant'", f"'{role}'")
    assert said(CHAT, template) == ["good day<end>", last]


def test_a_turn_of_weight_0_is_read_only():
    """It stays in the chat, and the other turn alone is learned."""
    marked = [CHAT[0], {**CHAT[1], "weight": 0}, *CHAT[2:]]
    assert said(marked, TEMPLATE) == ["no<end>"]
    assert said([*marked[:3], {**CHAT[3], "weight": 0}], TEMPLATE) == []


@pytest.mark.parametrize(
    ("messages", "tools", "culprit"),
    [
        (CHAT, TOOLS, "does not show `tools`"),
        (CALLING, None, "does not show `tool_calls`"),
        (THINKING, None, "does not show `reasoning_content`"),
    ],
)
def test_what_a_template_would_drop_is_refused_by_name(messages, tools, culprit):
    """A plain template knows no tools, no calls and no thoughts."""
    with pytest.raises(ChatError, match=culprit):
        said(messages, TEMPLATE, tools)


@pytest.mark.parametrize("role", ["assistant", "tool"])
def test_a_turn_that_a_template_passes_over_is_refused(role):
    """Words that are not shown cannot be learned, or answered."""
    template = TEMPLATE.replace("{{ m.content }}", f"{{{{ m.content if m.role != '{role}' }}}}")
    chat = [*CHAT[:2], {"role": "tool", "content": "twelve"}, *CHAT[2:]]
    with pytest.raises(ChatError, match="does not show what message"):
        said(chat, template)


@pytest.mark.skipif(find_spec("trl") is None, reason="trl, which carries templates, is missing")
@pytest.mark.parametrize(
    ("name", "messages", "tools", "learned"),
    [
        ("qwen3", CHAT, None, ["good day<|im_end|>", "<think>\n\n</think>\n\nno<|im_end|>\n"]),
        (
            "qwen3",
            THINKING,
            None,
            ["good day<|im_end|>", "<think>\nha\n</think>\n\nno<|im_end|>\n"],
        ),
        (
            "qwen3",
            CALLING,
            TOOLS,
            [
                '<tool_call>\n{"name": "look", "arguments": {"at": "x"}}\n</tool_call><|im_end|>',
                "<think>\n\n</think>\n\nit is 42<|im_end|>\n",
            ],
        ),
        (
            "llama3_1",
            CALLING,
            TOOLS,
            ['{"name": "look", "parameters": {"at": "x"}}<|eot_id|>', "it is 42<|eot_id|>"],
        ),
        ("llama3", CHAT, None, ["good day<|eot_id|>", "no<|eot_id|>"]),
    ],
)
def test_well_known_templates_are_read(name, messages, tools, learned):
    """Every turn, its calls and its end are learned; thoughts where the template writes them."""
    (folder,) = find_spec("trl").submodule_search_locations
    template = (Path(folder) / "chat_templates" / f"{name}.jinja").read_text()
    assert said(messages, template, tools) == learned
