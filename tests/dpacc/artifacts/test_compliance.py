"""Questions of standards and laws: which are asked of a run, and what the file may not hold."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from dpacc.artifacts.compliance import Circumstances, documents, read_documents, rows_for
from dpacc.errors import ConfigurationError

ROW = {"reference": "§ 1", "question": "Is it so?", "answer": "Yes.", "where": ["README.md"]}


def read(*rows: dict[str, Any], **fields: Any) -> Any:
    document = {"name": "Act", "title": "An act", "read": "all of it", "rows": [*rows], **fields}
    return read_documents(yaml.safe_dump({"documents": [document]}))


def references(**facts: Any) -> set[tuple[str, str]]:
    return {(row.document, row.reference) for row in rows_for(Circumstances(**facts))}


def test_a_run_is_asked_what_concerns_it_and_nothing_else() -> None:
    """Unit, noise, federation and secure sum bring their own rows, and take others' away."""
    plain = references()
    owners = references(unit="owner")
    assert plain ^ owners == {
        ("NIST SP 800-226 (draft)", "§ 2.4, hazard on event-level privacy"),
        ("NIST SP 800-226 (draft)", "§ 2.4, bounding contributions"),
    }
    assert len(plain ^ references(noise="discrete_gaussian")) == 2
    federated, hidden = references(run="federation"), references(run="federation", secure_sum=True)
    assert plain < federated < hidden
    assert ("OWASP AISVS 1.0", "4.3.1") in federated - plain
    assert hidden - federated == {("NIST SP 800-226 (draft)", "§ 4.2.3, secure computation")}


def test_every_row_is_asked_of_some_run() -> None:
    """No condition contradicts itself."""
    asked = {
        place
        for run in ("training", "federation", "synthetic")
        for unit in ("example", "owner")
        for noise in ("gaussian", "discrete_gaussian")
        for place in references(run=run, unit=unit, noise=noise, secure_sum=run == "federation")
    }
    assert asked == {(row.document, row.reference) for each in documents() for row in each.rows}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answer": "", "where": []}, "answer='' is no text"),
        ({"answer": 7}, "answer=7 is no text"),
        ({"where": []}, "an answer and where it stands belong together"),
        ({"proof": "none"}, "unknown fields ['proof']"),
        ({"applies": {"unit": "patient"}}, "applies unit='patient' is no fact of a run"),
        ({"applies": {"colour": "red"}}, "applies colour='red' is no fact of a run"),
    ],
)
def test_a_row_that_answers_nothing_is_refused(change: dict[str, Any], said: str) -> None:
    """Whoever edits the file is told which row, and what is wrong with it."""
    with pytest.raises(ConfigurationError) as refused:
        read({**ROW, **change})
    assert str(refused.value) == f"Act, § 1: {said}"


def test_neither_silence_nor_repetition_passes() -> None:
    """No question without answer or reason, no row without a question, no reference twice."""
    with pytest.raises(ConfigurationError, match="give an answer, or say in not_covered why"):
        read({"reference": "§ 1", "question": "Is it so?"})
    with pytest.raises(ConfigurationError, match="missing fields"):
        read({"reference": "§ 1"})
    with pytest.raises(ConfigurationError, match="stand there twice: Act, § 1"):
        read(ROW, ROW)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_documents("documents: [")
    assert read(ROW, {**ROW, "reference": "§ 2"})[0].rows[1].reference == "§ 2"
