"""Is what a run's folder states what its ledger gives, and is its adapter the one that was saved?

Everything is computed anew from the ledger; what stands in `privacy.json` and in the card is only
compared with it. Neither is signed: whoever writes a new ledger can write a new proof beside it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dpacc_accounting import LedgerRecord, statement
from dpacc_accounting.ledger.claims import claim_of

from dpacc.artifacts.model_card import one_level_down
from dpacc.artifacts.proof import adapter_checksums, checksums, stated_facts
from dpacc.doctor.finding import Finding

_ANY_EPSILON = re.compile(r"(?:ε|\bepsilon\b)\W{0,6}(\d+(?:\.\d+)?(?:e[-+]?\d+)?)", re.IGNORECASE)
_ROUNDING = 1e-6
_AS_PRINTED = 0.999


def stated_findings(*, folder: Path, record: LedgerRecord) -> list[Finding]:
    """What `privacy.json` and the card say, where they are there, beside what the ledger gives."""
    return [*_proof(folder, record), *_card(folder, record)]


def origin_findings(*, folder: Path, record: LedgerRecord) -> list[Finding]:
    """Does the ledger say that this run saved the adapter in its folder?"""
    found = adapter_checksums(folder=folder)
    if not found:
        return []
    if not record.saved:
        words = "the ledger does not say which adapter was saved, so this may be another run's"
    elif found in record.saved:
        at = len(record.saved) - [*reversed(record.saved)].index(found)
        words = f"the adapter is save {at} of {len(record.saved)} that the ledger names"
    else:
        last = record.saved[-1]
        other = sorted(n for n in {*found, *last} if found.get(n) != last.get(n))
        words = f"{', '.join(other)} is not what this run saved: its checksum is another"
    return [Finding(subject="origin", healthy=found in record.saved, words=words)]


def _proof(folder: Path, record: LedgerRecord) -> list[Finding]:
    path = folder / "privacy.json"
    if not path.exists():
        return []
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        head = said["ledger"]["head"]
        name = str(said["ledger"].get("file", "ledger.jsonl"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return [Finding(subject="proof", healthy=False, words="privacy.json is damaged")]
    if head != record.head:
        went_on = head in record.chain
        words = "privacy.json names another last line: " + (
            "the ledger went on after it was written, so its ε is too small by now"
            if went_on
            else "the ledger was cut or replaced"
        )
        return [Finding(subject="proof", healthy=False, words=words)]
    differences = list(_differences(stated_facts(record=record, ledger=name), said))
    words = "; ".join(differences) or "privacy.json says what the ledger gives"
    return [
        Finding(subject="proof", healthy=not differences, words=words),
        *_companions(folder, said.get("files")),
    ]


def _companions(folder: Path, said: Any) -> list[Finding]:
    """Configuration and tokenizer, where `privacy.json` names them and they are there."""
    if not isinstance(said, Mapping):
        return []
    there = [name for name in said if Path(name).name == name and (folder / name).is_file()]
    found = checksums(folder=folder, names=there)
    other = sorted(name for name in there if found[name] != said[name])
    words = (
        f"{', '.join(other)} is not what the run was saved with: its checksum is another"
        if other
        else f"{len(there)} files beside the adapter are those it was saved with"
    )
    return [Finding(subject="companions", healthy=not other, words=words)]


def _differences(true: Any, said: Any, where: str = "") -> Iterator[str]:
    """Each place where `said` is not `true`; what it says besides is left alone."""
    if isinstance(true, Mapping) and isinstance(said, Mapping):
        for name, value in true.items():
            place = f"{where}.{name}" if where else name
            if name not in said:
                yield f"privacy.json lacks {place}"
            else:
                yield from _differences(value, said[name], place)
    elif not _same(true, said):
        yield f"privacy.json says {where} = {said}, and the ledger gives {true}"


def _same(true: Any, said: Any) -> bool:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (true, said))
    if numbers:
        return math.isclose(true, said, rel_tol=_ROUNDING)
    return bool(true == said)


def _card(folder: Path, record: LedgerRecord) -> list[Finding]:
    path = folder / "README.md"
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    words = statement(plan=record.plan, record=record).strip()
    held = [each for each in (one_level_down(words), words) if each in text]
    if not held:
        claimed = re.search(r"\(ε = [^)]*\)-differentially", text)
        said = f", but {claimed[0].removesuffix('-differentially')}" if claimed else ""
        complaint = f"the card does not hold the statement that the ledger gives{said}"
        return [Finding(subject="card", healthy=False, words=complaint)]
    least = claim_of(plan=record.plan, record=record).epsilon
    rest = text.replace(held[0], "")
    less = [n for n in _ANY_EPSILON.findall(rest) if float(n) < _AS_PRINTED * least]
    if less:
        complaint = f"the card says ε = {less[0]} beside its statement, which says more"
        return [Finding(subject="card", healthy=False, words=complaint)]
    return [Finding(subject="card", healthy=True, words="the card holds the ledger's statement")]
