"""The sweep: one budget on private data, every combination on public data."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from dpacc_accounting import Selected, read_ledger
from peft import PeftModel
from transformers import AutoModelForCausalLM

from dpacc.data.supervision import tokenize_examples
from dpacc.errors import ConfigurationError
from dpacc.layers.whitening import WhitenedLinear
from dpacc.recipe.evaluation import held_out_perplexity
from dpacc.recipe.examples import pad_examples
from dpacc.recipe.models import load_adapter, load_base
from dpacc.recipe.settings import read_settings
from dpacc.step.engine import PrivacyEngine
from tests.recipes.training import as_arguments, durations, refusal, settings, written
from tests.scripts import load_script

RECIPE = Path(__file__).parents[2] / "recipes/sweep.py"
CONFIGURATIONS = RECIPE.parent / "configs/sweep"


@pytest.fixture(scope="module")
def sweep() -> ModuleType:
    """The recipe's own module, loaded from its file."""
    return load_script(RECIPE)


def values(material: Path, runs: Path, **changes: object) -> list[str]:
    base = settings(material, runs) | {"vary": "learning_rate=1e-3 1e-1", "trials": 2}
    return as_arguments({**base, **changes})


def test_a_private_search_costs_its_budget_as_a_whole(
    sweep: ModuleType,
    material: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The folder holds the best adapter only, and its ledger charges the selection, within ε."""
    sweep.main(values(material, tmp_path))
    out, err = capsys.readouterr()
    assert durations(out + err + written(tmp_path)) == []
    folder = tmp_path / "tiny"
    record = read_ledger(path=folder / "ledger.jsonl")
    (release,) = record.releases
    assert isinstance(release.event, Selected)
    assert release.event.mean_runs == 2
    proof = json.loads((folder / "privacy.json").read_text())
    assert 7.9 < proof["guarantee"]["epsilon"] <= 8
    base = AutoModelForCausalLM.from_pretrained(material / "model")
    loaded = PeftModel.from_pretrained(base, folder)
    assert any("lora_B" in name and p.abs().sum() > 0 for name, p in loaded.named_parameters())
    assert {path.name for path in tmp_path.iterdir()} == {"tiny"}
    assert "the whole search" in out
    assert "perplexity" in out
    assert "trial" not in err


def test_public_trials_are_all_shown_and_go_on_where_they_stopped(
    sweep: ModuleType,
    material: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each combination is run once, even over two launches; the table ranks them."""
    grid = "learning_rate=1e-3 1e-1,lora_method=lora ffa"
    shared = {"lora_top_layers": 1, "cache_frozen_activations": True, "data_is_public": True}
    sweep.main(values(material, tmp_path, vary="learning_rate=1e-3,lora_method=ffa", **shared))
    path = tmp_path / "tiny" / "results.jsonl"
    (first,) = path.read_text().splitlines()
    sweep.main(values(material, tmp_path, vary=grid, **shared))
    lines = path.read_text().splitlines()
    assert lines[0] == first
    found = [json.loads(line) for line in lines]
    assert len({json.dumps(each["settings"]) for each in found}) == len(found) == 4
    assert len({each["perplexity"] for each in found}) == 4
    assert all(7.9 < each["epsilon"] <= 8 for each in found)
    for said in ("delta", "adjacency", "unit", "method", "slack", "void_because", "qualified_by"):
        assert all(said in each for each in found)
    out, err = capsys.readouterr()
    assert "4 trials, best first" in out
    assert durations(out + err + written(tmp_path)) == []


def results(folder: Path) -> list[dict[str, Any]]:
    """What a public sweep has on disk."""
    return [json.loads(line) for line in (folder / "tiny/results.jsonl").read_text().splitlines()]


def test_whitened_trials_are_whitened(
    sweep: ModuleType,
    material: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every trial trains on whitened inputs, and the best adapter reads back with its figures."""
    found: list[int] = []
    prepare = PrivacyEngine.prepare

    def watched(self: PrivacyEngine, model: torch.nn.Module, *others: Any) -> Any:
        layers = [each for each in model.modules() if isinstance(each, WhitenedLinear)]
        found.append(min(layer.directions.shape[1] for layer in layers))
        return prepare(self, model, *others)

    monkeypatch.setattr(PrivacyEngine, "prepare", watched)
    sweep.main(values(material, tmp_path, lora_method="whitened"))
    assert found
    assert min(found) > 0
    base, tokenizer = load_base(model=str(material / "model"), dtype="float32")
    perplexity = held_out_perplexity(
        model=load_adapter(model=base, folder=tmp_path / "tiny"),
        examples=tokenize_examples(
            records=[json.loads(line) for line in (material / "held_out.jsonl").open()],
            tokenizer=tokenizer,
            max_length=512,
        ),
        collate=partial(pad_examples, pad_token_id=tokenizer.pad_token_id),
    )
    assert f"{perplexity:.4g}" in capsys.readouterr().out


def test_results_of_other_settings_are_left_out(
    sweep: ModuleType,
    material: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A trial is known by its whole configuration, whatever else a folder's results are of."""
    shared = {"data_is_public": True, "steps": 2, "vary": "learning_rate=1e-3"}
    sweep.main(values(material, tmp_path, **shared, lora_method="whitened"))
    sweep.main(values(material, tmp_path, **shared | {"steps": 3}))
    first, second = results(tmp_path)
    assert (first["configuration"]["steps"], second["configuration"]["steps"]) == (2, 3)
    assert first["perplexity"] != second["perplexity"]
    out, err = capsys.readouterr()
    assert out.count("1 trial, best first") == 2
    assert f"{second['perplexity']:.4g}" in out.split("best first")[2]
    assert f"{first['perplexity']:.4g}" not in out.split("best first")[2]
    assert "with 1 of other settings" in " ".join((out + err).split())


def test_the_columns_are_what_is_varied_now(
    sweep: ModuleType,
    material: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A second sweep in the folder, over another setting, shows that one's values by its name."""
    shared = {"data_is_public": True, "steps": 2}
    sweep.main(values(material, tmp_path, **shared, vary="lora_rank=3 5"))
    capsys.readouterr()
    sweep.main(values(material, tmp_path, **shared, vary="learning_rate=2e-3"))
    out = capsys.readouterr().out
    assert "learning_rate" in out
    assert "2e-3" in out
    assert "lora_rank" not in out
    assert len(results(tmp_path)) == 3


def test_a_grid_of_budgets_ranks_and_methods_is_drawn(
    sweep: ModuleType,
    material: Path,
    tmp_path: Path,
) -> None:
    """The shipped grid's settings are all run, each within its own ε, and drawn."""
    shipped = yaml.safe_load((CONFIGURATIONS / "ranks.yaml").read_text())["vary"]
    assert [entry.partition("=")[0] for entry in shipped] == ["lora_rank", "lora_method", "epsilon"]
    grid = "lora_rank=1 2,lora_method=ffa whitened,epsilon=2 8"
    picture = tmp_path / "grid.png"
    changes = {"steps": 1, "vary": grid, "data_is_public": True, "picture": picture}
    sweep.main(values(material, tmp_path, **changes))
    spent = [each["epsilon"] for each in results(tmp_path)]
    assert len(spent) == 8
    assert sum(1.9 < epsilon <= 2 for epsilon in spent) == 4
    assert sum(7.9 < epsilon <= 8 for epsilon in spent) == 4
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("path", sorted(CONFIGURATIONS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_sweep_is_read(sweep: ModuleType, path: Path) -> None:
    """Each combination of a shipped sweep is a configuration that can be run."""
    given = ["--config", str(path)]
    config = read_settings(kind=sweep.SweepConfig, arguments=given)
    for cell in config.cells():
        assert read_settings(kind=sweep.SweepConfig, arguments=[*given, *sweep.overrides(cell)])


def test_damaged_results_are_refused(
    sweep: ModuleType,
    material: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A line that was cut off is told, not read over, and the file stays as it is."""
    path = tmp_path / "tiny/results.jsonl"
    path.parent.mkdir()
    path.write_text('{"settings": {"learn')
    again = values(material, tmp_path, data_is_public=True)
    assert "is damaged" in refusal(sweep.main, again, capsys)
    assert path.read_text() == '{"settings": {"learn'


def test_a_trial_that_diverged_never_wins(sweep: ModuleType) -> None:
    """What is no number ranks below the worst perplexity."""
    assert sweep.merit({"perplexity": math.nan}) < sweep.merit({"perplexity": 1e300})
    assert sweep.merit({"accuracy": 0.6}) > sweep.merit({"accuracy": 0.5})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vary": "learning_rate"}, "must read"),
        ({"vary": "lora_rank=4,lora_rank=8"}, "names lora_rank twice"),
        ({"vary": "epsilon=1 8"}, "cannot be varied in a private search"),
        ({"vary": "max_grad_norm=1 8"}, "cannot be varied in a private search"),
        ({"vary": "model=a b"}, "run a sweep for each"),
        ({"vary": "learn_end=true false"}, "run a sweep for each"),
        (
            {"vary": "lora_top_layers=1 2", "cache_frozen_activations": True},
            "lora_top_layers cannot be varied with cache_frozen_activations",
        ),
        ({"vary": "lora_target_modules=q_proj q_porj"}, "q_porj names no linear layer"),
        ({"vary": "lora_top_layers=1 9"}, "lora_top_layers=9 exceeds"),
        ({"lora_top_layers": 2, "cache_frozen_activations": True}, "is trained"),
        (
            {"vary": "lora_target_modules=q_proj q_porj", "data_is_public": True},
            "q_porj names no linear layer",
        ),
        ({"picture": "trials.png"}, "picture shows every trial"),
        ({"picture": "trials.jpg", "data_is_public": True}, "write trials.png"),
        ({"push_to_hub": "someone/adapter"}, "a sweep uploads nothing"),
        ({"vary": "rank=4 8"}, "rank"),
        ({"vary": "lora_rank=4 0"}, "lora_rank"),
        ({"held_out_data": "null"}, "nothing to compare"),
        ({"trials": 0}, "at least 1"),
    ],
)
def test_a_mistake_is_told_before_any_trial(
    sweep: ModuleType,
    material: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    words: str,
) -> None:
    """Exit code 2, one line, and nothing is left behind."""
    wrong = values(material, tmp_path / "runs", **changes)
    assert words in " ".join(refusal(sweep.main, wrong, capsys).split())
    assert not (tmp_path / "runs").exists()


def test_a_private_search_says_by_what_its_adapters_were_whitened(
    sweep: ModuleType,
    material: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The search's own ledger, and so every ε that is stated of it, is qualified by the note."""
    sweep.main(values(material, tmp_path, lora_method="whitened", trials=1.5))
    record = read_ledger(path=tmp_path / "tiny/ledger.jsonl")
    assert [note.subject for note in record.notes] == ["whitening"]
    proof = json.loads((tmp_path / "tiny/privacy.json").read_text())
    assert any("whitened by" in each for each in proof["guarantee"]["qualified_by"])
    assert "qualified" in capsys.readouterr().out


def test_a_private_search_measures_nothing_private(
    sweep: ModuleType,
    material: Path,
    tmp_path: Path,
) -> None:
    """It chooses by held-out metrics: an overlap is refused, and cannot be allowed."""
    same: dict[str, object] = {"held_out_data": material / "private.jsonl"}
    with pytest.raises(ConfigurationError, match="private training data"):
        sweep.main(values(material, tmp_path, **same))
    with pytest.raises(ConfigurationError, match="cannot be among it"):
        sweep.main(values(material, tmp_path, **same, allow_held_out_overlap=True))
    assert not list(tmp_path.iterdir())
