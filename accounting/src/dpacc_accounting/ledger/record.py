"""What a ledger says: its lines, the chain that binds them, and how to read them back.

A ledger is a text file, ``ledger.jsonl``, one JSON object a line. The first line holds the plan,
each later one a release, a note, a session, what was saved or what a budget granted, and each ends
with a ``hash`` that chains it to the line before:

    hash = SHA-256(hash of the line before, in hex + this line's JSON without its hash)

where the first line follows 64 zeros. The chain shows every edit, removal or swap of lines but
the loss of the last ones: keep a copy of :attr:`LedgerRecord.head` elsewhere to show that nothing
was cut off the end. It is not a signature: whoever rewrites every line can rewrite the chain.

Whoever opens a ledger again and goes on with it first writes a session line with a random number,
so that two copies of one ledger that both went on differ from there, and their own lines can be
told from the common ones. Ledgers of version 1 have no session lines up to where they were first
opened by a later version.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from dpacc_accounting.events.documents import event_from_json
from dpacc_accounting.events.event import Composed, Event, Repeated, SeparatedParticipation
from dpacc_accounting.events.participation import NOTHING
from dpacc_accounting.guarantee import Note

VERSION = 2
_KNOWN_VERSIONS = (1, 2)
START = "0" * 64

_OPENING = b'{"kind":"opened",'
_HASH_KEY = b',"hash":"'
_HASH_FIELD = len(_HASH_KEY) + len(START) + len(b'"}')


class LedgerError(RuntimeError):
    """A ledger that cannot be trusted, or cannot be written."""


class Grant(NamedTuple):
    """What a budget granted this run: its number, its head just before, and releases before it."""

    budget: str
    head: str
    releases: int


class Release(NamedTuple):
    """One charged step: its number and the mechanism that ran."""

    step: int
    event: Event


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerRecord:
    """What a ledger holds: the plan, the releases in order, and the notes.

    ``run`` is drawn at random when the ledger is created; ``head`` is the hash of its last line;
    ``torn`` says that a last line cut short by a crash was left out: what it announced was never
    released, for a charge returns only once its line is whole.

    ``sessions`` are the random numbers of later openings; ``saved`` the checksums of the files that
    were saved, by name, of each save; ``grants`` what a budget of the data set granted; ``chain``
    the hashes of all lines, and ``release_hashes`` those of the releases; ``version`` the format's.
    """

    run: str
    plan: Mapping[str, Any]
    releases: tuple[Release, ...]
    notes: tuple[Note, ...]
    torn: bool
    head: str
    sessions: tuple[str, ...] = ()
    saved: tuple[Mapping[str, str], ...] = ()
    grants: tuple[Grant, ...] = ()
    chain: tuple[str, ...] = ()
    release_hashes: tuple[str, ...] = ()
    version: int = VERSION

    @property
    def tells_copies_apart(self) -> bool:
        """Whether equal lines of two copies are one release, and never two that look alike."""
        return self.version > 1 and len(self.release_hashes) == len(self.releases)

    @property
    def event(self) -> Event:
        """All releases as one event, equal neighbours folded into a ``Repeated``.

        Steps that an earlier one paid for are charged with nothing, and leave nothing here.
        """
        paid = _joined(each.event for each in self.releases if each.event != NOTHING)
        folded = tuple(_repeat(event, times=sum(1 for _ in run)) for event, run in groupby(paid))
        return folded[0] if len(folded) == 1 else Composed(events=folded)

    @property
    def last_step(self) -> int | None:
        """The last charged step, or None before the first charge."""
        return self.releases[-1].step if self.releases else None

    def completed(self, *, settings: Mapping[str, Any]) -> "LedgerRecord":
        """The same with settings that its plan lacks, and a note that they were given beside it.

        Raises:
            LedgerError: the plan has another value for one of them.
        """
        for name, value in settings.items():
            if name in self.plan and self.plan[name] != value:
                raise LedgerError(
                    f"the ledger's plan says {name}={self.plan[name]!r}, not {value!r}; what its "
                    "first line says holds, so leave that setting out"
                )
        given = ", ".join(f"{k} = {v}" for k, v in settings.items() if k not in self.plan)
        if not given:
            return self
        said = Note("settings-beside", f"the ledger does not hold {given}: given beside it")
        return replace(self, plan={**settings, **self.plan}, notes=(*self.notes, said))


def read_ledger(*, path: Path | str) -> LedgerRecord:
    """Read and check a ledger, also while a run is writing to it.

    Raises:
        LedgerError: no such file, or a line that is damaged, missing or out of order, by number.

    >>> read_ledger(path="nowhere.jsonl")
    Traceback (most recent call last):
        ...
    dpacc_accounting.ledger.record.LedgerError: cannot read ledger nowhere.jsonl: No such \
file or directory
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as failure:
        raise LedgerError(f"cannot read ledger {path}: {failure.strerror}") from failure
    return parse(data, path=path)[0]


def parse(data: bytes, *, path: Path) -> tuple[LedgerRecord, int]:
    """The record in ``data``, and how many of its bytes hold it: a torn end is left out."""
    *lines, tail = data.split(b"\n")
    if is_whole(tail, lines=lines):
        lines, tail = [*lines, tail], b""
    if not lines:
        raise LedgerError(
            f"ledger {path}, line 1: the opening line is missing or torn, so nothing was ever "
            "charged here; delete the file and open it anew"
        )
    return _read(lines, torn=bool(tail), path=path), len(data) - len(tail)


def seal(body: Mapping[str, Any], *, previous: str) -> tuple[bytes, str]:
    """The line that records ``body`` after the line hashed ``previous``, and its own hash."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    digest = sha256(previous.encode() + text).hexdigest()
    return text[:-1] + _HASH_KEY + digest.encode() + b'"}\n', digest


def unseal(line: bytes, *, previous: str) -> tuple[dict[str, Any], str]:
    """What a line without its end records after the line hashed ``previous``, and its own hash.

    Raises:
        ValueError: it does not follow from that line.
    """
    text = line[:-_HASH_FIELD] + b"}"
    digest = sha256(previous.encode() + text).hexdigest()
    if not line.endswith(_HASH_KEY + digest.encode() + b'"}'):
        raise ValueError(
            "it does not follow from the line before it, so a line was changed, lost or moved; "
            "restore the file from a copy"
        )
    body: dict[str, Any] = json.loads(text)
    return body, digest


def is_whole(tail: bytes, *, lines: list[bytes]) -> bool:
    """Whether a last line is whole but for its end, which an editor may have dropped."""
    previous = lines[-1][-len(START) - 2 : -2].decode("ascii", errors="replace") if lines else START
    with suppress(ValueError):
        return bool(unseal(tail, previous=previous))
    return False


def is_torn_opening(data: bytes) -> bool:
    """Whether ``data`` is no more than the beginning of an opening line."""
    return b"\n" not in data and data[: len(_OPENING)] == _OPENING[: len(data)]


class _Books:
    """A record being filled, line by line."""

    def __init__(self) -> None:
        self.opened: dict[str, Any] | None = None
        self.releases: list[Release] = []
        self.notes: list[Note] = []
        self.sessions: list[str] = []
        self.saved: list[Mapping[str, str]] = []
        self.grants: list[Grant] = []
        self.release_hashes: list[str] = []
        self._document: Any = None
        self._last_step = -1

    def add(self, body: dict[str, Any], digest: str) -> None:
        match body:
            case {"kind": "opened", "version": int(version)} if version not in _KNOWN_VERSIONS:
                raise ValueError(f"format version {version} is not known: upgrade dpacc-accounting")
            case {"kind": "opened", "plan": dict(), "run": str()} if not self.opened:
                self.opened = body
            case {"kind": "release", "step": int(step), "event": dict(event)} if self.opened:
                self._release(step, event)
                self.release_hashes.append(digest)
            case {"kind": "note", "subject": str(subject), "text": str(text)} if self.opened:
                self.notes.append(Note(subject, text))
            case {"kind": "session", "session": str(session)} if self.opened:
                self.sessions.append(session)
            case {"kind": "saved", "files": dict(files)} if self.opened:
                self.saved.append({str(name): str(checksum) for name, checksum in files.items()})
            case {"kind": "granted", "budget": str(budget), "head": str(head)} if self.opened:
                self.grants.append(Grant(budget, head, len(self.releases)))
            case _:
                raise ValueError(
                    "it is not an opening, a release or a note in its place, nor another known line"
                )

    def _release(self, step: int, document: dict[str, Any]) -> None:
        if step <= self._last_step:
            raise ValueError(f"step {step} comes after step {self._last_step}")
        # Runs release the same event again and again: sharing it keeps long ledgers fast.
        if document != self._document:
            self._document, self._event = document, event_from_json(document=document)
        self.releases.append(Release(step, self._event))
        self._last_step = step


def _read(lines: list[bytes], *, torn: bool, path: Path) -> LedgerRecord:
    books, chain = _Books(), [START]
    for number, line in enumerate(lines, start=1):
        try:
            body, digest = unseal(line, previous=chain[-1])
            books.add(body, digest)
        except ValueError as failure:
            raise LedgerError(f"ledger {path}, line {number}: {failure}") from failure
        chain.append(digest)
    assert books.opened is not None
    return LedgerRecord(
        run=books.opened["run"],
        plan=books.opened["plan"],
        releases=tuple(books.releases),
        notes=tuple(books.notes),
        torn=torn,
        head=chain[-1],
        sessions=tuple(books.sessions),
        saved=tuple(books.saved),
        grants=tuple(books.grants),
        chain=tuple(chain[1:]),
        release_hashes=tuple(books.release_hashes),
        version=books.opened.get("version", 1),
    )


def _joined(events: Iterable[Event]) -> list[Event]:
    """The same, rounds of correlated noise that follow each other as one event."""
    found: list[Event] = []
    for event in events:
        last = found[-1] if found else None
        both = None
        if isinstance(last, SeparatedParticipation) and isinstance(event, SeparatedParticipation):
            both = last.joined(event)
        if both is None:
            found.append(event)
        else:
            found[-1] = both
    return found


def _repeat(event: Event, *, times: int) -> Event:
    return event if times == 1 else Repeated(event=event, times=times)
