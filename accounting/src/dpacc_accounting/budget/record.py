"""What a budget says: its total, and what each run holds of it; its lines, and how they are read.

A budget is a text file of one JSON object a line, chained as a ledger's lines are (see
`dpacc_accounting.ledger.record`). The first line says for which data it is, its total, and where
its key is. Each later one sets what one run holds: what it `reserved`, what it `committed` as
really spent, or that it `released` its reservation unused; the last one of a run holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpacc_accounting.budget.key_file import BudgetError, Key, read_key
from dpacc_accounting.events.documents import event_from_json, event_to_json
from dpacc_accounting.events.event import Event
from dpacc_accounting.guarantee import Adjacency
from dpacc_accounting.ledger.record import START, is_whole, unseal

VERSION = 1
STATES = ("reserved", "committed", "released")


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one run holds of a budget.

    Args:
        run: the random number in its ledger's first line.
        state: "reserved", "committed" or "released".
        event: what counts against the total: all that is planned, what was spent, or nothing.
        planned: what it reserved; None where only its ledger was committed.
        anchors: hashes of lines that this run's ledger holds, or together its copies do.
        ledgers: the ledgers' paths, and how many releases each then held.
        voids: why no ε may be claimed of it, if none may.
        said: what its owner said when it was released without a look at its ledger.
    """

    run: str
    state: str
    event: Event
    planned: Event | None
    anchors: tuple[str, ...]
    ledgers: Mapping[str, int]
    voids: tuple[str, ...] = ()
    said: str | None = None


@dataclass(frozen=True, kw_only=True)
class BudgetRecord:
    """What a budget holds.

    Args:
        budget: the random number drawn when it was made, which its key file holds, too.
        name: of the data set.
        fingerprint: keyed, of the data set; see `data_fingerprint`. None where no data was named.
        epsilon: the total ε.
        delta: the total δ.
        adjacency: which data sets are neighbours.
        unit: whose data is protected.
        key: the key file.
        shares: what each run holds, by its number, in the order in which they came.
        head: the hash of the last line.
        chain: the hashes of all lines.
        torn: whether a last line cut short by a crash was left out; nobody was granted by it.
    """

    budget: str
    name: str
    fingerprint: str | None
    epsilon: float
    delta: float
    adjacency: Adjacency
    unit: str
    key: Path
    shares: Mapping[str, Share] = field(default_factory=dict)
    head: str = START
    chain: tuple[str, ...] = ()
    torn: bool = False

    def holding(self, state: str) -> tuple[Share, ...]:
        """The shares of one state, in order."""
        return tuple(share for share in self.shares.values() if share.state == state)


def read_budget(*, path: Path | str) -> BudgetRecord:
    """Read and check a budget, also while runs write to it.

    Raises:
        BudgetError: no such file, a damaged line, by number, or one that is not what its key
            remembers: shortened, restored, or a copy beside which another went on.

    >>> read_budget(path="nowhere.jsonl")
    Traceback (most recent call last):
        ...
    dpacc_accounting.budget.key_file.BudgetError: cannot read budget nowhere.jsonl: No such file \
or directory
    """
    path = Path(path)
    key_path = parse(bytes_of(path), path=path)[0].key
    key = read_key(path=key_path)  # first, for the registry may be ahead of it and never behind
    record, _ = parse(bytes_of(path), path=path)
    require_remembered(record, key=key, path=path)
    return record


def require_remembered(record: BudgetRecord, *, key: Key, path: Path) -> None:
    """Refuse a registry that lacks what its key remembers.

    Raises:
        BudgetError: it is another's, was shortened or restored, or is a copy.
    """
    if key.budget != record.budget:
        raise BudgetError(f"budget {path} and the key {record.key} are not of one making")
    if key.head not in record.chain:
        raise BudgetError(
            f"budget {path} lacks lines that its key {record.key} remembers: it was shortened, "
            "restored from an older copy, or is a copy beside which another went on; use the one "
            "that has them"
        )


def parse(data: bytes, *, path: Path) -> tuple[BudgetRecord, int]:
    """The record in `data`, and how many of its bytes hold it: a torn end is left out.

    Raises:
        BudgetError: a damaged line, by number.
    """
    *lines, tail = data.split(b"\n")
    if is_whole(tail, lines=lines):
        lines, tail = [*lines, tail], b""
    if not lines:
        raise BudgetError(f"budget {path}, line 1: it does not begin as a budget does")
    record: BudgetRecord | None = None
    chain, shares = [START], dict[str, Share]()
    for number, line in enumerate(lines, start=1):
        try:
            body, digest = unseal(line, previous=chain[-1])
            if record is None:
                record = _opening(body, folder=path.parent)
            else:
                share = _share(body)
                shares[share.run] = share
        except (ValueError, KeyError, TypeError) as failure:
            raise BudgetError(f"budget {path}, line {number}: {_said(failure)}") from failure
        chain.append(digest)
    assert record is not None
    fields = {**vars(record), "shares": shares, "head": chain[-1], "chain": tuple(chain[1:])}
    return BudgetRecord(**fields | {"torn": bool(tail)}), len(data) - len(tail)


def share_to_json(share: Share) -> dict[str, Any]:
    """The body of the line that sets a share."""
    return {
        "kind": share.state,
        "run": share.run,
        "event": event_to_json(event=share.event),
        "planned": None if share.planned is None else event_to_json(event=share.planned),
        "anchors": [*share.anchors],
        "ledgers": dict(share.ledgers),
        "voids": [*share.voids],
        "said": share.said,
    }


def opening_to_json(record: BudgetRecord) -> dict[str, Any]:
    """The body of a budget's first line."""
    return {
        "kind": "opened",
        "version": VERSION,
        "budget": record.budget,
        "name": record.name,
        "fingerprint": record.fingerprint,
        "epsilon": record.epsilon,
        "delta": record.delta,
        "adjacency": str(record.adjacency),
        "unit": record.unit,
        "key": str(record.key),
    }


def _opening(body: Mapping[str, Any], *, folder: Path) -> BudgetRecord:
    if body["kind"] != "opened" or "budget" not in body:
        raise ValueError("it does not begin as a budget does")
    if body["version"] != VERSION:
        raise ValueError(f"version {body['version']} is not known: upgrade dpacc-accounting")
    return BudgetRecord(
        budget=body["budget"],
        name=body["name"],
        fingerprint=body["fingerprint"],
        epsilon=float(body["epsilon"]),
        delta=float(body["delta"]),
        adjacency=Adjacency(body["adjacency"]),
        unit=body["unit"],
        key=folder / body["key"],
    )


def _share(body: Mapping[str, Any]) -> Share:
    if body["kind"] not in STATES:
        raise ValueError("it is not a line of a known kind")
    planned = body["planned"]
    return Share(
        run=body["run"],
        state=body["kind"],
        event=event_from_json(document=body["event"]),
        planned=None if planned is None else event_from_json(document=planned),
        anchors=tuple(body["anchors"]),
        ledgers=dict(body["ledgers"]),
        voids=tuple(body["voids"]),
        said=body["said"],
    )


def _said(failure: Exception) -> str:
    return str(failure) if type(failure) is ValueError else "it is damaged; restore the budget"


def bytes_of(path: Path) -> bytes:
    """A budget's file as it is.

    Raises:
        BudgetError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as failure:
        raise BudgetError(f"cannot read budget {path}: {failure.strerror}") from failure
