"""A chat as its template writes it, and which of that the assistant said.

A turn's words lie between the chat up to it and the chat with it, where both begin the whole chat.
Some templates write a turn otherwise once others follow (Qwen3 leaves out its thoughts): its words
are then what changes in the whole chat when the turn says something else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dpacc.data.chats import THOUGHTS, Turn, is_learned, read_tools, read_turns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
# Of Unicode's private use, so that no chat holds it.
_OTHER_WORDS = "\ue0dc\ue0ac"


class ChatError(ValueError):
    """Why a template cannot write a chat, in words that hold none of the chat's."""


class Chat:
    """One chat, as one template writes it.

    Args:
        messages: without complaints ([`turn_complaint`][dpacc.data.chats.turn_complaint]).
        tools: what the assistant may call, or None.
        tokenizer: with a chat template.
    """

    def __init__(
        self, messages: Sequence[Mapping[str, Any]], tools: Any, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self._turns = read_turns(messages)
        self._learned = [at for at, message in enumerate(messages) if is_learned(message)]
        self._tools = read_tools(tools)
        self._tokenizer = tokenizer
        self.text = self._written(self._turns)

    def spans(self) -> list[Span]:
        """Where in `text` that stands which is learned: the assistant's words and their end.

        Raises:
            ChatError: the template leaves something out that the chat says.
        """
        self._require_all_shown()
        return [self._span(at) for at in self._learned]

    def asked(self) -> str:
        """The chat as the template writes it up to where the assistant goes on.

        Raises:
            ChatError: the template leaves something out that the chat says.
        """
        self._require_all_shown()
        return self._written(self._turns, add_generation_prompt=True)

    def end_of_answer(self) -> str:
        """What the template writes after the assistant's next words; empty for nothing."""
        answered = [*self._turns, {"role": "assistant", "content": _OTHER_WORDS}]
        return self._written(answered).rpartition(_OTHER_WORDS)[2]

    def _span(self, at: int) -> Span:
        before = self._written(self._turns[:at], add_generation_prompt=True)
        after = self._written(self._turns[: at + 1])
        words = self._turns[at]["content"].strip()
        whole = self.text.startswith(before) and self.text.startswith(after)
        if whole and words in after[len(before) :]:
            return len(before), len(after)
        return self._span_by_change(at)

    def _span_by_change(self, at: int) -> Span:
        other = self._with(at, {"role": "assistant", "content": _OTHER_WORDS})
        start = _alike(self.text, other)
        rest, other_rest = self.text[start:], other[start:]
        alike = _alike(rest[::-1], other_rest[::-1])
        if _OTHER_WORDS not in other_rest[: len(other_rest) - alike]:
            raise ChatError(f"the chat template does not show what message {at} says")
        end = len(self.text) - alike
        return start, end + self._end_of_turn(self.text[end:])

    def _end_of_turn(self, rest: str) -> int:
        """How many letters of what follows a turn's words end it."""
        stripped = rest.lstrip()
        ends = [token for token in self._special_tokens() if token and stripped.startswith(token)]
        return len(rest) - len(stripped) + len(max(ends, key=len)) if ends else 0

    def _special_tokens(self) -> list[str]:
        added = self._tokenizer.added_tokens_decoder.values()
        return [*self._tokenizer.all_special_tokens, *(token.content for token in added)]

    def _require_all_shown(self) -> None:
        """Refuse what a template would drop without a word."""
        if self._tools and self.text == self._written(self._turns, tools=None):
            raise ChatError(
                "the chat template does not show `tools`: take them out of the data, or choose a "
                "model whose template does"
            )
        for at, turn in enumerate(self._turns):
            if "tool_calls" in turn and self.text == self._with(at, _without(turn, "tool_calls")):
                raise ChatError(
                    "the chat template does not show `tool_calls`: take them out of the data, or "
                    "choose a model whose template does"
                )
            for name in (name for name in THOUGHTS if name in turn):
                told = self._written(self._turns[: at + 1])
                if told == self._written([*self._turns[:at], _without(turn, name)]):
                    raise ChatError(
                        f"the chat template does not show `{name}`: take it out of the data, or "
                        "choose a model whose template does"
                    )
            if turn["content"].strip() not in self.text and _OTHER_WORDS not in self._with(
                at, {**turn, "content": _OTHER_WORDS}
            ):
                raise ChatError(f"the chat template does not show what message {at} says")

    def _with(self, at: int, turn: Turn) -> str:
        return self._written([*self._turns[:at], turn, *self._turns[at + 1 :]])

    def _written(self, turns: Sequence[Turn], **options: Any) -> str:
        if not turns:  # which transformers refuses to write
            return ""
        try:
            text = self._tokenizer.apply_chat_template(
                list(turns), **{"tools": self._tools, "tokenize": False, **options}
            )
        except Exception as error:  # templates raise what they like, and may quote the chat
            raise ChatError(
                f"the chat template refused it ({type(error).__name__}): check the order of its "
                "roles"
            ) from None
        return str(text)


def _without(turn: Turn, name: str) -> Turn:
    return {field: value for field, value in turn.items() if field != name}


def _alike(one: str, other: str) -> int:
    """With how many of the same letters both begin."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))
