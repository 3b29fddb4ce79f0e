"""The page on monitoring does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.dpacc.federated.federations import LORA, texts, tiny_folder
from tests.tiny_models import collate, examples

PAGE = (Path(__file__).parents[4] / "docs/monitoring.md").read_text()


def test_the_page_watches_a_federation_and_compares_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All blocks run: two gains, a curve, logs, and a comparison that states ε whole."""
    monkeypatch.chdir(tmp_path)
    tiny_folder(tmp_path)
    for seed, name in enumerate(("north", "south")):
        texts(tmp_path / f"{name}.jsonl", count=16, seed=seed)
    names = {"lora": LORA, "public_examples": examples([5, 9]), "collate": collate}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(block, "monitoring.md", "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["1", "2"]
    assert all("δ = 1e-05)-DP, add-or-remove adjacency, unit: example" in x for x in lines[2:])
    assert (tmp_path / "privacy_utility.svg").read_bytes().startswith(b"<?xml")
    assert list((tmp_path / "run/logs").rglob("events.out.tfevents.*"))
