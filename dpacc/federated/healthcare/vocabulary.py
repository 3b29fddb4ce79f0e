"""What notes are written about: invented lives, and words for what is found."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dpacc.errors import ConfigurationError

Names = tuple[str, ...]
"""One thing's names; the preferred one first."""

_SALTS = re.compile(
    r" (hydrochloride|sodium|potassium|sulfate|succinate|tartrate|mesylate|bitartrate|maleate|"
    r"hyclate|besylate|fumarate|acetate|citrate)\b.*"
)
_PAPERWORK = re.compile(
    "referral|consultation|discharge|education|assessment|reconciliation|review|preparation|"
    "documentation|admission|transfer|counsel|follow|screening|questionnaire|procedure|examination"
)
_SOLD = re.compile(r"(?:\d+ (?:HR|ML) )?([A-Za-z][A-Za-z ,-]*?) (\d[\d.]*) (MG|MCG|UNT)(/ML)?\b")


@dataclass(frozen=True, kw_only=True)
class Drug:
    """A drug as it is prescribed.

    Args:
        name: of its substance.
        strength: a number and its unit; empty where it is not known.
    """

    name: str
    strength: str


@dataclass(frozen=True, kw_only=True)
class Life:
    """One invented person.

    Args:
        speciality: the branch of medicine that treats it.
        sex: "woman" or "man".
        age: in years.
        conditions: diseases.
        drugs: what was prescribed.
        procedures: what was done.
    """

    speciality: str
    sex: str
    age: int
    conditions: Names
    drugs: tuple[Drug, ...]
    procedures: Names


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """All that notes may be about.

    Args:
        lives: invented people of every speciality.
        findings: by speciality, each finding's names.
    """

    lives: Sequence[Life]
    findings: Mapping[str, Sequence[Names]]

    @property
    def specialities(self) -> Names:
        """Branches of medicine, in the order of their findings."""
        return tuple(self.findings)

    def lives_of(self, speciality: str) -> list[Life]:
        """The lives that it treats."""
        return [each for each in self.lives if each.speciality == speciality]

    def drugs_of(self, speciality: str) -> list[Drug]:
        """What it prescribes, each once; where it prescribes nothing, what anybody does."""
        own = dict.fromkeys(d for life in self.lives_of(speciality) for d in life.drugs)
        return list(own or dict.fromkeys(d for life in self.lives for d in life.drugs))

    def procedures_of(self, speciality: str) -> list[str]:
        """What it does, each once; where it does nothing, what anybody does."""
        own = dict.fromkeys(p for life in self.lives_of(speciality) for p in life.procedures)
        return list(own or dict.fromkeys(p for life in self.lives for p in life.procedures))


def read_vocabulary(*, folder: Path | str) -> Vocabulary:
    """What `recipes/fetch_clinical.py` made.

    Args:
        folder: with `lives.jsonl` and `findings.json`.

    Raises:
        ConfigurationError: they are not there.
    """
    place = Path(folder)
    try:
        lines = (place / "lives.jsonl").read_text(encoding="utf-8").splitlines()
        findings = json.loads((place / "findings.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"{folder} holds no lives and findings ({error.strerror}): run "
            "`python recipes/fetch_clinical.py`, or name another folder"
        ) from None
    return Vocabulary(
        lives=[_life(json.loads(line)) for line in lines],
        findings={
            name: [tuple(names) for names in each if len(names) > 0]
            for name, each in findings.items()
        },
    )


def drug_of(display: str) -> Drug | None:
    """A drug's substance and strength, of how Synthea displays it; None of mixtures.

    >>> drug_of("Furosemide 40 MG Oral Tablet")
    Drug(name='furosemide', strength='40 mg')
    >>> drug_of("Acetaminophen 325 MG / Oxycodone Hydrochloride 5 MG Oral Tablet")
    """
    sold = None if " / " in display else _SOLD.match(display)
    if sold is None:
        return None
    name = _SALTS.sub("", sold[1].lower()).partition(",")[0]
    # A strength by volume is not what anybody takes.
    return Drug(name=name, strength="" if sold[4] else f"{sold[2]} {sold[3].lower()}")


def _life(said: Mapping[str, object]) -> Life:
    def names(field: str) -> Names:
        listed = said[field]
        assert isinstance(listed, list)
        return tuple(str(each) for each in listed)

    drugs = (drug_of(each) for each in names("drugs"))
    return Life(
        speciality=str(said["speciality"]),
        sex=str(said["sex"]),
        age=int(str(said["age"])),
        conditions=tuple(each.lower() for each in names("conditions") if _plain(each)),
        drugs=tuple(dict.fromkeys(each for each in drugs if each is not None)),
        procedures=tuple(
            each.lower()
            for each in names("procedures")
            if _plain(each) and not _PAPERWORK.search(each.lower())
        ),
    )


def _plain(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z' -]+", name) is not None and len(name.split()) <= 6


def small_vocabulary() -> Vocabulary:
    """Two specialities of a few words each, for trying things out without any file.

    >>> small_vocabulary().specialities
    ('cardiology', 'dermatology')
    """
    heart = Life(
        speciality="cardiology",
        sex="woman",
        age=71,
        conditions=("essential hypertension", "atrial fibrillation"),
        drugs=(Drug(name="furosemide", strength="40 mg"), Drug(name="warfarin", strength="5 mg")),
        procedures=("angiography of coronary artery", "electrocardiographic procedure"),
    )
    skin = Life(
        speciality="dermatology",
        sex="man",
        age=34,
        conditions=("psoriasis", "atopic dermatitis"),
        drugs=(Drug(name="methotrexate", strength="2.5 mg"), Drug(name="clobetasol", strength="")),
        procedures=("biopsy of skin", "phototherapy"),
    )
    return Vocabulary(
        lives=(heart, skin),
        findings={
            "cardiology": [("palpitations",), ("chest pain", "thoracic pain"), ("syncope",)],
            "dermatology": [("pruritus", "itching"), ("skin rash",), ("dry skin", "xerosis")],
        },
    )
