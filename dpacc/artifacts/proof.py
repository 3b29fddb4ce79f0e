"""A run's proof: all that follows from its ledger, and which adapter it saved; and its record.

Needs neither torch nor the adapter's library, so that anybody can compare a folder with its ledger.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dpacc_accounting import LedgerRecord

from dpacc.artifacts.kept.metrics import as_row
from dpacc.artifacts.progress_chart import Measurement

RUN_FILE = "run.json"
"""How a run was told to train, by which versions, and where it stood."""
BASE_WEIGHTS = "base_weights"
_LIBRARIES = ("dpacc", "dpacc-accounting", "torch", "transformers", "accelerate", "peft", "numpy")


def privacy_document(
    *,
    record: LedgerRecord,
    ledger: str,
    files: Mapping[str, str] | None = None,
    base_weights: str | None = None,
) -> bytes:
    """`privacy.json`: what a ledger amounts to, and what it rests on, for machines.

    Args:
        record: of the ledger, which names the files that were saved last.
        ledger: the name of its file.
        files: checksums of what the adapter is used with, which the ledger does not name.
        base_weights: checksum of samples of the base's weights.
    """
    document = {"dpacc": version("dpacc")} | stated_facts(record=record, ledger=ledger)
    beside = {"files": None if files is None else dict(files), BASE_WEIGHTS: base_weights}
    return as_json(document | {name: told for name, told in beside.items() if told is not None})


def said_beside(*, folder: Path, name: str) -> Any:
    """What a folder's `privacy.json` says beside its proof; None where it says nothing."""
    try:
        return json.loads((folder / "privacy.json").read_text(encoding="utf-8")).get(name)
    except (OSError, ValueError, AttributeError):
        return None


def stated_facts(*, record: LedgerRecord, ledger: str) -> dict[str, Any]:
    """All of `privacy.json` that follows from a ledger; arguments as for `privacy_document`."""
    # It prices. A recipe that only looks into a run's folder is to tell mistakes at once.
    from dpacc_accounting.ledger.claims import attack_bounds, claim_of

    claim = claim_of(plan=record.plan, record=record)
    bounds = attack_bounds(event=record.event, claim=claim)
    return {
        "guarantee": claim.to_json(),
        "attack_risk": None if bounds is None else bounds._asdict(),
        "plan": dict(record.plan),
        "ledger": {"file": ledger, "head": record.head},
        "adapter": dict(record.saved[-1]) if record.saved else None,
    }


def adapter_checksums(*, folder: Path) -> dict[str, str]:
    """The SHA-256 of each of the adapter's files in a folder, by its name."""
    names = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
    return checksums(folder=folder, names=[n for n in names if (folder / n).exists()])


def checksums(*, folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of each of these files in a folder, by its name."""
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in sorted(names)
    }


def run_document(*, settings: Mapping[str, Any], course: Sequence[Measurement]) -> bytes:
    """`run.json`: what the card and the picture show, for machines; no proof of anything.

    Args:
        settings: those that the card shows, which name no private data.
        course: where the run stood, in order of steps. A step stands here if quality was measured
            after it, or if it is the last one; a quality or ε that is not finite is null.
    """
    kept = [each for each in course if each.quality is not None or each is course[-1]]
    return as_json(
        {
            "settings": dict(settings),
            "versions": _versions(),
            "course": [as_row(each) for each in kept],
        }
    )


def _versions() -> dict[str, str]:
    """Of the interpreter and the libraries that the noised gradient depends on."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def as_json(document: Any) -> bytes:
    """Strict JSON for a person to read, with the last line closed."""
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
