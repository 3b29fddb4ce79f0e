"""The guarantee in words that a reviewer can check.

Every number comes from the plan, the ledger or the accountant, and none is rounded in the claim's
favour: ε, δ and attack risks are rounded up.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from dpacc_accounting.events.descriptions import described
from dpacc_accounting.events.event import Event, Selected
from dpacc_accounting.events.fields import nested_events, shown
from dpacc_accounting.events.participation import phase_starts
from dpacc_accounting.guarantee import METHOD_NAMES, Adjacency, Guarantee, rounded_up
from dpacc_accounting.ledger.claims import (
    AttackBounds,
    attack_bounds,
    claim_of,
    released,
    void_because,
)
from dpacc_accounting.ledger.plan_settings import (
    SCALES,
    bands_of,
    participation_of,
    phases_of,
    require_statable,
)
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
_NOT_COVERED = """\
## What it does not cover

- **Hyper-parameter tuning.** {tuning}
- **What was read off the data before training.** Class weights, vocabularies, label names and \
their number, normalisation, length caps, the choice of a chat template: whatever was computed \
from the private data without noise to set the run up is not in ε, and some of it is handed on \
with the model.
- **Metrics without noise.** Training losses, gradient norms, clipped fractions and actual batch \
sizes are computed from private data: whoever publishes them gives more away than ε says.
- **Held-out data.** Metrics on it, and model choices made by them, reveal facts about it.
- **Time and machines.** How long a step took, and how much memory, may depend on the examples.
- **The base model's pre-training data**, which this run neither knows nor protects.
- **Other runs on the same data.** Each adds to the total unless their ledgers are composed.
- **Several contributions by one person.** The guarantee holds for one {unit}; someone behind k of \
them has at most k·ε, and a δ that grows faster.
- **The size of the dataset**, {size}, which is treated as public."""


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
    limits = _NOT_COVERED.format(
        unit=plan["unit"], size=plan["dataset_size"], tuning=_tuning(event)
    )
    parts = ["# Privacy statement", *words, _mechanism(plan, record), limits]
    return "\n\n".join([*parts, *([_books(plan, record)] if record else [])]) + "\n"


def _tuning(event: Event) -> str:
    if any(isinstance(part, Selected) for part in nested_events(event)):
        return (
            "The search that this ledger charges is counted, as long as nothing but its best run "
            "was seen; any other choice by looking at runs on the same data is not."
        )
    return (
        "Choosing settings by looking at other runs on the same data costs privacy that is not "
        "counted here."
    )


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
    norm = plan["max_grad_norm"]
    done = f"{len(record.releases)} of {plan['steps']} planned" if record else f"{plan['steps']}"
    drawn, whose = _summand(plan)
    return f"""\
## Mechanism

DP-SGD (arXiv 1607.00133), {done} steps{_phases(plan)}. In each step:

1. **Sampling.** {_sampling(plan)}
2. **Clipping.** Each drawn {drawn}'s {whose} is multiplied {SCALES[plan["clipping"]]}, so that \
its norm is at most C = {norm}; one that is not finite counts as zero.
3. **Noise.** {_noise(plan)}{_grid(plan)}{_correlated(plan)}
4. **Update.** The noised sum is divided by the public expected batch size{_divisor(plan)}, and \
handed to the optimizer. Whatever is computed from it later, such as checkpoints and the final \
weights, is covered."""


def _phases(plan: Mapping[str, Any]) -> str:
    """The phases as a table, where there are any."""
    phases = phases_of(plan=plan)
    if not phases:
        return ""
    rows = [
        f"| {start + 1}–{start + phase.steps} | {phase.expected_batch_size} "
        f"| {phase.expected_batch_size / plan['dataset_size']:.6g} | {phase.noise_multiplier} |"
        for start, phase in zip(phase_starts(phases), phases, strict=True)
    ]
    table = "\n".join(["| steps | batch B | q = B/N | σ |", "|---|---|---|---|", *rows])
    return f""" in {len(phases)} phases that were fixed beforehand:

{table}

ε is that of all of them together"""


def _divisor(plan: Mapping[str, Any]) -> str:
    return " B of its phase" if phases_of(plan=plan) else f", {plan['expected_batch_size']}"


def _summand(plan: Mapping[str, Any]) -> tuple[str, str]:
    """What is drawn, and which gradient of it is clipped."""
    if plan["unit"] == "example" or plan["sampling"] == "examples":
        return "example", "own gradient"
    cap = plan.get("unit_cap")
    if cap is None:
        return plan["unit"], "mean gradient over its examples"
    return plan["unit"], f"mean gradient over at most {cap} of its examples, drawn for the step,"


def _sampling(plan: Mapping[str, Any]) -> str:
    size, batch, unit = plan["dataset_size"], plan["expected_batch_size"], plan["unit"]
    drawn = (
        "drawn by dpacc's own sampler from a secret key. Shuffled batches would not have this "
        "guarantee."
    )
    bands = bands_of(plan=plan)
    if plan["sampling"] == "examples":
        return (
            f"Of each {unit} at most {plan['unit_cap']} examples are kept, by a secret draw. Each "
            f"of the {size} that are takes part with probability {batch}/{size} = "
            f"{batch / size:.6g}, independently of the others and of other steps (Poisson sampling "
            f"of examples, arXiv 2407.07737), {drawn} ε is for all examples of a {unit} together."
        )
    if plan["sampling"] == "allocated":
        each = participation_of(plan=plan).cycle
        return (
            f"An epoch has {each} steps. Each of the {size} {unit}s is in exactly one of them, any "
            "with the same chance, independently of the others and of other epochs (random "
            f"allocation, arXiv 2412.16802 and 2502.08202), {drawn} The first step of an epoch is "
            "charged for all of it."
        )
    if phases_of(plan=plan):
        return (
            f"Each of the {size} {unit}s takes part with probability q of the step's phase, "
            f"independently of the others and of other steps (Poisson sampling), {drawn}"
        )
    if bands == 1:
        return (
            f"Each of the {size} {unit}s takes part with probability {batch}/{size} = "
            f"{batch / size:.6g}, independently of the others and of other steps (Poisson "
            f"sampling), {drawn}"
        )
    return (
        f"Each of the {size} {unit}s is in one of {bands} groups by a coin of its own. The groups "
        f"take turns, a step each; those of the group whose turn it is take part with probability "
        f"{bands}·{batch}/{size} = {bands * batch / size:.6g}, independently of the others and of "
        f"other steps (cyclic Poisson sampling, arXiv 2306.08153), {drawn} ε is that of the group "
        "with the most turns, and holds even if the groups were known."
    )


def _noise(plan: Mapping[str, Any]) -> str:
    sigma, norm = plan["noise_multiplier"], plan["max_grad_norm"]
    phased = bool(phases_of(plan=plan))
    if plan["clipping"] == "adaptive":
        multiplier = "σ of the step's phase" if phased else f"σ = {sigma}"
        return (
            f"C = {norm} is where the clipping norm starts; it then follows a quantile of the "
            "norms by noised counts (arXiv 1905.03871). Gaussian noise is added once to every "
            "coordinate of the sum of the clipped gradients, and once to the count, so that both "
            f"together are one Gaussian mechanism of noise multiplier {multiplier}."
        )
    deviation = (
        f"σ·C, with σ of the step's phase and C = {norm},"
        if phased
        else f"σ·C = {sigma} · {norm} = {sigma * norm:.6g}"
    )
    return (
        f"Gaussian noise of standard deviation {deviation} is added once to every coordinate of "
        "the sum of the clipped gradients."
    )


def _grid(plan: Mapping[str, Any]) -> str:
    if plan.get("noise", "gaussian") == "gaussian":
        return ""
    return (
        " The noise is discrete: each clipped gradient is rounded to whole multiples of C / 2^26, "
        "the sum is exact, and integers are drawn exactly from the discrete Gaussian distribution "
        "(arXiv 2004.00010), with as much more noise as the rounding may cost. It hides what the "
        "Gaussian mechanism hides, by which it is priced, and neither sum nor noise leaves a "
        "floating-point trace (arXiv 2107.10138)."
    )


def _correlated(plan: Mapping[str, Any]) -> str:
    bands = bands_of(plan=plan)
    if bands == 1:
        return ""
    column = ", ".join(f"{c:g}" for c in plan["noise_coefficients"])
    return (
        " That is the standard deviation of z, from which the noise is made: the rows of M⁻¹z are "
        f"added, so that later steps take back a part of what {bands - 1} earlier ones added. M is "
        f"the lower triangular Toeplitz matrix whose first column is {column}, of norm at most 1. "
        f"What one {plan['unit']} adds in a turn has left M's rows before its next turn begins."
    )


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
