"""Bars in a notebook: one output, rewritten as work goes on, and no widget from elsewhere."""

from __future__ import annotations

from html import escape
from typing import Any


class NotebookBar:
    """A bar and a few words in one output of a cell.

    A notebook is saved and passed on like a log, so that it is told no times: how long a private
    step took follows its actual size.

    Args:
        total: what a full bar stands for.
    """

    def __init__(self, *, total: int) -> None:
        self._total = total
        self._output: Any = None

    def show(self, *, done: int, words: str) -> None:
        """Draw the bar at `done` of its total, in the place where it stood before."""
        from IPython import display  # whoever runs a notebook has it

        bar = f'<progress value="{done}" max="{self._total}"></progress>'
        drawn = {"text/html": f"{bar} {escape(words)}", "text/plain": words}
        if self._output is None:
            begin: Any = display.display
            self._output = begin(drawn, raw=True, display_id=True)
        else:
            self._output.update(drawn, raw=True)
