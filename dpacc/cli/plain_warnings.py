"""What weakens a promise, as one line on stderr, without the place in the code that says so."""

import sys
import warnings
from typing import Any

from dpacc_accounting.pricing.small_delta import PrivacyWarning

_AS_USUAL = warnings.showwarning


def show_warnings_plainly() -> None:
    """From now on, in this process; other warnings stay as they are."""
    warnings.showwarning = _show


def _show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    if issubclass(category, PrivacyWarning):
        print(f"warning: {message}", file=sys.stderr)
    else:
        _AS_USUAL(message, category, *place, **more)
