"""Synthetic notes: gold by construction, seeded, and unlike one another where hospitals differ."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from dpacc.data.entity_spans import entities_in
from dpacc.errors import ConfigurationError
from dpacc.federated.healthcare.hospitals import hospitals_drawn, write_hospitals
from dpacc.federated.healthcare.note_templates import DENIALS, NOTES
from dpacc.federated.healthcare.notes import ENTITIES, LABELS, note_about, patient_drawn
from dpacc.federated.healthcare.vocabulary import read_vocabulary, small_vocabulary
from dpacc.federated.healthcare.writing_style import style_drawn

VOCABULARY = small_vocabulary()
PLAIN = replace(
    style_drawn(random.Random(0)), abbreviates=0.0, misspells=0.0, joined_doses=False,
    kinds={"discharge": 1.0, "nursing": 1.0},
)  # fmt: skip


def patient(draw: random.Random):
    """Of the small vocabulary's cardiology."""
    return patient_drawn(
        name="p",
        life=VOCABULARY.lives[0],
        vocabulary=VOCABULARY,
        speciality="cardiology",
        draw=draw,
    )


def test_every_gold_entity_is_what_was_put_there() -> None:
    """Without slips each marked run of words is a name of that kind, and none is left unmarked."""
    draw = random.Random(1)
    names = {
        "problem": {*VOCABULARY.lives[0].conditions}
        | {name for names in VOCABULARY.findings["cardiology"] for name in names},
        "drug": {drug.name for drug in VOCABULARY.lives[0].drugs},
        "dose": {drug.strength for drug in VOCABULARY.lives[0].drugs},
        "procedure": {*VOCABULARY.lives[0].procedures},
    }
    seen: Counter[str] = Counter()
    for _ in range(60):
        note = note_about(patient=patient(draw), style=PLAIN, draw=draw)
        marked = [False] * len(note["words"])
        for kind, start, stop in entities_in(note["label"]):
            assert " ".join(note["words"][start:stop]) in names[kind]
            marked[start:stop] = [True] * (stop - start)
            seen[kind] += 1
        rest = [word for word, inside in zip(note["words"], marked, strict=True) if not inside]
        assert not {"furosemide", "warfarin", "palpitations", "syncope", "mg"} & {*rest}
    assert {*seen} == {*ENTITIES}


def test_what_is_denied_is_marked_all_the_same() -> None:
    """A denial has room for one problem, and a note that denies one marks it."""
    assert all(each.count("{problem}") == 1 for each in DENIALS)
    draw = random.Random(2)
    style = replace(PLAIN, kinds={"progress": 1.0}, denials=("negative for {problem}",))
    found = []
    for _ in range(30):
        note = note_about(patient=patient(draw), style=style, draw=draw)
        words, labels = note["words"], note["label"]
        found += [labels[at + 1] for at in range(1, len(words)) if words[at] == "for"
                  and words[at - 1] == "negative"]  # fmt: skip
    assert found
    assert {*found} == {"B-problem"}


def test_templates_have_room_for_known_things_alone() -> None:
    """Every slot of every wording is filled, and all labels are IOB2's of four entities."""
    draw = random.Random(3)
    for kind, sections in NOTES.items():
        for place, section in enumerate(sections):
            for wording in range(len(section.wordings)):
                style = replace(PLAIN, kinds={kind: 1.0}, wordings=(1, wording))
                note = note_about(patient=patient(draw), style=style, draw=draw)
                assert "{" not in " ".join(note["words"]), (kind, place)
                assert {*note["label"]} <= {*LABELS}


def test_hospitals_files_follow_from_the_seed(tmp_path: Path) -> None:
    """The same seed writes the same bytes, another one others; sizes are as drawn."""
    hospitals = hospitals_drawn(vocabulary=VOCABULARY, count=3, fewest=4, most=9)
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_hospitals(
            folder=tmp_path / folder, hospitals=hospitals, vocabulary=VOCABULARY, held_out=3,
            seed=seed,
        )  # fmt: skip
    assert len([*(tmp_path / "a").iterdir()]) == 6
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
        assert path.read_bytes() != (tmp_path / "c" / path.name).read_bytes()
    for hospital in hospitals:
        lines = (tmp_path / "a" / f"{hospital.name}.jsonl").read_text().splitlines()
        assert len({json.loads(line)["patient"] for line in lines}) == hospital.patients


def test_no_patient_and_no_life_is_both_trained_on_and_measured(tmp_path: Path) -> None:
    """Names differ, and diseases of lives that are set aside are in held-out notes alone."""
    life = VOCABULARY.lives[0]
    lives = [replace(life, conditions=(f"disease {letter}",)) for letter in "abcdefgh"]
    vocabulary = replace(VOCABULARY, lives=[*lives, VOCABULARY.lives[1]])
    (hospital,) = hospitals_drawn(vocabulary=vocabulary, count=1, fewest=40, most=40)
    hospital = replace(hospital, style=PLAIN)
    write_hospitals(folder=tmp_path, hospitals=[hospital], vocabulary=vocabulary, held_out=40)
    own, apart = (
        (tmp_path / f"{prefix}{hospital.name}.jsonl").read_text() for prefix in ("", "held_out_")
    )
    told = [
        {each for each in "abcdefgh" if f'"disease", "{each}"' in text} for text in (own, apart)
    ]
    assert told[0]
    assert told[1]
    assert not told[0] & told[1]
    patients = [
        {json.loads(line)["patient"] for line in text.splitlines()} for text in (own, apart)
    ]
    assert not patients[0] & patients[1]


def test_what_was_fetched_is_read(tmp_path: Path) -> None:
    """Doses are of tablets alone, mixtures and paperwork are left out."""
    life = {
        "speciality": "cardiology", "sex": "man", "age": 60,
        "conditions": ["Essential hypertension"],
        "drugs": ["Furosemide 40 MG Oral Tablet", "2 ML Ondansetron 2 MG/ML Injection",
                  "Acetaminophen 325 MG / oxyCODONE Hydrochloride 5 MG Oral Tablet"],
        "procedures": ["Angiography of coronary artery", "Referral to hypertension clinic"],
    }  # fmt: skip
    (tmp_path / "lives.jsonl").write_text(json.dumps(life))
    (tmp_path / "findings.json").write_text(json.dumps({"cardiology": [["syncope", "fainting"]]}))
    vocabulary = read_vocabulary(folder=tmp_path)
    (read,) = vocabulary.lives
    assert [(drug.name, drug.strength) for drug in read.drugs] == [
        ("furosemide", "40 mg"),
        ("ondansetron", ""),
    ]
    assert read.procedures == ("angiography of coronary artery",)
    assert vocabulary.findings["cardiology"] == [("syncope", "fainting")]
    with pytest.raises(ConfigurationError, match="fetch_clinical"):
        read_vocabulary(folder=tmp_path / "nowhere")
