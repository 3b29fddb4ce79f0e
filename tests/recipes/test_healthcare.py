"""The hospitals' recipe: notes are written, rounds are private per patient, all is compared."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml
from dpacc_accounting import read_ledger
from transformers import AutoModel

from tests.dpacc.artifacts.test_written_files import unknown_files
from tests.recipes.training import refusal
from tests.scripts import load_script
from tests.tiny_models import CONFIGURATIONS, tiny_tokenizer

ROOT = Path(__file__).parents[2]
HOSPITALS = {"cardiology-north": 20.0, "dermatology-north": 50.0, "cardiology-south": 20.0}
LIVES = (
    ("cardiology", "Essential hypertension", "Furosemide 40 MG Oral Tablet", "Angiography"),
    ("cardiology", "Atrial fibrillation", "Warfarin 5 MG Oral Tablet", "Angiography"),
    ("dermatology", "Psoriasis", "Methotrexate 2.5 MG Oral Tablet", "Phototherapy"),
)


@pytest.fixture(scope="module")
def healthcare() -> ModuleType:
    """The script, loaded as a module."""
    return load_script(ROOT / "recipes/healthcare.py")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT, three lives, findings, and budgets of three hospitals."""
    folder = tmp_path_factory.mktemp("hospitals")
    (folder / "clinical").mkdir()
    lives = [
        {"speciality": name, "sex": "man", "age": 50, "conditions": [condition], "drugs": [drug],
         "procedures": [procedure]}
        for name, condition, drug, procedure in LIVES
    ]  # fmt: skip
    (folder / "clinical/lives.jsonl").write_text("\n".join(map(json.dumps, lives)))
    findings = {"cardiology": [["syncope"], ["palpitations"]], "dermatology": [["pruritus"]]}
    (folder / "clinical/findings.json").write_text(json.dumps(findings))
    words = "no denies syncope pruritus psoriasis furosemide 40 mg with presents problem : - #"
    tiny_tokenizer(words.split()).save_pretrained(folder / "model")
    torch.manual_seed(0)
    AutoModel.from_config(copy.deepcopy(CONFIGURATIONS["bert"])).save_pretrained(folder / "model")
    budgets = {
        "delta": 1e-3,
        "defaults": {"expected_batch_size": 4, "unit_field": "patient"},
        "clients": {name: {"epsilon": epsilon} for name, epsilon in HOSPITALS.items()},
    }
    (folder / "budgets.yaml").write_text(yaml.safe_dump(budgets))
    return folder


def arguments(material: Path, runs: Path, **changes: object) -> list[str]:
    settings: dict[str, object] = {
        "model": material / "model",
        "clinical": material / "clinical",
        "data": runs / "notes",
        "budgets": material / "budgets.yaml",
        "fewest_patients": 8,
        "most_patients": 8,
        "held_out_patients": 2,
        "max_length": 24,
        "output_dir": runs,
        "rounds": 1,
        "open_epochs": 1,
        "lora_rank": 2,
        "lora_target_modules": "query,value",
    }
    return [f"--{name}={value}" for name, value in {**settings, **changes}.items()]


def test_hospitals_are_compared_with_training_alone_and_pooled(
    healthcare: ModuleType, material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each ledger keeps its hospital's ε for a patient, and pooled the strictest one.

    Of notes that a stopped run began, for other hospitals perhaps, nothing is among them.
    """
    begun = tmp_path / ".notes.partial"
    begun.mkdir()
    (begun / "surgery-north.jsonl").write_text("{}")
    healthcare.main(arguments(material, tmp_path, compare="true"))
    folder = tmp_path / "healthcare"
    shown = capsys.readouterr()
    assert "Round 1: 3 of 3 hospitals, 0 filtered" in shown.err
    assert "in one place, no privacy" in shown.out
    files = {f"{kind}{name}" for name in HOSPITALS for kind in ("", "held_out_")}
    assert {path.stem for path in (tmp_path / "notes").iterdir()} == files
    for name, epsilon in HOSPITALS.items():
        notes = (tmp_path / f"notes/{name}.jsonl").read_text().splitlines()
        assert len(notes) > 8
        for place in (folder / name, folder / "alone" / name / name):
            plan = read_ledger(path=place / "ledger.jsonl").plan
            assert (plan["unit"], plan["dataset_size"]) == ("patient", 8)
            assert plan["target_epsilon"] == epsilon
    pooled = read_ledger(path=folder / "pooled/everything/ledger.jsonl").plan
    assert (pooled["dataset_size"], pooled["target_epsilon"]) == (24, 20.0)
    scores = json.loads((folder / "scores.json").read_text())
    assert {*scores} == {"federated", "pooled", "without privacy"} | {
        f"alone {name}" for name in HOSPITALS
    }
    assert all({*each} == {*HOSPITALS} for each in scores.values())
    assert (folder / "entities.png").read_bytes().startswith(b"\x89PNG")
    assert unknown_files(folder) == []


@pytest.mark.parametrize(
    "changes",
    [{"secure_sum": "true", "may_drop_out": 1}, {"defence": "clipped-mean", "attackers": 1}],
)
def test_a_federation_may_be_secure_or_robust(
    healthcare: ModuleType, material: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    """All three hospitals' updates are used; nobody trains alone or without noise, if not asked."""
    healthcare.main(arguments(material, tmp_path, **changes))
    history = json.loads((tmp_path / "healthcare/history.json").read_text())
    assert {*history["rounds"][0]["survivors"]} == {*HOSPITALS}
    assert not (tmp_path / "healthcare/alone").exists()
    assert {*json.loads((tmp_path / "healthcare/scores.json").read_text())} == {"federated"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clinical": ""}, "fetch_clinical.py` and add --clinical"),
        ({"clinical": "nowhere"}, "fetch_clinical.py"),
        ({"budgets": "nowhere.yaml"}, "nowhere.yaml cannot be read"),
        ({"round": 3}, "did you mean rounds?"),
    ],
)
def test_a_mistake_is_one_line(
    healthcare: ModuleType,
    material: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    words: str,
) -> None:
    """Exit code 2, what is wrong, and no hospital has spent anything."""
    wrong = arguments(material, tmp_path, **changes)
    assert words in refusal(healthcare.main, wrong, capsys)


def test_hospitals_that_are_not_drawn_are_named(
    healthcare: ModuleType, material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Budgets of another hospital than the notes would be of are refused before any is written."""
    wrong = yaml.safe_load((material / "budgets.yaml").read_text())
    wrong["clients"]["cardiology-moon"] = {"epsilon": 1.0}
    (tmp_path / "budgets.yaml").write_text(yaml.safe_dump(wrong))
    asked = arguments(material, tmp_path, budgets=tmp_path / "budgets.yaml")
    assert "cardiology-moon" in refusal(healthcare.main, asked, capsys)
    assert not (tmp_path / "notes").exists()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "recipes/configs/healthcare").glob("[hrs]*.yaml")), ids=lambda p: p.stem
)
def test_each_shipped_configuration_is_read(healthcare: ModuleType, path: Path) -> None:
    """And its budgets are of twenty hospitals, each with batches of a quarter of its patients."""
    from dpacc.federated import read_budgets
    from dpacc.recipe.settings import read_settings

    config = read_settings(
        kind=healthcare.HealthcareConfig, arguments=["--config", str(path)], usage=""
    )
    budgets = read_budgets(path=ROOT / config.budgets)
    assert len(budgets) == 20
    assert {own.unit_field for own in budgets.values()} == {"patient"}
    assert {own.epsilon for own in budgets.values()} == {1.0, 3.0, 8.0}
