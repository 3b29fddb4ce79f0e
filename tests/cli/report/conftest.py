"""A run's folder, for all tests of a report."""

from __future__ import annotations

import pytest

from dpacc.cli.report.gathered import RunFacts, gather
from tests.cli.report.folders import finished_run


@pytest.fixture(scope="session")
def facts(tmp_path_factory: pytest.TempPathFactory) -> RunFacts:
    """What a healthy run's folder says of itself."""
    return gather(ledger=finished_run(tmp_path_factory.mktemp("runs") / "fine") / "ledger.jsonl")
