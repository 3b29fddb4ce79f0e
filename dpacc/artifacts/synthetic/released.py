"""Which adapter may write: the one that a run's ledger says was saved, and no other."""

from __future__ import annotations

import json
from pathlib import Path

from dpacc_accounting import LedgerRecord, read_ledger

from dpacc.artifacts.proof import adapter_checksums
from dpacc.errors import ConfigurationError

LEDGER = "ledger.jsonl"


def read_release(*, folder: Path) -> LedgerRecord:
    """The ledger of a finished run, whose folder holds the adapter that was saved from it.

    Args:
        folder: of the run.

    Raises:
        LedgerError: the ledger is missing or damaged.
        ConfigurationError: the adapter is not the one that was saved last, none was, or the ledger
            has lost lines that `privacy.json` rests on.
    """
    record = read_ledger(path=folder / LEDGER)
    found = adapter_checksums(folder=folder)
    if not found:
        raise ConfigurationError(f"{folder} holds no adapter; give a run's folder")
    if not record.saved:
        raise ConfigurationError(
            f"{folder}: its ledger does not say that an adapter was saved, so that nobody knows "
            "what this one cost; finish the run with --resume"
        )
    saved = record.saved[-1]
    other = sorted(name for name in {*found, *saved} if found.get(name) != saved.get(name))
    if other:
        raise ConfigurationError(
            f"{folder}: {other[0]} is not the one that its ledger says was saved, so that nobody "
            "knows what it cost; restore the folder as the run left it"
        )
    if _stated_head(folder) not in record.chain:
        raise ConfigurationError(
            f"{folder}: privacy.json rests on a line that its ledger does not hold; restore the "
            "folder as the run left it"
        )
    return record


def _stated_head(folder: Path) -> str | None:
    """The ledger's last hash, as `privacy.json` has it; None where it says nothing."""
    try:
        stated = json.loads((folder / "privacy.json").read_text(encoding="utf-8"))
        return str(stated["ledger"]["head"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
