"""What loading keeps off a terminal comes back to it."""

from __future__ import annotations

import logging
import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from transformers.utils.logging import is_progress_bar_enabled

from dpacc.recipe.pretrained import quiet_loading


def test_threads_that_load_at_once_leave_the_process_as_it_was() -> None:
    """Though the first to begin is the first to end, warnings are told again, and bars shown."""
    both_began, first_ended = Barrier(2), Barrier(2)

    def first() -> None:
        with quiet_loading():
            both_began.wait()
        first_ended.wait()

    def second() -> bool:
        with quiet_loading():
            both_began.wait()
            first_ended.wait()
            return logging.getLogger("dpacc").isEnabledFor(logging.WARNING)

    before = logging.root.manager.disable, is_progress_bar_enabled(), list(warnings.filters)
    with ThreadPoolExecutor() as pool:
        one, other = pool.submit(first), pool.submit(second)
    one.result()
    assert not other.result()
    after = logging.root.manager.disable, is_progress_bar_enabled(), list(warnings.filters)
    assert after == before


def test_what_fails_to_load_leaves_the_process_as_it_was() -> None:
    """An error within gives back what was kept off, too."""
    before = logging.root.manager.disable
    with pytest.raises(OSError, match="gone"), quiet_loading():
        raise OSError("gone")
    assert logging.root.manager.disable == before
