"""Figures as files: in the format that the name asks for, and the same bytes every time."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dpacc.errors import ConfigurationError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Format = Literal["png", "pdf", "svg"]

_FORMATS: dict[str, Format] = {".png": "png", ".pdf": "pdf", ".svg": "svg"}
_UNDATED = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


def format_of(*, path: Path) -> Format:
    """What a figure of this name is stored as.

    Raises:
        ConfigurationError: the name ends otherwise.

    >>> format_of(path=Path("spending.PDF"))
    'pdf'
    """
    found = _FORMATS.get(path.suffix.lower())
    if found is None:
        raise ConfigurationError(
            f"figures are .png, .pdf or .svg files: write {path.with_suffix('.png')}"
        )
    return found


def encoded(figure: Figure, *, form: Format) -> bytes:
    """The figure as a file's bytes, without a date."""
    from matplotlib import rc_context

    stored = io.BytesIO()
    options: dict[str, Any] = {
        "format": form,
        "facecolor": "white",
        "metadata": _UNDATED[form],
    }
    with rc_context({"svg.hashsalt": "dpacc"}):  # else its identifiers are drawn at random
        figure.savefig(stored, **options)
    return stored.getvalue()
