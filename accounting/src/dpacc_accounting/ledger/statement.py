"""The guarantee in words that a reviewer can check.

Every number comes from the plan, the ledger or the accountant, and none is rounded in the claim's
favour: ε, δ and attack risks are rounded up.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from dpacc_accounting.events.descriptions import described
from dpacc_accounting.events.event import Event
from dpacc_accounting.events.fields import shown
from dpacc_accounting.guarantee import METHOD_NAMES, Adjacency, Guarantee, rounded_up
from dpacc_accounting.ledger.claims import (
    AttackBounds,
    attack_bounds,
    claim_of,
    released,
    void_because,
)
from dpacc_accounting.ledger.limits import limits
from dpacc_accounting.ledger.mechanism import PHASE_COLUMNS, each_step, phase_rows
from dpacc_accounting.ledger.plan_settings import participation_of, require_statable
from dpacc_accounting.ledger.record import LedgerRecord
from dpacc_accounting.pld.amplification import without_amplification
from dpacc_accounting.pricing.price import epsilon

_NEIGHBOURS = {
    Adjacency.ADD_OR_REMOVE: "datasets that differ by adding or removing one {unit}",
    Adjacency.REPLACE_ONE: "datasets of equal size that differ by replacing one {unit}",
    Adjacency.ZERO_OUT: "datasets of equal size that differ by replacing one {unit} by a null one, "
    "which is drawn like any other and adds zero to every sum and count",
}
_ROWS = (
    ", with all examples that the run was told are its own (their gradients are averaged into one "
    "before clipping); where it was told of none, each example is taken for another's"
)


def statement(
    *,
    plan: Mapping[str, Any],
    record: LedgerRecord | None = None,
    guarantee: Guarantee | None = None,
) -> str:
    """State in Markdown what a run guarantees, how, and what it leaves open.

    Args:
        plan: the run's settings, as a ledger's first line holds them: ``dataset_size``,
            ``expected_batch_size``, ``steps``, ``noise_multiplier``, ``max_grad_norm``,
            ``target_delta``, ``unit``, ``adjacency``, ``sampling`` and ``clipping``.
        record: the ledger of what was really released; without it, the words are a promise.
        guarantee: what the releases amount to; left out, it is priced here, at the plan's δ.

    Raises:
        ValueError: the plan lacks a setting, or holds one that these words do not fit.

    >>> plan = {"dataset_size": 1000, "expected_batch_size": 100, "steps": 50, "max_grad_norm": 1.0,
    ...         "noise_multiplier": 1.0, "target_delta": 1e-5, "unit": "example",
    ...         "adjacency": "add-or-remove", "sampling": "poisson", "clipping": "flat"}
    >>> print(statement(plan=plan).splitlines()[0])
    # Privacy statement
    """
    if not isinstance(plan, Mapping):
        raise ValueError(f"plan={shown(plan)} is not a mapping of a run's settings")
    require_statable(plan=plan, record=record)
    claim = claim_of(plan=plan, record=record, guarantee=guarantee)
    event = released(plan=plan, record=record)
    bounds = attack_bounds(event=event, claim=claim)
    if bounds is None:
        words = [_no_claim(void_because(claim))]
    else:
        words = [_claim(claim, plan, record) + _amplification(event, claim) + _qualified(claim)]
        words.append(_attack_risk(bounds, claim.unit))
    parts = ["# Privacy statement", *words, _mechanism(plan, record), _not_covered(plan, event)]
    return "\n\n".join([*parts, *([_books(plan, record)] if record else [])]) + "\n"


def _no_claim(faults: list[str]) -> str:
    reasons = "\n".join(f"- {fault}" for fault in faults)
    return f"**This run is NOT private.** No ε may be claimed for it:\n\n{reasons}"


def _claim(guarantee: Guarantee, plan: Mapping[str, Any], record: LedgerRecord | None) -> str:
    what = "What this run released is" if record else "What this plan would release is"
    neighbours = _NEIGHBOURS[guarantee.adjacency].format(unit=guarantee.unit)
    method = METHOD_NAMES.get(guarantee.method, guarantee.method)
    slack = (
        f"the least ε that holds is at most {rounded_up(guarantee.slack)} lower"
        if guarantee.slack < guarantee.epsilon
        else "this method has no lower bound, so the least ε that holds is unknown"
    )
    rows = "" if guarantee.unit == "example" else _ROWS
    return f"""\
{what} **(ε = {rounded_up(guarantee.epsilon)}, δ = {rounded_up(guarantee.delta)})-differentially \
private**.

- **Privacy unit:** one {guarantee.unit}{rows}.
- **Adjacency:** {guarantee.adjacency}: {neighbours}. {_size(guarantee, plan["dataset_size"])}
- **Accountant:** {method}. ε is an upper bound; {slack}."""


def _size(guarantee: Guarantee, size: int) -> str:
    """Why N may stand beside a promise that hides whether one more unit is there."""
    if guarantee.adjacency is not Adjacency.ADD_OR_REMOVE:
        return f"All have N = {size} {guarantee.unit}s."
    return (
        f"N = {size} is nevertheless printed here: the dataset's size is treated as public, so "
        "that what is hidden is which units are in it, and not how many."
    )


def _qualified(claim: Guarantee) -> str:
    if not claim.qualified_by:
        return ""
    facts = "".join(f"\n  - {text}" for text in claim.qualified_by)
    return f"\n- **Qualified:** what follows is not in ε, or ε rests on it:{facts}"


def _amplification(event: Event, guarantee: Guarantee) -> str:
    """What the same noise promises against someone who knows the samples, where that differs."""
    bare = without_amplification(event=event)
    known = epsilon(event=bare, delta=guarantee.delta, adjacency=guarantee.adjacency)
    if bare == event or known.epsilon <= guarantee.epsilon:
        return ""
    return f"""
- **Amplification by sampling:** counted, because nobody learns who was drawn. Against someone who \
knows every sample, or had they not been drawn that way, the same noise gives \
ε = {rounded_up(known.epsilon)} at the same δ."""


def _attack_risk(bounds: AttackBounds, unit: str) -> str:
    alarms = f"{100 * bounds.false_positives:g}%"
    return f"""\
## What an attacker can learn

Let an attacker know every detail of the run and all data but one {unit}'s, and decide from the \
outcome which of two neighbouring datasets was used. Whatever the method, the trade-off curve of \
what is released implies:

- at a false-positive rate of {alarms}, a true-positive rate of at most \
{rounded_up(100 * bounds.true_positives)}% (guessing has {alarms});
- at any rate, a true-positive rate at most {rounded_up(100 * bounds.advantage)} percentage points \
above the false-positive rate (guessing has 0).

These bounds hold for every attack, known or not."""


def _mechanism(plan: Mapping[str, Any], record: LedgerRecord | None) -> str:
    done = f"{len(record.releases)} of {plan['steps']} planned" if record else f"{plan['steps']}"
    stops = enumerate(each_step(plan=plan), start=1)
    steps = "\n".join(f"{at}. **{stop.subject}.** {stop.words}" for at, stop in stops)
    return f"""\
## Mechanism

DP-SGD (arXiv 1607.00133), {done} steps{_phases(plan)}. In each step:

{steps}"""


def _phases(plan: Mapping[str, Any]) -> str:
    """The phases as a table, where there are any."""
    rows = phase_rows(plan=plan)
    if not rows:
        return ""
    cells = [f"| {' | '.join(row)} |" for row in rows]
    table = "\n".join([f"| {' | '.join(PHASE_COLUMNS)} |", "|---|---|---|---|", *cells])
    return f""" in {len(rows)} phases that were fixed beforehand:

{table}

ε is that of all of them together"""


def _not_covered(plan: Mapping[str, Any], event: Event) -> str:
    points = [f"- **{each.subject}**{each.words}" for each in limits(plan=plan, event=event)]
    return "\n".join(["## What it does not cover", "", *points])


def _books(plan: Mapping[str, Any], record: LedgerRecord) -> str:
    facts = [f"Run {record.run}: {len(record.releases)} releases, last hash {record.head}."]
    run = participation_of(plan=plan)
    others = Counter(
        release.event
        for release in record.releases
        if release.event != run.charge(step=release.step, steps=plan["steps"])
    )
    if others:
        count = sum(others.values())
        facts.append(f"{count} releases are not the plan's step; ε counts them as they were:")
        facts += [
            f"{times} × {described(event=event, unit=plan['unit'])}."
            for event, times in others.items()
        ]
    if record.torn:
        facts.append("A crash tore the last line; what it announced was never released.")
    facts += [f"Note on {note.subject}: {note.text}." for note in record.notes]
    return "\n".join(["## Ledger", "", *(f"- {fact}" for fact in facts)])
