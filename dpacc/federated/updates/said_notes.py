"""What voids or qualifies a client's ε, as a reply carries it: subjects alone, each a flag.

A reply's metrics are numbers; the notes' own words stay in the client's ledger.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from dpacc_accounting import Guarantee

_VOID, _QUALIFIED = "void-because-of:", "qualified-by:"
_SUBJECT = re.compile(r"[a-z][a-z-]{0,39}")


def said_of(spent: Guarantee) -> dict[str, float]:
    """A flag for each note beside `spent`, none of which is lost for how its subject is written.

    >>> from dpacc_accounting import Gaussian, epsilon
    >>> from dpacc_accounting.guarantee import Note
    >>> spent = epsilon(event=Gaussian(noise_multiplier=1.0), delta=1e-5)
    >>> said_of(spent.noted([Note("fixed-seed", "the noise came from seed 7")]))
    {'void-because-of:fixed-seed': 1.0}
    """
    return {f"{_VOID if n.voids else _QUALIFIED}{_flag(n.subject)}": 1.0 for n in spent.notes}


def _flag(subject: str) -> str:
    """The subject in the form that `notes_in` takes.

    >>> _flag("Unsigned keys"), _flag("42")
    ('unsigned-keys', 'other')
    """
    return re.sub(r"[^a-z]+", "-", subject.lower()).strip("-")[:40].rstrip("-") or "other"


def is_note(name: str) -> bool:
    """Whether a metric of this name is such a flag.

    >>> is_note("qualified-by:rank-choice"), is_note("loss")
    (True, False)
    """
    prefix, colon, subject = name.partition(":")
    return prefix + colon in (_VOID, _QUALIFIED) and _SUBJECT.fullmatch(subject) is not None


def notes_in(names: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The subjects that void, and those that qualify, among the names of a reply's metrics.

    >>> notes_in(["epsilon", "void-because-of:fixed-seed", "qualified-by:rank-choice"])
    (('fixed-seed',), ('rank-choice',))
    """
    return _subjects(names, _VOID), _subjects(names, _QUALIFIED)


def _subjects(names: Iterable[str], prefix: str) -> tuple[str, ...]:
    found = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
    return tuple(sorted(each for each in found if _SUBJECT.fullmatch(each)))
