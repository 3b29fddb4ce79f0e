"""What a private trainer writes beside the adapters it saves: the guarantee, twice."""

from __future__ import annotations

from pathlib import Path

from dpacc_accounting import read_ledger, statement

from dpacc.artifacts import privacy_document, write_file
from dpacc.plan import PrivacyPlan

_HEADING = "# Privacy statement"


def state_privacy(*, folder: Path, plan: PrivacyPlan, ledger: Path) -> None:
    """Write `privacy.json`, and the statement at the end of the model card in `folder`.

    Both speak of the releases up to now, on which whatever lies there rests.

    Args:
        folder: where adapters were saved.
        plan: what was promised.
        ledger: what was released.
    """
    record = read_ledger(path=ledger)
    guarantee = plan.guarantee(steps=len(record.releases))
    document = privacy_document(
        plan=plan, guarantee=guarantee, ledger=ledger.name, ledger_head=record.head
    )
    write_file(path=folder / "privacy.json", content=document)
    card = folder / "README.md"
    words = card.read_text() if card.exists() else ""
    kept = words.partition(f"\n{_HEADING}")[0].rstrip()
    claim = statement(plan=record.plan, record=record, guarantee=guarantee)
    write_file(path=card, content=f"{kept}\n\n{claim}\n".lstrip().encode())
