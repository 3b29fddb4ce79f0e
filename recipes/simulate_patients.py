"""Simulate lives with Synthea, for `recipes/fetch_clinical.py`, which starts this.

    python recipes/simulate_patients.py WISHES.json LIVES.jsonl

`WISHES.json` lists specialities, each with Synthea modules, ages and how many lives. Each line of
`LIVES.jsonl` is one invented person: sex, age, and conditions, drugs and procedures as Synthea
displays them. Nobody's name, address or number is kept. The package `synthea` must be importable.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

SEED = 20
REFERENCE = datetime(2026, 1, 1)
# Tries for one life that falls ill with something of its speciality.
_MOST_TRIES = 3
_NO_DISEASE = re.compile(
    "education|employ|labor force|stress|isolation|contact|violence|housing|refugee|military|"
    "medication review|history of|awaiting|suspected|risk|person|partner|crime|transport|suicide",
    re.IGNORECASE,
)


def main(arguments: Sequence[str]) -> int:
    """Write all lives; return the exit code."""
    wishes, lives = map(Path, arguments)
    logging.disable(logging.CRITICAL)  # of modules that call others, which were not asked for
    with lives.open("w", encoding="utf-8") as file:
        for wish in json.loads(wishes.read_text(encoding="utf-8")):
            for life in simulate(wish):
                file.write(json.dumps(life) + "\n")
    return 0


def simulate(wish: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """So many lives of one speciality, each with a disease."""
    from synthea.engine.generator import Generator, GeneratorOptions
    from synthea.helpers.config import Config

    config, options = Config(), GeneratorOptions()
    config.set("generate.modules.enabled", ",".join(wish["modules"]))
    config.set("generate.clinical_notes", "false")
    options.seed, options.reference_date, options.reference_date_explicit = SEED, REFERENCE, True
    options.min_age, options.max_age = wish["ages"]
    generator, found = Generator(options, config), 0
    for index in range(_MOST_TRIES * wish["lives"]):
        person = generator.generate_person(index)
        life = None if person is None else life_of(person, wish["name"])
        if life is not None:
            found += 1
            yield life
        if found == wish["lives"]:
            return


def life_of(person: Any, speciality: str) -> dict[str, Any] | None:
    """What a note may tell of this person; None if nothing befell it."""
    conditions = displays(person.record.conditions)
    conditions = [name for name in conditions if not _NO_DISEASE.search(name)]
    if not conditions:
        return None
    return {
        "speciality": speciality,
        "sex": "woman" if person.attributes["gender"] == "F" else "man",
        "age": int(person.attributes["age_years"]),
        "conditions": conditions,
        "drugs": displays(person.record.medications),
        "procedures": displays(person.record.procedures),
    }


def displays(entries: Sequence[Any]) -> list[str]:
    """The names of what was recorded, each once, in order."""
    names = [code.display for entry in entries for code in entry.codes]
    return list(dict.fromkeys(re.sub(r" \([a-z/ ]+\)$", "", name) for name in names))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
