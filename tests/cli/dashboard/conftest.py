"""What the dashboard's pages are drawn of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.dashboard.folders import budget, federation, runs_of_all_kinds


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of all kinds, a federation and a budget."""
    folder = tmp_path_factory.mktemp("there")
    runs_of_all_kinds(folder / "runs")
    federation(folder / "fed", own={"films": 6, "books": 3})
    budget(folder / "notes")
    return folder
