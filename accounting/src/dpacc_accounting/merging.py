"""Several runs on the same data: their ledgers, composed into one total."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from dpacc_accounting.events import Composed, Event
from dpacc_accounting.guarantee import Adjacency, Guarantee
from dpacc_accounting.pricing import epsilon
from dpacc_accounting.record import LedgerError, LedgerRecord
from dpacc_accounting.wording import what_holds


@dataclass(frozen=True, kw_only=True)
class MergedLedgers:
    """What several runs cost whoever's data all of them used.

    Args:
        parts: each ledger's own guarantee, by the name that it was given; None where it is void.
        together: the guarantee of all releases, composed; None where any part is void.
        event: all releases as one event.
        faults: why no ε may be claimed, if none may, each with its ledger's name.
        remarks: what a reader should check, such as differing dataset sizes.
    """

    parts: Mapping[str, Guarantee | None]
    together: Guarantee | None
    event: Event
    faults: tuple[str, ...]
    remarks: tuple[str, ...]


def merge_ledgers(
    *, records: Mapping[str, LedgerRecord], delta: float | None = None
) -> MergedLedgers:
    """Compose the releases of several ledgers on the same data.

    Args:
        records: the ledgers, by a name for each, such as its path.
        delta: δ at which every ε is stated; the smallest of the plans' when left out.

    Raises:
        LedgerError: no ledger, the same run twice, or ledgers whose adjacencies or privacy units
            differ, so that their guarantees speak of different neighbours.

    Source: adaptive composition as in `epsilon`: all releases' losses add up, which is tighter
    than adding the runs' ε.

    >>> from dpacc_accounting.events import Gaussian
    >>> from dpacc_accounting.record import Release
    >>> plan = {"dataset_size": 100, "expected_batch_size": 100, "steps": 1, "max_grad_norm": 1.0,
    ...         "noise_multiplier": 2.0, "target_delta": 1e-5, "unit": "example",
    ...         "adjacency": "add-or-remove", "sampling": "poisson", "clipping": "flat"}
    >>> one, two = (LedgerRecord(run=run, plan=plan, notes=(), torn=False, head=run,
    ...                          releases=(Release(0, Gaussian(noise_multiplier=2.0)),))
    ...             for run in ("first", "second"))
    >>> print(merge_ledgers(records={"one": one, "two": two}).together)
    (ε = 2.944, δ = 1e-05)-DP, add-or-remove adjacency, unit: example, PLD
    """
    _refuse_strangers(records)
    if delta is None:
        delta = min(_planned_delta(name, record) for name, record in records.items())
    found = {
        name: what_holds(plan=record.plan, record=record, delta=delta)
        for name, record in records.items()
    }
    faults = tuple(f"{name}: {fault}" for name, (_, why) in found.items() for fault in why)
    event = Composed(events=tuple(record.event for record in records.values()))
    return MergedLedgers(
        parts={name: guarantee for name, (guarantee, _) in found.items()},
        together=None if faults else _together(records, event, delta),
        event=event,
        faults=faults,
        remarks=_remarks(records),
    )


def _planned_delta(name: str, record: LedgerRecord) -> float:
    if "target_delta" not in record.plan:
        raise LedgerError(f"the plan of {name} names no target_delta; give δ")
    return float(record.plan["target_delta"])


def _together(records: Mapping[str, LedgerRecord], event: Event, delta: float) -> Guarantee | None:
    plan = next(iter(records.values())).plan
    adjacency = Adjacency(plan["adjacency"])
    found = epsilon(event=event, delta=delta, adjacency=adjacency, unit=plan["unit"])
    return found if math.isfinite(found.epsilon) else None


def _refuse_strangers(records: Mapping[str, LedgerRecord]) -> None:
    if not records:
        raise LedgerError("no ledger was given; name those of the runs on the same data")
    runs: dict[str, str] = {}
    for name, record in records.items():
        if record.run in runs:
            raise LedgerError(
                f"{runs[record.run]} and {name} are the same run, {record.run}; "
                "give the longer ledger once"
            )
        runs[record.run] = name
    for setting in ("adjacency", "unit"):
        values = {name: record.plan.get(setting) for name, record in records.items()}
        if len(set(values.values())) > 1:
            said = ", ".join(f"{name}: {value}" for name, value in values.items())
            raise LedgerError(
                f"the ledgers differ in {setting} ({said}), so no one guarantee covers them; "
                "merge those that agree"
            )


def _remarks(records: Mapping[str, LedgerRecord]) -> tuple[str, ...]:
    sizes = {name: record.plan.get("dataset_size") for name, record in records.items()}
    if len(set(sizes.values())) == 1:
        return ()
    said = ", ".join(f"{name}: {size}" for name, size in sizes.items())
    return (
        f"the dataset sizes differ ({said}); the total covers units that are in all of them, and "
        "therefore every unit",
    )
