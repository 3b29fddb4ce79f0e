"""The accuracy benchmark runs from texts to its lines, on a tiny model and a few sentences."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from tests.tiny_models import save_tiny_llama

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
WORDS = ["Review", ":", "Sentiment", "positive", "negative", "film", "joy", "dull", "long", "was"]


@pytest.fixture
def utility(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The benchmark with a tiny model, few sentences and two steps a run."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    script = importlib.import_module("utility")
    layers = importlib.import_module("upper_layers")
    save_tiny_llama(tmp_path / "model", words=WORDS)
    (tmp_path / "movie_sentiment").mkdir()
    for part, count in (("train", 40), ("held_out", 12)):
        lines = [
            json.dumps(
                {
                    "prompt": f"Review: {WORDS[5 + i % 5]} film\nSentiment:",
                    "completion": layers.WORDS[i % 2],
                }
            )
            for i in range(count)
        ]
        (tmp_path / f"movie_sentiment/{part}.jsonl").write_text("\n".join(lines))
    monkeypatch.setattr(layers, "DATA", tmp_path)
    monkeypatch.setattr(layers, "MODEL", tmp_path / "model")
    monkeypatch.setattr(script, "MODEL", tmp_path / "model")
    monkeypatch.setattr(layers, "VALIDATION", 10)
    monkeypatch.setattr(script, "EPSILONS", (8.0,))
    monkeypatch.setattr(script, "SEEDS", (0, 1))
    small = replace(script.TOOLS["dpacc"], batch=10, steps=2)
    monkeypatch.setitem(script.TOOLS, "dpacc", small)
    monkeypatch.setitem(script.RATES, "dpacc", (1e-3, 1e-1))
    return script


def test_dpaccs_row_is_measured(utility: ModuleType, tmp_path: Path) -> None:
    """The rate is chosen on validation sentences, seeds measured on held-out ones, all kept."""
    arguments = ["--folder", str(tmp_path / "results"), "main", "--tool", "dpacc"]
    done = CliRunner().invoke(utility.main, arguments, catch_exceptions=False)
    untrained, row = done.output.splitlines()
    assert untrained.startswith("untrained: ")
    results = (tmp_path / "results/results.jsonl").read_text().splitlines()
    kept = [json.loads(line) for line in results]
    assert [each["held_out"] for each in kept] == [False, False, True, True]
    best = max(kept[:2], key=lambda each: each["accuracy"])["run"]["learning_rate"]
    assert {each["run"]["learning_rate"] for each in kept[2:]} == {best}
    assert row.startswith(f"ε 8.0 dpacc, rate {best:g}: ")


def test_ranks_are_measured_and_drawn(
    utility: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line for each method with every rank, and the figure of them all."""
    monkeypatch.setattr(utility, "RANKS", (1, 2))
    monkeypatch.setitem(utility.RATES, "dpacc, plain LoRA", (1e-2,))
    ranked = utility.ranked
    monkeypatch.setattr(
        utility, "ranked", lambda *given: replace(ranked(*given), batch=10, steps=1)
    )
    picture = tmp_path / "ranks.png"
    arguments = ["--folder", str(tmp_path / "results"), "ranks", "--picture", str(picture)]
    done = CliRunner().invoke(utility.main, arguments, catch_exceptions=False)
    lines = done.output.splitlines()
    assert [line.split(",")[0] for line in lines] == ["lora", "ffa"]
    assert all(line.count("%, loss ") == 2 for line in lines)
    assert picture.read_bytes().startswith(b"\x89PNG")
