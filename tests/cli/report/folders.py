"""Folders of finished runs, as recipes leave them, without any training."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

import pytest
from dpacc_accounting import Ledger, read_ledger, statement

from dpacc.artifacts.progress_chart import Measurement
from dpacc.artifacts.proof import RUN_FILE, adapter_checksums, privacy_document, run_document
from dpacc.plan import PrivacyPlan

PLAN = PrivacyPlan(
    dataset_size=1000,
    expected_batch_size=50,
    steps=6,
    noise_multiplier=1.0,
    max_grad_norm=1.0,
    target_delta=1e-5,
)
FIXED_SEED = ("fixed-seed", "the noise came from the fixed seed 7")
LOGGED = ("non-private-metrics", "training losses were logged")


def finished_run(
    folder: Path,
    *,
    plan: PrivacyPlan = PLAN,
    notes: Iterable[tuple[str, str]] = (),
    quality: tuple[float, float] | None = (120.0, 80.0),
    settings: dict[str, object] | None = None,
) -> Path:
    """A run's folder whose ledger charges all of a plan's steps, with all that states it."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    with Ledger.open(path=folder / "ledger.jsonl", plan=plan.to_json()) as book:
        for subject, text in notes:
            book.note(subject=subject, text=text)
        for step in range(plan.steps):
            book.charge(step=step, event=plan.charge(step))
        book.saved(files=adapter_checksums(folder=folder))
    state(folder)
    if quality is not None:
        course = [
            Measurement(step=step, epsilon=9.0, quality=value)
            for step, value in zip((0, plan.steps), quality, strict=True)
        ]
        told = {"model": "tiny", "lora_rank": 8} | (settings or {})
        (folder / RUN_FILE).write_bytes(run_document(settings=told, course=course))
    return folder


def nobody_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other accountants stay silent, and few steps are priced: neither is what a test is about."""

    def silent(**_: object) -> None:
        raise ValueError("no second opinion in this test")

    monkeypatch.setattr("dpacc.cli.report.gathered.compare", silent)
    monkeypatch.setattr("dpacc.cli.report.gathered._known_samples", lambda *_: None)
    monkeypatch.setattr("dpacc.cli.report.gathered._POINTS", 2)


def no_attackers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole trade-off curves take long: from now on all are one that finds little."""
    curve = (math.inf, 0.05, 0.1)
    monkeypatch.setattr("dpacc_accounting.ledger.claims._by_curve", lambda *_: curve)


def state(folder: Path) -> None:
    """Write proof and card anew from the ledger."""
    record = read_ledger(path=folder / "ledger.jsonl")
    (folder / "privacy.json").write_bytes(privacy_document(record=record, ledger="ledger.jsonl"))
    (folder / "README.md").write_text(f"# Mine\n\n{statement(plan=record.plan, record=record)}")


def audit_file(path: Path, **changes: object) -> Path:
    """What `dpacc audit --json` prints, with some fields changed."""
    found = {
        "claim": {"epsilon": 2.0, "delta": 1e-5},
        "confidence": 0.95,
        "canaries": 1000,
        "guesses": 100,
        "correct": 60,
        "epsilon_at_least": 0.4,
        "refuted": False,
    }
    path.write_text(json.dumps(found | changes))
    return path
