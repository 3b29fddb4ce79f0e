"""Several runs on the same data: their ledgers, composed into one total.

Copies of one run's ledger may both have gone on: what they have in common was released once, and
what each added was released besides. Their session lines tell which is which.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from dpacc_accounting.events.event import Composed, Event
from dpacc_accounting.events.fields import shown
from dpacc_accounting.guarantee import Adjacency, Guarantee, Note
from dpacc_accounting.ledger.claims import claim_of, void_because
from dpacc_accounting.ledger.record import LedgerError, LedgerRecord, Release
from dpacc_accounting.pricing.price import epsilon


@dataclass(frozen=True, kw_only=True)
class MergedLedgers:
    """What several runs cost whoever's data all of them used.

    Args:
        parts: each ledger's own guarantee, by the name that it was given; None where it is void.
        together: the guarantee of all releases, composed; None where any part is void.
        event: all releases as one event.
        faults: why no ε may be claimed, if none may, each with its ledger's name.
        remarks: what a reader should check, such as copies of one run, or differing dataset sizes.
        notes: what any ledger notes, each with its name: beside `together`, or why there is none.
    """

    parts: Mapping[str, Guarantee | None]
    together: Guarantee | None
    event: Event
    faults: tuple[str, ...]
    remarks: tuple[str, ...]
    notes: tuple[Note, ...] = ()


def merge_ledgers(
    *, records: Mapping[str, LedgerRecord], delta: float | None = None
) -> MergedLedgers:
    """Compose the releases of several ledgers on the same data.

    Args:
        records: the ledgers, by a name for each, such as its path.
        delta: δ at which every ε is stated; the smallest of the plans' when left out.

    Raises:
        LedgerError: no ledger, or ledgers whose adjacencies or privacy units differ, so that their
            guarantees speak of different neighbours.

    Lines that copies of one run share are counted once, and every copy's own lines. Where a ledger
    of version 1 has no session lines to tell them by, all lines of every copy are counted.

    Source: adaptive composition as in `epsilon`: all releases' losses add up, which is tighter
    than adding the runs' ε.

    >>> from dpacc_accounting.events.event import Gaussian
    >>> from dpacc_accounting.ledger.record import Release
    >>> plan = {"dataset_size": 100, "expected_batch_size": 100, "steps": 1, "max_grad_norm": 1.0,
    ...         "noise_multiplier": 2.0, "target_delta": 1e-5, "unit": "example",
    ...         "adjacency": "add-or-remove", "sampling": "poisson", "clipping": "flat"}
    >>> one, two = (LedgerRecord(run=run, plan=plan, notes=(), torn=False, head=run,
    ...                          releases=(Release(0, Gaussian(noise_multiplier=2.0)),))
    ...             for run in ("first", "second"))
    >>> print(merge_ledgers(records={"one": one, "two": two}).together)
    (ε = 2.944, δ = 1e-05)-DP, add-or-remove adjacency, unit: example, PLD
    """
    if not isinstance(records, Mapping):
        raise LedgerError(f"records={shown(records)} is not a mapping from names to ledgers")
    _refuse_strangers(records)
    if delta is None:
        delta = min(_planned_delta(name, record) for name, record in records.items())
    claims = {
        name: claim_of(plan=record.plan, record=record, delta=delta)
        for name, record in records.items()
    }
    faults = tuple(
        f"{name}: {why}" for name, claim in claims.items() for why in void_because(claim)
    )
    notes = tuple(
        Note(n.subject, f"{name}: {n.text}") for name, c in claims.items() for n in c.notes
    )
    runs = _by_run(records)
    event = Composed(events=tuple(part for copies in runs for part in _released(copies)))
    return MergedLedgers(
        parts={name: None if void_because(claim) else claim for name, claim in claims.items()},
        together=None if faults else _together(records, event, delta, notes),
        event=event,
        faults=faults,
        remarks=(*(_on_copies(copies) for copies in runs if len(copies) > 1), *_on_sizes(records)),
        notes=notes,
    )


def _planned_delta(name: str, record: LedgerRecord) -> float:
    if "target_delta" not in record.plan:
        raise LedgerError(f"the plan of {name} names no target_delta; give δ")
    return float(record.plan["target_delta"])


def _together(
    records: Mapping[str, LedgerRecord], event: Event, delta: float, notes: tuple[Note, ...]
) -> Guarantee | None:
    plan = next(iter(records.values())).plan
    adjacency = Adjacency(plan["adjacency"])
    found = epsilon(event=event, delta=delta, adjacency=adjacency, unit=plan["unit"])
    return found.noted(notes) if math.isfinite(found.epsilon) else None


def _by_run(records: Mapping[str, LedgerRecord]) -> list[dict[str, LedgerRecord]]:
    """The ledgers, those of one run together."""
    runs: dict[str, dict[str, LedgerRecord]] = {}
    for name, record in records.items():
        runs.setdefault(record.run, {})[name] = record
    return [*runs.values()]


def _told_apart(copies: Mapping[str, LedgerRecord]) -> bool:
    return all(record.tells_copies_apart for record in copies.values())


def _released(copies: Mapping[str, LedgerRecord]) -> list[Event]:
    """What one run's ledgers released: common lines once, and each copy's own."""
    records = [*copies.values()]
    if len(records) == 1 or not _told_apart(copies):
        return [record.event for record in records]
    every: dict[str, Release] = {}
    for record in records:
        every.update(zip(record.release_hashes, record.releases, strict=True))
    return [replace(records[0], releases=tuple(every.values())).event]


def _on_copies(copies: Mapping[str, LedgerRecord]) -> str:
    run = next(iter(copies.values())).run
    names = " and ".join(copies)
    if not _told_apart(copies):
        return (
            f"{names} are ledgers of one run, {run}, begun before ledgers told copies apart: every "
            "release of each is counted; where one is a mere copy, name the longer alone"
        )
    lines = {name: set(record.release_hashes) for name, record in copies.items()}
    common = set.intersection(*lines.values())
    own = ", ".join(f"{len(each - common)} only in {name}" for name, each in lines.items())
    return (
        f"{names} are copies of one run, {run}: {len(common)} common releases are counted once, "
        f"{own}"
    )


def _refuse_strangers(records: Mapping[str, LedgerRecord]) -> None:
    if not records:
        raise LedgerError("no ledger was given; name those of the runs on the same data")
    for setting in ("adjacency", "unit"):
        values = {name: record.plan.get(setting) for name, record in records.items()}
        if len(set(values.values())) > 1:
            said = ", ".join(f"{name}: {value}" for name, value in values.items())
            raise LedgerError(
                f"the ledgers differ in {setting} ({said}), so no one guarantee covers them; "
                "merge those that agree"
            )


def _on_sizes(records: Mapping[str, LedgerRecord]) -> tuple[str, ...]:
    sized = {
        name: r.plan["dataset_size"] for name, r in records.items() if "dataset_size" in r.plan
    }
    if len(set(sized.values())) <= 1:
        return ()
    said = ", ".join(f"{name}: {size}" for name, size in sized.items())
    return (
        f"the dataset sizes differ ({said}); the total covers units that are in all of them, and "
        "therefore every unit",
    )
