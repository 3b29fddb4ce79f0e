"""The sweep: one budget on private data, every combination on public data."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from dpacc_accounting import Selected, read_ledger
from peft import PeftModel
from transformers import AutoModelForCausalLM

from dpacc.cli import terminal
from tests.recipes.test_train import as_arguments, material, settings  # noqa: F401
from tests.scripts import load_script

RECIPE = Path(__file__).parents[2] / "recipes/sweep.py"


@pytest.fixture(scope="module")
def sweep() -> ModuleType:
    """The recipe's own module, loaded from its file."""
    return load_script(RECIPE)


def values(material: Path, runs: Path, **changes: object) -> list[str]:  # noqa: F811
    base = settings(material, runs) | {"vary": "learning_rate=1e-3 1e-1", "trials": 2}
    return as_arguments({**base, **changes})


def test_a_private_search_costs_its_budget_as_a_whole(
    sweep: ModuleType,
    material: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The folder holds the best adapter only, and its ledger charges the selection, within ε."""
    sweep.main(values(material, tmp_path))
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
    out, err = capsys.readouterr()
    assert "the whole search" in out
    assert "perplexity" in out
    assert "trial" not in err


def test_public_trials_are_all_shown_and_go_on_where_they_stopped(
    sweep: ModuleType,
    material: Path,  # noqa: F811
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
    assert "4 trials, best first" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vary": "learning_rate"}, "must read"),
        ({"vary": "epsilon=1 8"}, "cannot be varied in a private search"),
        ({"vary": "model=a b"}, "run a sweep for each"),
        ({"vary": "rank=4 8"}, "rank"),
        ({"vary": "lora_rank=4 0"}, "lora_rank"),
        ({"held_out_data": "null"}, "nothing to compare"),
        ({"trials": 0}, "at least 1"),
    ],
)
def test_a_mistake_is_told_before_any_trial(
    sweep: ModuleType,
    material: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    words: str,
) -> None:
    """Exit code 2, one line, and nothing is left behind."""
    with pytest.raises(SystemExit) as caught, terminal.one_line_errors():
        sweep.main(values(material, tmp_path / "runs", **changes))
    assert caught.value.code == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
