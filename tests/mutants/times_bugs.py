"""Mistakes in foreign chats, and in what is said or written beside a run's adapter."""

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

TIMES_BUGS = (
    Bug(
        "prompt's assistant learned",
        "the assistant's turns in a prompt of messages are learned with its completion",
        (Patch("dpacc.data.chats", '{**message, "weight": 0} for', "{**message} for"),),
        (
            f"{DPACC}/recipe/test_examples.py::test_a_prompt_and_a_completion_of_messages_are_one_chat",
        ),
    ),
)
