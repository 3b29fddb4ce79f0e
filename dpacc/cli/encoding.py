"""Greek letters and signs in words, on terminals and pipes whose encoding has none."""

import codecs
import sys

_NAME = "dpacc.words"
_WORDS = {
    **{
        "ε": "epsilon",
        "δ": "delta",
        "σ": "sigma",
        "μ": "mu",
        "α": "alpha",
        "τ": "tau",
        "γ": "gamma",
    },
    **{
        "≤": "<=",
        "≥": ">=",
        "≈": "~",
        "×": "x",
        "·": "*",
        "±": "+-",
        "√": "sqrt ",
        "∞": "infinity",
    },
    **{"–": "-", "—": "-", "−": "-", "→": "->", "⌈": "ceil(", "⌉": ")", "…": "...", "ᵀ": "^T"},
    **{"²": "^2", "³": "^3", "½": "1/2", "“": "'", "”": "'", "‘": "'", "’": "'"},
}


def write_in_any_encoding() -> None:
    """Let stdout and stderr write words for letters that their encoding lacks, instead of failing.

    Pipes on Windows, `LC_ALL=C` and `PYTHONIOENCODING=ascii` lack most.
    """
    codecs.register_error(_NAME, in_words)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and stream.errors != _NAME:
            stream.reconfigure(errors=_NAME)


def in_words(error: UnicodeError) -> tuple[str | bytes, int]:
    """An error handler for codecs: each letter that cannot be encoded, in words or as `?`.

    >>> codecs.register_error("example", in_words)
    >>> "ε ≤ 8 at σ = 1, é".encode("ascii", "example")
    b'epsilon <= 8 at sigma = 1, ?'
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_WORDS.get(letter, "?") for letter in missing), error.end
