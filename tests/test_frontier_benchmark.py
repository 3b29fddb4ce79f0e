"""The frontier's benchmark runs from fetched files to its lines, on a tiny model and few texts."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3TextConfig,
    LlamaConfig,
    Qwen2Config,
)

from tests.tiny_models import LLAMA_LIKE, save_tiny_llama, tiny_tokenizer

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
WORDS = ["Review", ":", "Sentiment", "positive", "negative", "film", "joy", "dull", "long", "was"]
COUNTS = {"train": 40, "validation": 10, "held_out": 60}
FEW = {"layers": 1, "texts": 40, "held_out": 60, "validation": 10}
COLON_LAST = [*(word for word in WORDS if word != ":"), ":"]
LARGE_WEIGHTS = {**LLAMA_LIKE, "initializer_range": 0.2}
OTHERS = {
    "llama": LlamaConfig(**LARGE_WEIGHTS),
    "qwen2": Qwen2Config(**LARGE_WEIGHTS),
    "gemma3": Gemma3TextConfig(
        **LARGE_WEIGHTS,
        head_dim=8,
        query_pre_attn_scalar=8,
        layer_types=["sliding_attention", "full_attention"],
        sliding_window=3,
        final_logit_softcapping=5.0,
    ),
}
"""Of each family a tiny model, whose weights are so large that what it attends to shows."""


def texts(seed: int) -> str:
    """A dozen words, and a colon."""
    drawn = np.random.default_rng(seed).integers(5, 10, 12)
    return " ".join([*(WORDS[at] for at in drawn), ":"])


def write_data(folder: Path) -> None:
    """Reviews, sentences and chats as `recipes/fetch_benchmarks.py` leaves them."""
    for source in ("imdb_reviews", "rotten_tomatoes", "chats"):
        (folder / source).mkdir()
        for start, (part, count) in enumerate(COUNTS.items()):
            records = [
                {
                    "id": f"{part}{at}",
                    "text": texts(1000 * start + at),
                    "completion": f" {WORDS[3 + at % 2]}",
                    "senders": ["a", "b"] if at else ["a"],
                    "turns": [{"sender": "a", "text": texts(1000 * start + at)}],
                }
                for at in range(count + 1)
            ]
            lines = "".join(json.dumps(record) + "\n" for record in records)
            (folder / source / f"{part}.jsonl").write_text(lines)


@pytest.fixture
def frontier(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The benchmark with a tiny model, few texts and two steps a run."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    script = importlib.import_module("frontier")
    layers, tasks = (importlib.import_module(each) for each in ("upper_layers", "frontier_tasks"))
    save_tiny_llama(tmp_path / layers.MODEL.name, words=WORDS)
    write_data(tmp_path)
    monkeypatch.setattr(layers, "DATA", tmp_path)
    monkeypatch.setattr(layers, "MODEL", tmp_path / layers.MODEL.name)
    monkeypatch.setattr(tasks, "VOCABULARY", 12)
    monkeypatch.setattr(script, "SIZES", dict.fromkeys(script.SIZES, (40, 1)))
    monkeypatch.setattr(script, "EPSILONS", (8.0,))
    monkeypatch.setattr(script, "RATES", (1e-3, 3e-3))
    for rows in script.ROWS.values():
        for name, row in rows.items():
            monkeypatch.setitem(rows, name, replace(row, batch=20))
    return script


@pytest.fixture
def other(
    frontier: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[str], torch.nn.Module]:
    """Leaves a base of a family in the folder `other`, and gives it."""

    def save(family: str) -> torch.nn.Module:
        torch.manual_seed(0)
        base: torch.nn.Module = AutoModelForCausalLM.from_config(OTHERS[family]).eval()
        base.save_pretrained(tmp_path / "other")
        # A family's own class would not read one token a word.
        words = tiny_tokenizer(COLON_LAST)
        monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: words)
        return base

    return save


def run(script: ModuleType, folder: Path, *arguments: str) -> list[str]:
    """The lines that one command prints."""
    given = ["--folder", str(folder), "--results", str(folder / "results.jsonl"), *arguments]
    return CliRunner().invoke(script.main, given, catch_exceptions=False).output.splitlines()


def kept(folder: Path) -> list[dict[str, Any]]:
    """The results so far."""
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("task", ["chats", "sentiment"])
def test_a_row_is_tuned_on_validation_texts_and_kept(
    frontier: ModuleType, tmp_path: Path, task: str
) -> None:
    """The best of the rates on validation texts, beyond an end of them too, is what is shown."""
    main = ("--task", task, "main", "--row", "dpacc, lora", "--seeds", "2")
    lines = run(frontier, tmp_path / "out", *main)
    assert lines[0].startswith("untrained: ")
    results = kept(tmp_path / "out")
    tried = {r["run"]["learning_rate"]: r for r in results if "seed" not in r["run"]}
    assert len(tried) >= 3
    measure = "accuracy" if task == "sentiment" else "perplexity"
    order = sorted(tried, key=lambda rate: tried[rate]["validation"][measure])
    best = order[-1] if task == "sentiment" else order[0]
    assert tried[best]["validation"][measure] == pytest.approx(
        tried[float(lines[-1].split("rate ")[1].split(":")[0])]["validation"][measure]
    )
    assert results[-1]["run"]["seed"] == 1
    assert all(r["noise_multiplier"] > 0 for r in results)
    before = (tmp_path / "out/results.jsonl").read_bytes()
    assert run(frontier, tmp_path / "out", *main) == lines
    assert (tmp_path / "out/results.jsonl").read_bytes() == before


def test_rates_that_are_given_are_the_only_ones(frontier: ModuleType, tmp_path: Path) -> None:
    """Whichever of them is best, none beyond is tried."""
    which = ("--row", "dpacc, lora", "--seeds", "1", "--rate", "1e-2", "--rate", "3e-2")
    run(frontier, tmp_path / "out", "--task", "sentiment", "main", *which)
    assert [r["run"]["learning_rate"] for r in kept(tmp_path / "out")] == [1e-2, 3e-2]


def test_opacus_learns_the_same_texts_and_the_lead_has_an_error(
    frontier: ModuleType, tmp_path: Path
) -> None:
    """Both tools' runs end in a line, and the difference is that of the texts that both saw."""
    which = ("--row", "Opacus", "--row", "dpacc, whitened", "--epsilon", "inf", "--seeds", "1")
    lines = run(frontier, tmp_path / "out", "--task", "reviews", "main", *which)
    assert lines[-1].startswith("ε ∞ dpacc, whitened ahead of Opacus by ")
    assert "% of perplexity" in lines[-1]
    shown = run(frontier, tmp_path / "out", "--task", "reviews", "show")
    assert len(shown) == len(kept(tmp_path / "out"))


@pytest.mark.skipif(sys.version_info < (3, 13), reason="opake.accounting is imported by 3.13")
@pytest.mark.parametrize("row", ["Opake", "Opake, 4 bands"])
def test_opake_learns_the_same_texts(frontier: ModuleType, tmp_path: Path, row: str) -> None:
    """Its run, with independent or with correlated noise, is calibrated by its own accountant."""
    pytest.importorskip("opake.accounting")
    run(frontier, tmp_path / "out", "try", "--row", row, "--rate", "1e-2")
    (found,) = kept(tmp_path / "out")
    assert found["run"]["tool"] == "Opake"
    assert found["noise_multiplier"] > 0


def test_less_noise_than_asked_is_called_an_oracle(frontier: ModuleType, tmp_path: Path) -> None:
    """Half the noise is half of the calibrated one, and is named as what is not private."""
    only = ("--only", "as in", "--only", "half")
    lines = run(frontier, tmp_path / "out", "limits", "--rate", "1e-3", *only)
    assert [line.split(",")[0] for line in lines] == [
        "as in the table",
        "half the noise (an oracle",
    ]
    whole, half = kept(tmp_path / "out")
    assert "noise_share" not in whole["run"]
    assert half["noise_multiplier"] == pytest.approx(whole["noise_multiplier"] / 2, abs=1e-5)


def test_more_of_the_plan_is_handed_on(frontier: ModuleType, tmp_path: Path) -> None:
    """What a run says of dpacc's plan reaches it, and tells its result from others."""
    run(frontier, tmp_path / "out", "try", "--change", '{"plan": {"unit": "conversation"}}')
    run(frontier, tmp_path / "out", "try")
    first, second = kept(tmp_path / "out")
    assert first["run"].pop("plan") == {"unit": "conversation"}
    assert first["run"] == second["run"]
    with pytest.raises(TypeError, match="no_such_setting"):
        run(frontier, tmp_path / "out", "try", "--change", '{"plan": {"no_such_setting": 1}}')


def test_correlated_noise_is_made_for_the_run(frontier: ModuleType, tmp_path: Path) -> None:
    """A row of banded noise is planned for the run's own rates and average, and kept as such."""
    banded = '{"batch": 10, "plan": {"correlation": "banded", "bands": 2}}'
    run(frontier, tmp_path / "out", "try", "--change", banded)
    run(frontier, tmp_path / "out", "try", "--change", '{"batch": 10}')
    first, second = kept(tmp_path / "out")
    assert first["run"]["plan"] == {"correlation": "banded", "bands": 2}
    assert first["noise_multiplier"] != second["noise_multiplier"]
    assert first["validation"]["loss"] != second["validation"]["loss"]


def test_a_stopped_computation_of_states_goes_on(
    frontier: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches that were done are not done again, and the file is the same as in one go."""
    states = importlib.import_module("cached_states")
    monkeypatch.setattr(states, "_TOKENS_AT_ONCE", 24)
    ids = [[3 + at % 5] * (2 + at % 7) for at in range(30)]
    layers = importlib.import_module("upper_layers")
    given = {"model": layers.MODEL, "layers": 1, "token_ids": ids, "name": "x"}
    whole, starts = states.states_beneath(folder=tmp_path / "whole", **given)
    isfinite, left = np.isfinite, [3]

    def stop(values: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return isfinite(values)

    with monkeypatch.context() as patch:
        patch.setattr(np, "isfinite", stop)
        with pytest.raises(KeyboardInterrupt):
            states.states_beneath(folder=tmp_path / "stopped", **given)
    assert int(next((tmp_path / "stopped").glob("*.done")).read_text()) == 2
    again, _ = states.states_beneath(folder=tmp_path / "stopped", **given)
    assert torch.equal(whole, again)
    assert [path.suffix for path in (tmp_path / "stopped").iterdir()] == [".float32"]
    assert len(whole) == starts[-1]


@pytest.mark.parametrize("family", list(OTHERS))
def test_what_is_read_above_is_what_lies_beneath(
    other: Callable[[str], torch.nn.Module], tmp_path: Path, family: str
) -> None:
    """Losses of the upper layers on cached states are the whole model's on the same tokens, among
    the same words, of which the colon is one though its number is the largest."""
    tasks, whole = importlib.import_module("frontier_tasks"), other(family)
    task = tasks.load_task("chats", model="other", folder=tmp_path / "out", **FEW)
    words = tasks.words_of(tiny_tokenizer(COLON_LAST))
    assert words == [*range(11), 13]
    for row in task.texts.rows[:5]:
        logits = whole(torch.tensor([row["input_ids"]])).logits[0][:, words].float()
        assert 11 in row["targets"]
        learned = [at for at, target in enumerate(row["targets"]) if target >= 0]
        rights = torch.tensor([row["targets"][at] for at in learned])
        expected = torch.nn.functional.cross_entropy(logits[learned], rights)
        found = task.texts.losses(task.base.eval(), task.texts.collate([row]))
        assert found.item() == pytest.approx(expected.item(), abs=2e-3)


@pytest.mark.parametrize("family", list(OTHERS))
def test_the_word_after_a_prompt_is_what_the_whole_model_says(
    other: Callable[[str], torch.nn.Module], tmp_path: Path, family: str
) -> None:
    """Where one position is read, a base of another family computes what the whole of it does."""
    tasks, whole = importlib.import_module("frontier_tasks"), other(family)
    task = tasks.load_task("sentiment", model="other", folder=tmp_path / "out", **FEW)
    words = tiny_tokenizer(COLON_LAST).convert_tokens_to_ids(["negative", "positive"])
    rows = task.texts.rows[:5]
    logits = [whole(torch.tensor([row["input_ids"]])).logits[0, -1, words] for row in rows]
    rights = torch.tensor([row["word"] for row in rows])
    expected = torch.nn.functional.cross_entropy(torch.stack(logits), rights, reduction="none")
    found = task.texts.losses(task.base.eval(), task.texts.collate(rows))
    assert found.tolist() == pytest.approx(expected.tolist(), abs=2e-3)


def test_another_base_is_told_by_the_task(
    frontier: ModuleType, other: Callable[[str], torch.nn.Module], tmp_path: Path
) -> None:
    """Its result stands beside SmolLM2's, which keeps its name, and its states in a folder."""
    run(frontier, tmp_path / "out", "try")
    other("gemma3")
    run(frontier, tmp_path / "out", "--model", "other", "try")
    usual, found = kept(tmp_path / "out")
    assert (usual["task"], found["task"]) == ("chats-40", "chats-40-other")
    assert usual["run"] == found["run"]
    assert len(list((tmp_path / "out/other").glob("chats-beneath-1-*"))) == 1


def test_an_example_is_a_conversation(frontier: ModuleType, tmp_path: Path) -> None:
    """Each gives one passage, from a turn that its id chose; one without an answer gives none."""
    tasks = importlib.import_module("frontier_tasks")
    said = [{"sender": "a", "text": f"turn {at}"} for at in range(9)]
    starts = {
        tasks._from_some_turn({"id": str(at), "senders": ["a", "b"], "turns": said})
        for at in range(60)
    }
    assert starts == {"\n".join(turn["text"] for turn in said[at:]) for at in range(9)}
    assert tasks._from_some_turn({"id": "1", "senders": ["a"], "turns": said}) == ""


def test_missing_data_says_what_to_run(frontier: ModuleType, tmp_path: Path) -> None:
    """One line names the recipe that fetches it."""
    load = importlib.import_module("frontier_tasks").load_task
    with pytest.raises(SystemExit, match=r"other is missing: a `recipes/fetch_\*\.py` brings it"):
        load("chats", model="other", folder=tmp_path, **FEW)
    (tmp_path / "chats/train.jsonl").unlink()
    with pytest.raises(SystemExit, match=r"run `python recipes/fetch_benchmarks.py`"):
        load("chats", folder=tmp_path, **FEW)
