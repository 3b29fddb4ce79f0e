"""Hospitals that differ in what they treat, how many patients they have, and how they write."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpacc.errors import ConfigurationError
from dpacc.federated.healthcare.notes import note_about, patient_drawn
from dpacc.federated.healthcare.vocabulary import Life, Vocabulary
from dpacc.federated.healthcare.writing_style import Style, style_drawn
from dpacc.federated.setting_limits import require_count

_PLACES = ("north", "south", "east", "west", "centre", "harbour", "hill", "lake", "river", "park")
_HELD_OUT_LIVES = 4
"""Every so many lives one is held out."""


@dataclass(frozen=True, kw_only=True)
class Hospital:
    """One hospital.

    Args:
        name: its speciality, and a place.
        speciality: what it treats.
        patients: how many it has, whose notes are its own.
        style: how it writes.
    """

    name: str
    speciality: str
    patients: int
    style: Style


def hospitals_drawn(
    *,
    vocabulary: Vocabulary,
    count: int = 20,
    fewest: int = 50,
    most: int = 200,
    seed: int = 0,
) -> list[Hospital]:
    """Hospitals of every speciality in turn, of sizes that are even on a logarithmic scale.

    Args:
        vocabulary: names the specialities.
        count: how many hospitals.
        fewest: patients of the smallest.
        most: patients of the largest.
        seed: of sizes and styles.

    Raises:
        ConfigurationError: a count that is none, or more hospitals than there are names for.

    >>> from dpacc.federated.healthcare.vocabulary import small_vocabulary
    >>> drawn = hospitals_drawn(vocabulary=small_vocabulary(), count=3, fewest=10, most=40)
    >>> [(each.name, each.patients) for each in drawn]
    [('cardiology-north', 20), ('dermatology-north', 10), ('cardiology-south', 40)]
    """
    for name, value in (("count", count), ("fewest", fewest), ("most", most)):
        require_count(name, value)
    known = vocabulary.specialities
    if count > len(known) * len(_PLACES):
        raise ConfigurationError(
            f"count={count} hospitals of {len(known)} specialities: at most "
            f"{len(known) * len(_PLACES)} have a name"
        )
    sizes = [
        round(math.exp(math.log(fewest) + share * (math.log(most) - math.log(fewest))))
        for share in (place / max(1, count - 1) for place in range(count))
    ]
    draw = random.Random(f"hospitals {seed}")
    draw.shuffle(sizes)
    return [
        Hospital(
            name=f"{known[at % len(known)]}-{_PLACES[at // len(known)]}",
            speciality=known[at % len(known)],
            patients=size,
            style=style_drawn(draw),
        )
        for at, size in enumerate(sizes)
    ]


def write_hospitals(
    *,
    folder: Path,
    hospitals: Sequence[Hospital],
    vocabulary: Vocabulary,
    held_out: int = 30,
    seed: int = 0,
) -> None:
    """Each hospital's notes as `<name>.jsonl`, and `held_out_<name>.jsonl` of other patients.

    A held-out patient has neither name nor life in common with any other: the lives that it may
    have are set aside.

    Args:
        folder: for the files.
        hospitals: of these patients.
        vocabulary: what they are about.
        held_out: patients of each hospital that are measured on.
        seed: of everything that is drawn.
    """
    for hospital in hospitals:
        draw = random.Random(f"{hospital.name} {seed}")
        every = vocabulary.lives_of(hospital.speciality)
        apart = every[::_HELD_OUT_LIVES] if len(every) > 1 else every
        own = [each for each in every if each not in apart] or every
        for prefix, lives, count in (
            ("", own, hospital.patients),
            ("held_out_", apart, held_out),
        ):
            notes = _notes(hospital, vocabulary, lives, f"{prefix}{hospital.name}", count, draw)
            _write(folder / f"{prefix}{hospital.name}.jsonl", notes)


def _notes(
    hospital: Hospital,
    vocabulary: Vocabulary,
    lives: Sequence[Life],
    name: str,
    patients: int,
    draw: random.Random,
) -> list[dict[str, Any]]:
    """One or two notes of each patient."""
    found = []
    for number in range(patients):
        patient = patient_drawn(
            name=f"{name}-{number:04}",
            life=draw.choice(lives),
            vocabulary=vocabulary,
            speciality=hospital.speciality,
            draw=draw,
        )
        for _ in range(draw.choice((1, 1, 2))):
            found.append(note_about(patient=patient, style=hospital.style, draw=draw))
    return found


def _write(path: Path, notes: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(note) + "\n" for note in notes), encoding="utf-8")
