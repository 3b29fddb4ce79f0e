"""Synthetic text beside its card, and the counts of labels that it may follow."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from dpacc_accounting import DiscreteGaussian, LedgerRecord, read_ledger
from dpacc_accounting.guarantee import rounded_up

from dpacc.artifacts.proof import checksums
from dpacc.artifacts.synthetic.label_counts import COUNTS, LEDGER
from dpacc.doctor.finding import Finding
from dpacc.doctor.run_folder import noted_findings
from dpacc.doctor.statistics import noise_finding
from dpacc.randomness.discrete_gaussian import discrete_gaussians
from dpacc.randomness.run_secret import RunSecret

_STATED = re.compile(r"\(ε = [^)]*\)-differential privacy")
_DRAWS = 2_000


def written_findings(*, source: Path) -> list[Finding]:
    """Of a synthetic file, or of the folder of label counts; none of anything else.

    Raises:
        LedgerError: the ledger of the counts is damaged or missing.
    """
    if source.is_dir():
        return count_findings(folder=source) if (source / COUNTS).is_file() else []
    return synthetic_findings(file=source) if _card_beside(source).is_file() else []


def _card_beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.card.json")


def synthetic_findings(*, file: Path) -> list[Finding]:
    """Is the file the one that its cards are about, and do both cards promise the same?

    Neither card is signed, and the run's ledger is not looked at: examine its folder, too.

    Args:
        file: of JSON lines, with its card for machines beside it.
    """
    card = _card_beside(file)
    try:
        said = json.loads(card.read_text(encoding="utf-8"))
        guarantee, checksum = said["guarantee"], said["synthetic"]["sha256"]
        void, stated = [*guarantee["void_because"]], _words_of(guarantee)
    except (ValueError, KeyError, TypeError):
        return [Finding(subject="card", healthy=False, words=f"{card.name} is damaged")]
    same = hashlib.sha256(file.read_bytes()).hexdigest() == checksum
    return [
        Finding(
            subject="file",
            healthy=same,
            words="it is what its card is about, by its checksum"
            if same
            else "it is not what its card is about: its checksum is another, and its ε unknown",
        ),
        Finding(
            subject="secret",
            healthy=not void,
            words=f"{'; '.join(map(str, void))}: it is NOT private"
            if void
            else "nothing says that what it rests on is not private",
        ),
        _card_for_people(file.with_name(f"{file.name}.card.md"), stated=stated, void=bool(void)),
    ]


def _words_of(guarantee: Mapping[str, Any]) -> str:
    epsilon, delta = (rounded_up(float(guarantee[name])) for name in ("epsilon", "delta"))
    return f"(ε = {epsilon}, δ = {delta})-differential privacy"


def _card_for_people(card: Path, *, stated: str, void: bool) -> Finding:
    try:
        claimed = _STATED.findall(card.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Finding(subject="card", healthy=False, words=f"{card.name} cannot be read")
    wanted = [] if void else [stated]
    healthy = claimed[:1] == wanted
    words = (
        "both cards say the same ε and δ"
        if healthy
        else (
            f"{card.name} says {', '.join(claimed) or 'no ε'}, and the card for machines "
            f"{stated if wanted else 'that none may be claimed'}"
        )
    )
    return Finding(subject="card", healthy=healthy, words=words)


def count_findings(*, folder: Path) -> list[Finding]:
    """Are these the counts that were charged, once and for their noise, and is it drawn so here?

    Raises:
        LedgerError: the ledger is damaged or missing.
    """
    record = read_ledger(path=folder / LEDGER)
    noise = record.plan.get("count_noise")
    if not isinstance(noise, int):
        words = f"{COUNTS} lies beside no ledger of label counts: nobody knows their cost"
        return [Finding(subject="origin", healthy=False, words=words)]
    return [_charge(record, noise), *noted_findings(record), _counts(folder, record), _noise(noise)]


def _charge(record: LedgerRecord, noise: int) -> Finding:
    owed = DiscreteGaussian(sigma=noise, sensitivity=1)
    healthy = [release.event for release in record.releases] == [owed]
    words = (
        f"one release, charged for noise of {noise} votes"
        if healthy
        else f"{len(record.releases)} charges, and not one for noise of {noise} votes"
    )
    return Finding(subject="charges", healthy=healthy, words=words)


def _counts(folder: Path, record: LedgerRecord) -> Finding:
    saved = record.saved[-1] if record.saved else {}
    healthy = saved == checksums(folder=folder, names=[COUNTS])
    words = (
        "the counts are those that the ledger was charged for"
        if healthy
        else "the counts are not those that the ledger was charged for: nobody knows their cost"
    )
    return Finding(subject="origin", healthy=healthy, words=words)


def _noise(noise: int) -> Finding:
    """Of counts that are all zero, as they are drawn by what is installed here."""
    drawn = discrete_gaussians(
        secret=RunSecret.from_fixed_seed(0),
        step=0,
        purpose="label counts",
        scale=noise,
        count=_DRAWS,
    )
    return noise_finding(
        noise=drawn[None].astype(np.float64), standard_deviation=float(noise), gaussian=False
    )
