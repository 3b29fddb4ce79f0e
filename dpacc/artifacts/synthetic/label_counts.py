"""How many private records have each label, with noise and at a price: a release of its own.

Its ledger is its own, too: the training's takes no charges but those of its plan's steps. What is
written by both is priced by both together.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

from dpacc_accounting import Budget, Ledger, LedgerRecord, read_ledger
from dpacc_accounting.events.mechanisms import DiscreteGaussian

from dpacc.artifacts.run_folder import write_file
from dpacc.errors import ConfigurationError
from dpacc.randomness.discrete_gaussian import discrete_gaussians
from dpacc.randomness.run_secret import RunSecret

COUNTS = "label_counts.json"
LEDGER = "ledger.jsonl"

# A unit has one vote, so that adding or removing it changes one count by one.
_SENSITIVITY = 1


def votes_of(
    *, labels: Sequence[str], owners: Sequence[Hashable] | None, known: Sequence[str]
) -> dict[str, int]:
    """How many units vote for each label: each for the one that most of its records have.

    A unit whose labels are as many of several votes for the first in `known`. Labels that are not
    in `known`, which is public, are nobody's vote: which labels occur is private.

    >>> votes_of(labels=["a", "b", "b", "c"], owners=[1, 1, 1, 2], known=["a", "b"])
    {'a': 0, 'b': 1}
    """
    each: dict[Hashable, Counter[str]] = {}
    for at, label in enumerate(labels):
        if label in known:
            each.setdefault(at if owners is None else owners[at], Counter())[label] += 1
    votes = Counter(max(known, key=lambda label: said[label]) for said in each.values())
    return {label: votes[label] for label in known}


def release_counts(
    *,
    votes: Mapping[str, int],
    noise: int,
    folder: Path,
    settings: Mapping[str, object],
    budget: Budget | None = None,
    secret: RunSecret | None = None,
) -> dict[str, int]:
    """Charge a new ledger, add discrete Gaussian noise to each count, and write the counts beside.

    Args:
        votes: what `votes_of` says.
        noise: σ of each count's noise, a whole number.
        folder: new, for the ledger and `label_counts.json`.
        settings: `unit`, `target_delta`, and whatever else the ledger is to say.
        budget: of the data, if it has one: asked before anything is charged or drawn.
        secret: of the noise; a fresh one, unless a test says otherwise.

    Returns:
        The counts with noise, which may be below 0.

    Raises:
        LedgerError: the charge could not be stored; nothing is released then.
        BudgetError: the budget has no room for it; nothing is charged or released then.

    Source: Canonne, Kamath & Steinke 2020 (arXiv 2004.00010).
    """
    plan = {**settings, "adjacency": "add-or-remove", "mechanism": "counts of labels"}
    plan["count_noise"] = noise
    secret = secret or RunSecret.generate()
    event = DiscreteGaussian(sigma=noise, sensitivity=_SENSITIVITY)
    with Ledger.open(path=folder / LEDGER, plan=plan) as ledger:
        if secret.fixed_seed is not None:
            ledger.note(subject="fixed-seed", text=f"the fixed seed {secret.fixed_seed}")
        if budget is not None:
            budget.reserve(ledger=ledger, planned=event)
        ledger.charge(step=0, event=event)
        drawn = discrete_gaussians(
            secret=secret, step=0, purpose="label counts", scale=noise, count=len(votes)
        )
        counts = {
            label: int(count + extra)
            for (label, count), extra in zip(votes.items(), drawn, strict=True)
        }
        document = json.dumps({"noise": noise, "counts": counts}, indent=2, ensure_ascii=False)
        content = f"{document}\n".encode()
        ledger.saved(files={COUNTS: hashlib.sha256(content).hexdigest()})
        write_file(path=folder / COUNTS, content=content)
    if budget is not None:
        budget.commit(ledgers=[folder / LEDGER])
    return counts


def read_counts(*, folder: Path) -> tuple[dict[str, int], LedgerRecord]:
    """The counts that are above 0, and the ledger that was charged for them.

    Raises:
        LedgerError: the ledger is missing or damaged.
        ConfigurationError: the counts are not those that the ledger says were saved, or none is
            above 0.
    """
    record = read_ledger(path=folder / LEDGER)
    try:
        content = (folder / COUNTS).read_bytes()
    except OSError:
        raise ConfigurationError(
            f"{folder} holds no {COUNTS}; make them with recipes/count_labels.py"
        ) from None
    saved = record.saved[-1] if record.saved else {}
    if not record.releases or saved.get(COUNTS) != hashlib.sha256(content).hexdigest():
        raise ConfigurationError(
            f"{folder}: {COUNTS} are not the counts that its ledger was charged for, so that "
            "nobody knows what they cost; restore the folder as recipes/count_labels.py left it"
        )
    counts = {label: n for label, n in json.loads(content)["counts"].items() if n > 0}
    if not counts:
        raise ConfigurationError(
            f"{folder}: with their noise, no count is above 0; give a public distribution instead"
        )
    return counts, record
