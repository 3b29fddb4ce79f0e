"""What weakens a promise, as one line on stderr, without the place in the code that says so."""

import warnings
from typing import Any

from dpacc_accounting.small_delta import PrivacyWarning

_AS_USUAL = warnings.showwarning


def show_warnings_plainly() -> None:
    """From now on, in this process; other warnings stay as they are."""
    warnings.showwarning = _show


def _show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    if not issubclass(category, PrivacyWarning):
        _AS_USUAL(message, category, *place, **more)
        return
    from dpacc.cli.terminal import say

    say(f"warning: {message}")
