"""A look through private data: what weakens the unit, what teaches nothing, and no word of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dpacc.doctor.private_data import IN_A_ROW, data_findings
from dpacc.recipe.config import TrainingConfig
from tests.tiny_models import save_tiny_llama

WORDS = [f"w{i}" for i in range(40)]
OWN = [" ".join(WORDS[i : i + 6]) for i in range(10)]
QUOTED = " ".join(WORDS[20 : 20 + IN_A_ROW])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose tokens are words."""
    folder = tmp_path_factory.mktemp("model")
    save_tiny_llama(folder, words=WORDS)
    return folder


def found(
    folder: Path, model: Path, *records: tuple[str, str | None], **settings: object
) -> dict[str, tuple[bool, str]]:
    """Each finding by its subject, of records with their owners."""
    rows = ({"text": text, "who": who} for text, who in records)
    (folder / "t.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    plain: dict[str, object] = {"unit_field": "who", "max_length": 8, "steps": 1}
    config = TrainingConfig(
        model=str(model),
        train_data=str(folder / "t.jsonl"),
        epsilon=8.0,
        expected_batch_size=1,
        **plain | settings,  # type: ignore[arg-type]
    )
    return {each.subject: (each.healthy, each.words) for each in data_findings(config=config)}


def test_sound_data_is_healthy(tmp_path: Path, model: Path) -> None:
    """Texts of their own, two an owner; one owner's own repetition is nobody else's affair."""
    said = found(tmp_path, model, *((text, f"p{i // 2}") for i, text in enumerate(OWN)))
    assert all(healthy for healthy, _ in said.values())
    assert "5 whos have 10 records, the one with most 2" in said["records of one who"][1]
    twice = found(tmp_path, model, (OWN[0], "a"), (OWN[0], "a"), (OWN[7], "b"), (OWN[8], "c"))
    assert twice["the same text twice"][0]


def test_a_text_of_several_units_weakens_each(tmp_path: Path, model: Path) -> None:
    """Case and spaces do not tell two apart; it says how many share it, and not what it says."""
    said = found(
        tmp_path, model, (OWN[0], "a"), (OWN[0].upper(), "b"), (f"{OWN[0]}  ", "c"), (OWN[9], "d")
    )
    healthy, words = said["the same text twice"]
    assert not healthy
    assert "1 texts belong to several whos, one of them to 3" in words
    assert "w0" not in words
    alone = found(tmp_path, model, (OWN[0], "a"), (OWN[0], "a"), unit_field=None)
    assert "several examples, one of them to 2" in alone["the same text twice"][1]


def test_what_is_quoted_is_counted(tmp_path: Path, model: Path) -> None:
    """Thirteen words that two owners share, in texts that differ; twelve are not enough."""
    shorter = " ".join(QUOTED.split()[:-1])
    subject = f"{IN_A_ROW} words in a row"
    said = found(tmp_path, model, (f"w0 {QUOTED}", "a"), (f"w1 {QUOTED}", "b"), (OWN[3], "c"))
    assert said[subject] == (False, said[subject][1])
    assert "2 of 3 records" in said[subject][1]
    assert found(tmp_path, model, (f"w0 {shorter}", "a"), (f"w1 {shorter}", "b"))[subject][0]
    assert found(tmp_path, model, (f"w0 {QUOTED}", "a"), (f"w1 {QUOTED}", "a"))[subject][0]


def test_one_owner_of_most_and_what_teaches_nothing(tmp_path: Path, model: Path) -> None:
    """An owner of more than half, empty texts, and texts longer than what is kept."""
    rows = [(OWN[i], "a") for i in range(6)] + [(QUOTED, "b"), ("", "c"), ("w1", "d")]
    said = found(tmp_path, model, *rows, learn_end=False)
    assert said["records of one who"][0] is False
    assert "the one with most 6; unit_cap" in said["records of one who"][1]
    assert said["nothing to learn"][0] is False
    assert "2 of 9 records teach nothing" in said["nothing to learn"][1]
    assert said["cut"] == (True, "1 of 9 records are longer than max_length=8 tokens")
    capped = found(tmp_path, model, *rows, unit_cap=2)
    assert "unit_cap" not in capped["records of one who"][1]


def test_records_that_cannot_be_used_are_told_by_number(tmp_path: Path, model: Path) -> None:
    """A class that is none of the labels, or none at all: the finding, and nothing beyond it."""
    said = found(
        tmp_path,
        model,
        (OWN[0], "good"),
        (OWN[1], None),
        (OWN[2], "other"),
        task="sequence-classification",
        label_field="who",
        labels=("bad", "good"),
        unit_field=None,
    )
    assert list(said) == ["records"]
    healthy, words = said["records"]
    assert not healthy
    assert "lines 3" in words or "line 3" in words
    assert "other" not in words
