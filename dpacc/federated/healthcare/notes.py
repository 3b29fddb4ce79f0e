"""Notes about invented patients, whose entities are known because they were put there."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from dpacc.federated.healthcare.note_templates import NOTES
from dpacc.federated.healthcare.vocabulary import Drug, Life, Names, Vocabulary
from dpacc.federated.healthcare.writing_style import Style, abbreviated, misspelt

ENTITIES = ("problem", "drug", "dose", "procedure")
"""What is looked for in notes."""

LABELS = ("O", *(f"{place}-{entity}" for entity in ENTITIES for place in "BI"))
"""Each word's class: the beginning of an entity, inside one, or neither."""

_SLOTS = re.compile(r"\{(\w+)\}|([^{}]+)")
_SECTIONS = 2
"""Of each note, so that it is as short as what is kept of it."""

_OFTEN = ("daily", "bid", "tid", "twice a day", "every morning", "at night", "q6h", "weekly")


@dataclass(frozen=True, kw_only=True)
class Patient:
    """Somebody who never lived, at one hospital.

    Args:
        name: of the privacy unit; no person's.
        life: what befell it.
        findings: what is found now, each by all its names.
        drugs: what it takes.
        procedures: what is done to it.
    """

    name: str
    life: Life
    findings: tuple[Names, ...]
    drugs: tuple[Drug, ...]
    procedures: Names


def patient_drawn(
    *, name: str, life: Life, vocabulary: Vocabulary, speciality: str, draw: random.Random
) -> Patient:
    """A patient with this life, whose findings are mostly of the speciality.

    Args:
        name: of the privacy unit.
        life: of its conditions, drugs and procedures.
        vocabulary: what may be found, taken and done.
        speciality: whose findings it has.
        draw: decides.
    """
    findings = draw.choices(vocabulary.findings[speciality], k=6)
    findings += draw.choices(vocabulary.findings[life.speciality], k=2)
    drugs = [*life.drugs, *draw.choices(vocabulary.drugs_of(speciality), k=3)]
    procedures = [*life.procedures, *draw.choices(vocabulary.procedures_of(speciality), k=3)]
    return Patient(
        name=name,
        life=life,
        findings=tuple(findings),
        drugs=tuple(draw.sample(drugs, k=min(5, len(drugs)))),
        procedures=tuple(draw.sample(procedures, k=min(4, len(procedures)))),
    )


def note_about(*, patient: Patient, style: Style, draw: random.Random) -> dict[str, Any]:
    """One note: its `words`, the `label` of each, its `kind`, and whose it is.

    Args:
        patient: whom it is about.
        style: how it is written.
        draw: decides everything else.
    """
    (kind,) = draw.choices(list(style.kinds), weights=list(style.kinds.values()))
    writer = _Writer(patient, style, draw)
    sections = NOTES[kind]
    for place in sorted(draw.sample(range(len(sections)), k=_SECTIONS)):
        section = sections[place]
        if style.manner:
            heading = section.short if style.short_headings else section.heading
            writer.put(style.manner.format(heading), None)
        writer.fill(style.wording_of(section.wordings, draw))
    return {
        "words": writer.words,
        "label": writer.labels,
        "kind": kind,
        "patient": patient.name,
    }


class _Writer:
    """The words so far, and the class of each."""

    def __init__(self, patient: Patient, style: Style, draw: random.Random) -> None:
        self.words: list[str] = []
        self.labels: list[str] = []
        self._patient, self._style, self._draw = patient, style, draw
        self._drug: Drug | None = None
        self._plain = _fillers(patient, draw)
        self._entities: Mapping[str, Callable[[], str]] = {
            "problem": self._finding,
            "condition": partial(self._any_of, patient.life.conditions),
            "drug": self._drug_name,
            "dose": self._strength,
            "procedure": partial(self._any_of, patient.procedures),
        }

    def fill(self, wording: str) -> None:
        """Write a wording, with what it has room for."""
        for slot, words in _SLOTS.findall(wording):
            if words:
                self.put(words.strip(), None)
            elif slot == "absent":
                self.fill(self._draw.choice(self._style.denials))
            elif slot in self._entities:
                entity = "problem" if slot == "condition" else slot
                self.put(self._entities[slot](), entity)
            else:
                self.put(self._plain[slot](), None)

    def put(self, text: str, entity: str | None) -> None:
        """Write some words, as this hospital would."""
        draw, style = self._draw, self._style
        words = abbreviated(text, chance=style.abbreviates, draw=draw).split()
        for place, word in enumerate(words):
            self.words.append(misspelt(word, chance=style.misspells, draw=draw))
            self.labels.append("O" if entity is None else f"{'I' if place else 'B'}-{entity}")

    def _any_of(self, names: Names) -> str:
        # An entity that the patient has none of is left out whole.
        return self._draw.choice(names) if names else ""

    def _finding(self) -> str:
        names = self._draw.choice(self._patient.findings)
        return names[0] if self._style.plain_names else self._draw.choice(names)

    def _drug_name(self) -> str:
        self._drug = self._draw.choice(self._patient.drugs) if self._patient.drugs else None
        return "" if self._drug is None else self._drug.name

    def _strength(self) -> str:
        strength = "" if self._drug is None else self._drug.strength
        return strength.replace(" ", "") if self._style.joined_doses else strength


def _fillers(patient: Patient, draw: random.Random) -> Mapping[str, Callable[[], str]]:
    """What is written where no entity stands."""

    def number(low: int, high: int) -> Callable[[], str]:
        return lambda: str(draw.randint(low, high))

    return {
        "age": lambda: str(patient.life.age),
        "sex": lambda: patient.life.sex,
        "date": lambda: f"{draw.randint(1, 28)}/{draw.randint(1, 12)}",
        "year": number(1990, 2025),
        "days": number(2, 21),
        "number": number(2, 60),
        "rate": number(55, 120),
        "percent": number(88, 100),
        "kilos": number(48, 110),
        "warmth": lambda: f"{draw.randint(360, 395) / 10}",
        "pressure": lambda: f"{draw.randint(95, 180)}/{draw.randint(50, 100)}",
        "clock": lambda: f"{draw.randint(0, 23):02}:{draw.randint(0, 59):02}",
        "often": lambda: draw.choice(_OFTEN),
    }
