"""One at a time changes a budget, on this machine and on others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from dpacc_accounting import BudgetError
from dpacc_accounting.budget import grants, key_file, registry

from tests.accounting.budget.budgets import budget_in, run_of, states

ROOT = Path(__file__).parents[3]
fcntl = pytest.importorskip("fcntl")


def test_a_grant_is_decided_under_one_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a run is priced nobody else can hold the key's lock, and other machines see a claim."""
    budget = budget_in(tmp_path)
    key = budget.read().key
    claim = key.with_name(f"{key.name}.claim")
    seen = []

    def look(**asked: object) -> None:
        descriptor = os.open(key, os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)
        seen.append(claim.readlink())
        grants.require_room(**asked)

    monkeypatch.setattr(registry, "require_room", look)
    run_of(budget, "one")
    assert len(seen) == 1
    assert not claim.is_symlink()


def test_another_machines_claim_is_waited_for_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it stays nothing is granted; once it goes, the run begins."""
    budget = budget_in(tmp_path)
    key = budget.read().key
    claim = key.with_name(f"{key.name}.claim")
    claim.symlink_to("node-7 3f1c")
    pauses: list[float] = []
    monkeypatch.setattr(key_file.time, "sleep", pauses.append)
    with pytest.raises(BudgetError, match=r"another machine \(node-7 3f1c\).*delete that file"):
        run_of(budget, "one")
    assert len(pauses) == key_file._CLAIM_TRIES - 1
    monkeypatch.setattr(key_file.time, "sleep", lambda _: claim.unlink())
    run_of(budget, "one")
    assert states(budget) == ["reserved"]


def test_a_claim_that_this_machine_left_is_stale(tmp_path: Path) -> None:
    """Whoever holds the lock here knows that its owner died."""
    budget = budget_in(tmp_path)
    key = budget.read().key
    key.with_name(f"{key.name}.claim").symlink_to(key_file._this_machine())
    run_of(budget, "one")
    assert states(budget) == ["reserved"]


def test_a_disk_without_links_has_claims_of_another_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain file that only one can make serves as well, and a stale one is known."""
    budget = budget_in(tmp_path)
    key = budget.read().key
    claim = key.with_name(f"{key.name}.claim")

    def none(*_: object) -> None:
        if os.path.lexists(claim):
            raise FileExistsError
        raise OSError("no links")

    monkeypatch.setattr(Path, "symlink_to", none)
    claim.write_text(key_file._this_machine())
    run_of(budget, "one")
    claim.write_text("node-7 3f1c")
    monkeypatch.setattr(key_file, "_CLAIM_TRIES", 1)
    with pytest.raises(BudgetError, match="node-7"):
        run_of(budget, "two")


def test_a_torn_head_is_forgotten_and_the_budget_is_ahead(tmp_path: Path) -> None:
    """A key that lacks its budget's last heads, or ends within one, is brought up to date."""
    budget = budget_in(tmp_path)
    key = budget.read().key
    whole = key.read_bytes()
    run_of(budget, "one")
    key.write_bytes(whole + b"0123")
    run_of(budget, "two")
    assert key_file.read_key(path=key).head == budget.read().head
    assert key.stat().st_mode & 0o777 == 0o600


def test_eight_processes_and_their_deaths_never_get_more_than_the_total(tmp_path: Path) -> None:
    """Killed at random calls: by the budget, the ledgers and a witness, ε is within the total."""
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/budget_kills.py", "--kills", "8"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["processes"]["killed"] >= 8
    assert found["operations"]["granted"] > 2
    assert 0 < found["by the budget"] <= found["total"]
    assert found["by the ledgers"] <= found["total"]
