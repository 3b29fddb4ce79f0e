"""What a run left behind: its ledger, its proof and its adapter."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from dpacc_accounting import LedgerRecord, read_ledger

from dpacc.doctor.finding import Finding
from dpacc.doctor.stated import origin_findings, stated_findings
from dpacc.plan import PrivacyPlan


def ledger_findings(*, folder: Path) -> list[Finding]:
    """Is the ledger whole, is the run private, and does the folder state what the ledger gives?

    Raises:
        LedgerError: it is damaged or missing.
    """
    record = read_ledger(path=folder / "ledger.jsonl")
    plan = PrivacyPlan.from_json(record.plan)
    return [
        _steps(record, plan),
        _events(record, plan),
        *noted_findings(record),
        *stated_findings(folder=folder, record=record),
        *origin_findings(folder=folder, record=record),
    ]


def adapter_findings(*, folder: Path) -> list[Finding]:
    """Were all adapters trained? LoRA's B starts at zero, and noise moves every element of it."""
    path = folder / "adapter_model.safetensors"
    if not path.exists():
        return []
    from safetensors.torch import load_file

    tensors = load_file(path)
    broken = sorted(name for name, each in tensors.items() if not bool(each.isfinite().all()))
    still = sorted(n for n, each in tensors.items() if "lora_B" in n and not bool(each.any()))
    if broken:
        words = f"{broken[0]} and {len(broken) - 1} more hold numbers that are not finite"
    elif still:
        words = f"{still[0]} and {len(still) - 1} more were never updated: replaced after prepare?"
    else:
        words = f"all {len(tensors)} tensors are finite, and every B has moved"
    return [Finding(subject="adapter", healthy=not (broken or still), words=words)]


def _steps(record: LedgerRecord, plan: PrivacyPlan) -> Finding:
    steps = [release.step for release in record.releases]
    twice = [step for step, count in Counter(steps).items() if count > 1]
    missing = _passed_over(steps, plan)
    if twice or missing:
        words = f"steps {(twice + missing)[:3]} are charged twice or not at all"
    elif record.torn:
        words = "the last line was cut off by a crash; its step counts as charged when resumed"
    else:
        words = f"{len(steps)} of {plan.steps} planned steps, each charged once"
    within = len(steps) <= plan.steps
    if not within:
        words = f"{len(steps)} steps are charged and only {plan.steps} were planned"
    return Finding(
        subject="ledger", healthy=bool(steps) and within and not (twice or missing), words=words
    )


def _passed_over(steps: list[int], plan: PrivacyPlan) -> list[int]:
    """Steps that nothing paid for: neither a charge, nor a cycle that a resume left unfinished."""
    missing: list[int] = []
    over = 0
    for step in sorted(set(steps)):
        if step not in (over, plan.next_start(steps_charged=over)):
            missing += range(over, step)
        over = step + 1
    return missing


def _events(record: LedgerRecord, plan: PrivacyPlan) -> Finding:
    other = [r.step for r in record.releases if r.event != plan.charge(r.step)]
    words = (
        f"steps {other[:3]} are charged as something else than the plan's step"
        if other
        else "every charge is for the plan's own step"
    )
    return Finding(subject="charges", healthy=not other, words=words)


def noted_findings(record: LedgerRecord) -> list[Finding]:
    """Does the ledger note anything that voids, or qualifies, what it claims?"""
    return [_secrets(record), *_qualifications(record)]


def _secrets(record: LedgerRecord) -> Finding:
    faults = [note.text for note in record.notes if note.voids]
    words = (
        f"{'; '.join(faults)}: the run is NOT private"
        if faults
        else "nothing says that sampling or noise could be predicted"
    )
    return Finding(subject="secret", healthy=not faults, words=words)


def _qualifications(record: LedgerRecord) -> list[Finding]:
    """What the ledger notes beside ε; it was said, so that it is no fault."""
    said = [note.text for note in dict.fromkeys(record.notes) if not note.voids]
    return [Finding(subject="qualified", healthy=True, words="; ".join(said))] if said else []
