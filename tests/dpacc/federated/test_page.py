"""The pages on federations do what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from dpacc_accounting import calibrate_separated_noise, noise_at_rate, read_ledger

from dpacc.federated.aggregation.averaging import AggregationName
from tests.dpacc.federated.federations import texts

DOCS = Path(__file__).parents[3] / "docs"
START = (DOCS / "federated.md").read_text()
PRIVACY = (DOCS / "federation_privacy.md").read_text()


def executed(page: str) -> dict[str, object]:
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(compile(block, "page.md", "exec"), names)
    return names


@pytest.fixture
def two(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the pages' programs run in, with two clients' records."""
    monkeypatch.chdir(folder)
    for name in ("north", "south"):
        texts(folder / f"{name}.jsonl", count=16)
    return folder


def test_the_start_page_trains_and_writes_what_compose_reads(
    two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All blocks run: two rounds, two ledgers, an adapter that is cut, and a rounds file."""
    names = executed(START)
    assert "('north', 'south') {} {}" in capsys.readouterr().out
    federation = yaml.safe_load((two / "rounds.yaml").read_text())
    assert [each["name"] for each in federation["clients"]] == ["north", "south"]
    for name in ("north", "south"):
        assert len(read_ledger(path=two / "run" / name / "ledger.jsonl").releases) == 4
    assert (two / "run/adapter/adapter_config.json").exists()
    last: Any = names["server"]
    beyond = [p[:, 2:] for name, p in last.model.named_parameters() if "lora_B" in name]
    assert beyond
    assert not any(columns.any() for columns in beyond)


def test_the_privacy_page_sums_what_nobody_sees(
    two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its one program runs by itself, and both clients are in the sum."""
    executed(PRIVACY)
    assert capsys.readouterr().out == "('north', 'south')\n"
    assert (two / "run/hidden-north/rounds_summed.jsonl").exists()


def test_the_page_names_every_rule() -> None:
    """The table of averages has one row for each name that is accepted."""
    rows = re.findall(r"^\| `(\w+)` \| `method=", START, flags=re.MULTILINE)
    assert tuple(rows) == AggregationName.__args__  # type: ignore[attr-defined]


def test_what_correlated_rounds_leave_is_what_the_page_says() -> None:
    """Each row of the table, by bands and by buffers, for sums of equal weight."""
    rows = re.findall(
        r"^\| (\d+) \| (\d+) \| (0\.\d+) \| (0\.\d+) \|$", PRIVACY, flags=re.MULTILINE
    )
    assert len(rows) == 3
    for rounds, separation, *told in rows:
        found = [
            calibrate_separated_noise(
                rounds=int(rounds),
                min_separation=int(separation),
                epsilon=8.0,
                delta=1e-6,
                correlation=correlation,
            ).error
            for correlation in ("banded", "buffers")
        ]
        assert found == pytest.approx([*map(float, told)], abs=5e-4)


def test_when_turns_pay_is_what_the_page_says() -> None:
    """Turns beside secret coins and beside everybody, at ε = 8 and ε = 2: σ on one cohort's sum."""
    words = " ".join(PRIVACY.split())
    told = re.search(
        r"turns leave (\S+) at ε = 8 and (\S+) at ε = 2; cohorts drawn by secret coins (\S+) and "
        r"(\S+), while nobody learns who was drawn. Everybody in every round leaves (\S+) and "
        r"(\S+),",
        words,
    )
    assert told is not None
    figures = [*map(float, told.groups())]
    for at, target in enumerate((8.0, 2.0)):
        asked = {"epsilon": target, "delta": 1e-6}
        apart = calibrate_separated_noise(rounds=50, min_separation=10, **asked)  # type: ignore[arg-type]
        drawn = noise_at_rate(sample_rate=0.1, steps=50, **asked)  # type: ignore[arg-type]
        all_of_them = noise_at_rate(sample_rate=1.0, steps=50, **asked)  # type: ignore[arg-type]
        left = [
            apart.noise_multiplier * apart.error,
            drawn.noise_multiplier,
            all_of_them.noise_multiplier / 10,
        ]
        assert left == pytest.approx(figures[at::2], rel=0.025)
