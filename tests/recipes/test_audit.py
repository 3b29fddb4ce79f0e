"""The audit recipe, whole: canaries in the data of a real run, and what their scores prove."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from dpacc_accounting import read_ledger

from dpacc.errors import ConfigurationError
from dpacc.randomness import correlated_noise
from dpacc.recipe.settings import read_settings
from tests.recipes.training import WORDS, durations, write_texts, written
from tests.tiny_models import save_tiny_llama

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    """The recipe's own module, loaded from its file."""
    spec = importlib.util.spec_from_file_location("audit_recipe", ROOT / "recipes/audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["audit_recipe"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """A tiny model, forty texts and nearly a thousand canaries."""
    save_tiny_llama(tmp_path / "model", words=WORDS)
    write_texts(tmp_path / "private.jsonl", count=40)
    values: dict[str, Any] = {
        "model": tmp_path / "model",
        "train_data": tmp_path / "private.jsonl",
        "output_dir": tmp_path / "runs",
        "epsilon": 4,
        "steps": 2,
        "expected_batch_size": 960,
        "private_examples": 30,
        "text_canaries": 30,
        "canary_kind": "new-tokens",
        "canary_tokens": 4,
        "gradient_canaries": 900,
        "lora_target_modules": "q_proj,v_proj",
        "dtype": "float32",
        "confidence": 0.9999,
        "learning_rate": 5e-3,
    }
    return [f"--{name}={value}" for name, value in values.items()]


def test_an_honest_run_is_measured_and_not_refuted(
    recipe: ModuleType, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 0, two audits with claim and confidence, scores, figures and a ledger, and no times."""
    assert recipe.main(arguments) == 0
    said, watched = capsys.readouterr()
    assert durations(said + watched + written(tmp_path / "runs")) == []
    assert said.count("not refuted") == 2
    assert said.count("claimed ε") == 2
    folder = tmp_path / "runs/run"
    for kind, count in (("text", 30), ("gradient", 900)):
        scores = json.loads((folder / f"{kind}_scores.json").read_text())
        assert len(scores["scores"]) == len(scores["included"]) == count
        assert scores["plan"]["dataset_size"] == 960
        assert (folder / f"{kind}_audit.png").read_bytes().startswith(b"\x89PNG")
    assert len(read_ledger(path=folder / "ledger.jsonl").releases) == 2


def test_a_run_without_its_noise_is_refuted(
    recipe: ModuleType, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The noise is scaled away behind the ledger's back: exit 1."""
    honest = correlated_noise.standard_normals
    monkeypatch.setattr(
        correlated_noise, "standard_normals", lambda **words: 0.01 * honest(**words)
    )
    assert recipe.main([*arguments, "--confidence=0.9", "--epsilon=1"]) == 1


@pytest.mark.parametrize(
    "settings",
    [
        ["--canary_kind=unique-tokens", "--text_canaries=8", "--text_score=losses"],
        ["--canary_kind=random", "--text_score=fall", "--gradient_canaries=0"],
        ["--cache_frozen_activations=true", "--lora_top_layers=1", "--optimizer=sgd"],
        ["--canary_kind=high-temperature", "--canary_temperature=2", "--gradient_canaries=0"],
    ],
    ids=["losses", "fall", "frozen", "sampled"],
)
def test_every_kind_of_canary_and_reading_goes_through(
    recipe: ModuleType, arguments: list[str], settings: list[str], tmp_path: Path
) -> None:
    """Scores are finite, of different canaries differ, and one a canary is kept.

    Two of 30 falls of a float32 loss are the same once in a thousand runs, without anything wrong.
    """
    assert recipe.main([*arguments, "--expected_batch_size=30", *settings]) == 0
    kept = json.loads((tmp_path / "runs/run/text_scores.json").read_text())
    assert len(kept["scores"]) == len(kept["included"])
    assert len(set(kept["scores"])) >= len(kept["scores"]) - 1


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["--canary_kind=rare-tokens", "--text_canaries=500"], "token of their own"),
        (["--gradient_canaries=1"], "take 0, or at least 2"),
    ],
)
def test_canaries_that_tell_nothing_are_refused(
    recipe: ModuleType, arguments: list[str], settings: list[str], complaint: str
) -> None:
    """More canaries than tokens, or one alone, with what to do instead."""
    with pytest.raises(ConfigurationError, match=complaint):
        recipe.main([*arguments, *settings])


def test_settings_without_effect_are_refused(recipe: ModuleType, arguments: list[str]) -> None:
    """A schedule, held-out data or an unused temperature would be ignored: told, by name."""
    with pytest.raises(ConfigurationError, match="warmup_steps has no effect"):
        recipe.main([*arguments, "--warmup_steps=1"])
    with pytest.raises(ConfigurationError, match="canary_temperature has no effect"):
        recipe.main([*arguments, "--canary_temperature=2"])


def test_the_shipped_configuration_is_accepted(recipe: ModuleType) -> None:
    """Every YAML in recipes/configs/audit parses into an AuditConfig as it is."""
    shipped = sorted((ROOT / "recipes/configs/audit").glob("*.yaml"))
    assert shipped
    for path in shipped:
        config = read_settings(kind=recipe.AuditConfig, arguments=["--config", str(path)])
        assert config.name
