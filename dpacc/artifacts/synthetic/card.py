"""The card beside a synthetic file: what it is, what it cost, and what it rests on."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dpacc_accounting import Composed, Guarantee, LedgerRecord, merge_ledgers, statement
from dpacc_accounting.guarantee import METHOD_NAMES, rounded_up
from dpacc_accounting.ledger.claims import attack_bounds, claim_of, void_because

from dpacc.artifacts.model_card import one_level_down, table
from dpacc.artifacts.proof import stated_facts
from dpacc.artifacts.run_folder import write_file
from dpacc.artifacts.synthetic.records import REASONS, line_of
from dpacc.artifacts.synthetic.released import LEDGER

_CARD = """\
# {name}

{count} synthetic records, written by a language model: a LoRA adapter for `{base}` that was
trained with dpacc {dpacc}. A model may say again what it learned, within what is stated below.

{cost}

`{proof}` holds the same for machines; the ledger's last hash is `{head}`.

## What was dropped

{dropped}

Duplicates were sought among the synthetic records alone. Leaving out what stands in the training
data would tell what stands in it. {missing}

## How it was written

{settings}

{given}

{statement}
"""

_FREE = """\
**Writing them cost no further ε.** They follow from {sources}, from public settings and
from public random numbers alone, so that whatever holds for {both} holds for them, however
many are written and whoever reads them (post-processing). That is:
**(ε = {epsilon}, δ = {delta})-differential privacy** for one {unit}, {adjacency}, {sampling}
sampling, by {method}; all of it is below."""

_VOID = """\
**This file is NOT private.** It rests on an adapter for which no ε may be claimed, and nothing that
is done afterwards makes it private:

{reasons}"""


_COUNTED = """\
How many records each label has follows from counts of the private data's labels, one vote a unit,
with discrete Gaussian noise of standard deviation {noise}. They were released once, by
`recipes/count_labels.py`, and charged to a ledger of their own, whose last hash is `{head}`; what
is stated at the top is for both releases together, and the statement below for the training
alone."""

UNTAUGHT = (
    "Texts were begun by a token that stood before none in training, so that how they begin is the "
    "base's, and was not learned; public beginnings would help."
)


@dataclass(frozen=True, kw_only=True)
class SyntheticFile:
    """What was written, and how.

    Attributes:
        path: of the file of JSON lines.
        records: in its order.
        asked: how many were asked for.
        dropped: how many were dropped, by reason.
        base: the model that the adapter is for.
        settings: all that the records follow from, besides the adapter.
        counted: the ledger of the noised counts of labels, where they were asked for by those.
    """

    path: Path
    records: Sequence[Mapping[str, Any]]
    asked: int
    dropped: Mapping[str, int]
    base: str
    settings: Mapping[str, Any]
    counted: LedgerRecord | None = None

    @property
    def content(self) -> bytes:
        """The file's bytes."""
        return "".join(f"{line_of(record)}\n" for record in self.records).encode()


def write_with_card(*, file: SyntheticFile, record: LedgerRecord) -> dict[str, Any]:
    """Write `FILE.card.json`, `FILE.card.md`, and then the file, so that it is never alone.

    Args:
        file: what was written.
        record: the ledger of the run whose adapter wrote it.

    Returns:
        What the card for machines says.
    """
    name = file.path.name
    people, machines = (file.path.with_name(f"{name}.card.{kind}") for kind in ("md", "json"))
    facts = facts_of(file=file, record=record)
    document = json.dumps(facts, indent=2, ensure_ascii=False)
    write_file(path=machines, content=f"{document}\n".encode())
    write_file(path=people, content=card_of(file=file, record=record).encode())
    write_file(path=file.path, content=file.content)
    return facts


def price_of(*, record: LedgerRecord, counted: LedgerRecord | None) -> Guarantee:
    """What the adapter cost, or adapter and noised counts of labels together.

    Raises:
        LedgerError: their units or adjacencies differ, so that no one guarantee covers both.

    Source: adaptive composition, as in `merge_ledgers`.
    """
    claim = claim_of(plan=record.plan, record=record)
    if counted is None:
        return claim
    both = merge_ledgers(records={"training": record, "label counts": counted}, delta=claim.delta)
    if both.together is not None:
        return both.together
    return replace(claim, epsilon=math.inf).noted(both.notes)


def facts_of(*, file: SyntheticFile, record: LedgerRecord) -> dict[str, Any]:
    """The card for machines: all that `privacy.json` says of the adapter, and what was written."""
    facts = stated_facts(record=record, ledger=LEDGER)
    if file.counted is not None:
        price = price_of(record=record, counted=file.counted)
        event = Composed(events=(record.event, file.counted.event))
        bounds = attack_bounds(event=event, claim=price)
        facts |= {
            "guarantee": price.to_json(),
            "attack_risk": None if bounds is None else bounds._asdict(),
            "label_counts": {"plan": dict(file.counted.plan), "head": file.counted.head},
        }
    return {
        "dpacc": version("dpacc"),
        **facts,
        "synthetic": {
            "file": file.path.name,
            "sha256": hashlib.sha256(file.content).hexdigest(),
            "records": len(file.records),
            "asked": file.asked,
            "dropped": {reason: file.dropped.get(reason, 0) for reason in REASONS},
            "further_epsilon": 0,
            "counts_labels": file.counted is not None,
            "base": file.base,
            "settings": dict(file.settings),
        },
    }


def card_of(*, file: SyntheticFile, record: LedgerRecord) -> str:
    """The card for people, in Markdown."""
    claim = price_of(record=record, counted=file.counted)
    missing = file.asked - len(file.records)
    return _CARD.format(
        name=file.path.name,
        count=len(file.records),
        base=file.base,
        dpacc=version("dpacc"),
        cost=_cost(claim, record.plan, both=file.counted is not None),
        proof=f"{file.path.name}.card.json",
        head=record.head,
        dropped=table(
            [(f"{why}: {REASONS[why]}", file.dropped.get(why, 0)) for why in REASONS],
            header=("reason", "records"),
        ),
        missing=f"{missing} of {file.asked} that were asked for are missing.",
        settings=table(list(file.settings.items())),
        given=_given(file),
        statement=one_level_down(statement(plan=record.plan, record=record).strip()),
    )


def _cost(claim: Guarantee, plan: Mapping[str, Any], *, both: bool) -> str:
    if faults := void_because(claim):
        return _VOID.format(reasons="\n".join(f"- {fault}" for fault in faults))
    counts = "the noised counts of labels"
    words = _FREE.format(
        sources=f"the released adapter, from {counts}" if both else "the released adapter",
        both=f"the adapter and {counts} together" if both else "the adapter",
        epsilon=rounded_up(claim.epsilon),
        delta=rounded_up(claim.delta),
        unit=claim.unit,
        adjacency=claim.adjacency,
        sampling=plan["sampling"],
        method=METHOD_NAMES.get(claim.method, claim.method),
    )
    facts = "".join(f"\n- Qualified: {text}" for text in claim.qualified_by)
    return f"{words}\n{facts}" if facts else words


def _given(file: SyntheticFile) -> str:
    settings = file.settings
    if file.counted is not None:
        return _COUNTED.format(noise=file.counted.plan["count_noise"], head=file.counted.head)
    if settings.get("prompts"):
        return (
            "Its prompts stand in it as they were given, and nothing above protects whoever stands "
            "in them: whoever gave them took them from a public source."
        )
    if settings.get("labels_from"):
        return "How many records each label has was given, from a public source, and not counted."
    if settings.get("untaught_start"):
        return UNTAUGHT
    return "Nothing was given to the model but the beginning of a text."
