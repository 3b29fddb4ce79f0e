"""The scenario protects patients, measures others, and says what sharing adds."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from dpacc_accounting import read_ledger
from transformers import AutoModel

from dpacc.data.entity_spans import EntityScore
from dpacc.errors import ConfigurationError
from dpacc.federated import DPSettings, HealthcareFederation, LoraSettings
from dpacc.federated.healthcare.comparison import difference, f1_of, mean_f1, own_and_other
from dpacc.federated.healthcare.hospitals import hospitals_drawn, write_hospitals
from dpacc.federated.healthcare.vocabulary import small_vocabulary
from tests.tiny_models import CONFIGURATIONS, tiny_tokenizer


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Notes of two hospitals of six patients, and a tiny BERT."""
    folder = tmp_path_factory.mktemp("place")
    vocabulary = small_vocabulary()
    hospitals = hospitals_drawn(vocabulary=vocabulary, count=2, fewest=6, most=6)
    write_hospitals(folder=folder / "notes", hospitals=hospitals, vocabulary=vocabulary, held_out=2)
    tiny_tokenizer(["no", "syncope", "pruritus"]).save_pretrained(folder / "model")
    torch.manual_seed(0)
    AutoModel.from_config(copy.deepcopy(CONFIGURATIONS["bert"])).save_pretrained(folder / "model")
    return folder


def scenario(place: Path, folder: Path, *, notes: Path | None = None) -> HealthcareFederation:
    """Two hospitals, whose budgets name no unit."""
    return HealthcareFederation(
        hospitals={
            name: DPSettings(epsilon=epsilon, delta=1e-3, expected_batch_size=3)
            for name, epsilon in (("cardiology-north", 5.0), ("dermatology-north", 9.0))
        },
        data=notes or place / "notes",
        model_name=str(place / "model"),
        folder=folder,
        rounds=1,
        lora_config=LoraSettings(rank=2, target_modules=("query",), top_layers=1),
        max_length=16,
    )


def test_a_patient_is_what_every_ledger_protects(place: Path, tmp_path: Path) -> None:
    """Six patients at each hospital and twelve in one place, there at the strictest ε."""
    hospitals = scenario(place, tmp_path)
    together = hospitals.train()
    pooled = hospitals.train_pooled()
    hospitals.close()
    for name, ledger, size, epsilon in (
        ("north", tmp_path / "cardiology-north", 6, 5.0),
        ("north", tmp_path / "dermatology-north", 6, 9.0),
        ("pooled", tmp_path / "pooled/everything", 12, 5.0),
    ):
        plan = read_ledger(path=ledger / "ledger.jsonl").plan
        assert (plan["unit"], plan["dataset_size"], plan["target_epsilon"]) == (
            "patient",
            size,
            epsilon,
        ), name
    assert together.history.guarantee().worst_server.server.unit == "patient"
    assert together.scores.keys() == pooled.scores.keys()


def test_whoever_is_trained_on_is_not_measured_on(place: Path, tmp_path: Path) -> None:
    """One note of a training patient among another hospital's held-out ones is refused."""
    notes = tmp_path / "notes"
    notes.mkdir()
    for path in (place / "notes").iterdir():
        (notes / path.name).write_bytes(path.read_bytes())
    trained = (notes / "cardiology-north.jsonl").read_text().splitlines()[0]
    with (notes / "held_out_dermatology-north.jsonl").open("a") as file:
        file.write(trained + "\n")
    with pytest.raises(ConfigurationError, match=r"1 of those .* cardiology-north\.jsonl"):
        scenario(place, tmp_path / "run", notes=notes)
    assert json.loads(trained)["patient"].startswith("cardiology-north")


def score(f1: float, support: int = 1) -> EntityScore:
    """With this F1."""
    return EntityScore(precision=f1, recall=f1, f1=f1, support=support)


def test_what_sharing_adds_is_a_mean_of_pairs() -> None:
    """With its standard error."""
    gain = difference({"a": 0.2, "b": 0.4, "c": 0.6}, {"a": 0.3, "b": 0.6, "c": 0.9})
    assert gain.mean == pytest.approx(0.2)
    assert gain.error == pytest.approx(0.1 / 3**0.5)
    with pytest.raises(ConfigurationError, match="same names"):
        difference({"a": 0.1}, {"b": 0.2})


def test_a_hospital_without_an_entity_is_left_out_of_its_mean() -> None:
    """Its F1 would be zero whatever is predicted; alone, own and others' notes are told apart."""
    scores = {
        "a": {"all": score(0.5), "dose": score(0.4)},
        "b": {"all": score(0.1), "dose": score(0.0, support=0)},
    }
    assert mean_f1(scores, "dose") == 0.4
    assert f1_of(scores) == {"a": 0.5, "b": 0.1}
    assert own_and_other({"a": scores, "b": scores}) == (
        {"a": 0.5, "b": 0.1},
        {"a": 0.1, "b": 0.5},
    )
