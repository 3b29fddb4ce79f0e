"""docs/federated.md does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from dpacc_accounting import read_ledger

from dpacc.federated.aggregation.averaging import AggregationName
from tests.dpacc.federated.federations import texts

PAGE = (Path(__file__).parents[3] / "docs/federated.md").read_text()


def test_the_page_trains_and_writes_what_compose_reads(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both blocks run: two rounds, two ledgers, an adapter and a rounds file."""
    monkeypatch.chdir(folder)
    for name in ("north", "south"):
        texts(folder / f"{name}.jsonl", count=16)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(block, "federated.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "('north', 'south') {} {}" in printed
    federation = yaml.safe_load((folder / "rounds.yaml").read_text())
    assert [each["name"] for each in federation["clients"]] == ["north", "south"]
    for name in ("north", "south"):
        assert len(read_ledger(path=folder / "run" / name / "ledger.jsonl").releases) == 4
    assert (folder / "run/adapter/adapter_config.json").exists()


def test_the_page_names_every_rule() -> None:
    """The table of averages has one row for each name that is accepted."""
    rows = re.findall(r"^\| `(\w+)` \| `method=", PAGE, flags=re.MULTILINE)
    assert tuple(rows) == AggregationName.__args__  # type: ignore[attr-defined]
