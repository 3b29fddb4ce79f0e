"""What standards and laws ask of a private run, and what answers it here or why nothing does.

All of it stands in `compliance.yaml`, beside this file; `docs/compliance.md` shows it whole, and a
run's report the rows that apply. It is no legal advice, and a row that has an answer is no finding
of conformity.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, Self

import yaml

from dpacc.errors import ConfigurationError

NOT_ADVICE = (
    "Differential privacy is not de-identification: no name is removed from any record, and what "
    "is bounded is how far one unit can have changed what was released. Nothing here is legal "
    "advice, or says that a law or a standard is met."
)
"""What has to stand wherever a row is shown."""

_FACTS: Mapping[str, tuple[str | bool, ...]] = {
    "run": ("training", "federation", "synthetic"),
    "unit": ("example", "owner", "client"),
    "noise": ("gaussian", "discrete_gaussian"),
    "secure_sum": (True, False),
}
_DOCUMENT_FIELDS = {"name", "title", "read", "rows"}
_ROW_FIELDS = {"reference", "question", "answer", "where", "not_covered", "applies"}


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What has to be known of a run to tell which questions are asked of it.

    Args:
        run: a training run, a federation, or synthetic text by a run's adapter.
        unit: what is protected: one example, all examples of one owner, or a federation's client.
        noise: the plan's.
        secure_sum: whether clients hide their updates in a sum.
    """

    run: Literal["training", "federation", "synthetic"] = "training"
    unit: Literal["example", "owner", "client"] = "example"
    noise: Literal["gaussian", "discrete_gaussian"] = "gaussian"
    secure_sum: bool = False

    @classmethod
    def of_plan(cls, plan: Mapping[str, Any]) -> Self:
        """Those of the training run that a ledger's first line describes.

        >>> Circumstances.of_plan({"unit": "patient", "noise": "discrete_gaussian"})
        Circumstances(run='training', unit='owner', noise='discrete_gaussian', secure_sum=False)
        """
        return cls(
            unit="example" if plan["unit"] == "example" else "owner",
            noise=plan.get("noise", "gaussian"),
        )


@dataclass(frozen=True, kw_only=True)
class Row:
    """One question.

    Args:
        document: the short name of what asks it.
        reference: where, as it was read.
        question: in words of this project's own.
        answer: what is here; empty where nothing is.
        where: commands (`dpacc ...`), paths in the repository, some with a #heading, and run/FILE
            for a file of a run's folder.
        not_covered: what is not here, and why; empty where nothing is missing.
        applies: the circumstances in which it is asked; empty for all.
    """

    document: str
    reference: str
    question: str
    answer: str = ""
    where: tuple[str, ...] = ()
    not_covered: str = ""
    applies: Mapping[str, str | bool]

    def is_asked_of(self, circumstances: Circumstances) -> bool:
        """Whether all that it applies to is so."""
        return self.applies.items() <= asdict(circumstances).items()


@dataclass(frozen=True, kw_only=True)
class Document:
    """A standard, an opinion or a law.

    Args:
        name: short.
        title: in full.
        read: which version and which parts of it were read, and how.
        rows: its questions, in its own order.
    """

    name: str
    title: str
    read: str
    rows: tuple[Row, ...]


def rows_for(circumstances: Circumstances) -> tuple[Row, ...]:
    """The questions that are asked of a run, document after document.

    >>> rows = rows_for(Circumstances(noise="discrete_gaussian"))
    >>> [row.reference for row in rows if "floating point" in row.reference]
    ['§ 4.3, hazard on implementations, floating point under discrete noise']
    """
    return tuple(
        row for document in documents() for row in document.rows if row.is_asked_of(circumstances)
    )


@cache
def documents() -> tuple[Document, ...]:
    """All documents with all their questions.

    >>> [document.name for document in documents()]  # doctest: +NORMALIZE_WHITESPACE
    ['NIST SP 800-226 (draft)', 'EDPB 28/2024', 'OWASP AISVS 1.0', 'GDPR', 'HIPAA, 45 CFR']
    """
    text = files(__package__).joinpath("compliance.yaml").read_text(encoding="utf-8")
    return read_documents(text)


def read_documents(text: str) -> tuple[Document, ...]:
    """Read and check what `compliance.yaml` holds.

    Raises:
        ConfigurationError: a field is missing, unknown or empty, a question has neither answer nor
            reason, an answer does not say where it stands, or a reference stands there twice.

    >>> read_documents("documents: [{name: A, title: An act, read: all of it, rows: []}]")
    (Document(name='A', title='An act', read='all of it', rows=()),)
    """
    try:
        found = tuple(_document(each) for each in yaml.safe_load(text)["documents"])
    except (yaml.YAMLError, TypeError, KeyError) as error:
        raise ConfigurationError(f"compliance.yaml cannot be read: {error}") from None
    _require_once(row for document in found for row in document.rows)
    return found


def _document(said: Mapping[str, Any]) -> Document:
    name = str(said.get("name"))
    _require_fields(said, known=_DOCUMENT_FIELDS, needed=_DOCUMENT_FIELDS, of=name)
    rows = tuple(_row(name, each) for each in said["rows"])
    return Document(name=name, title=said["title"], read=said["read"], rows=rows)


def _row(document: str, said: Mapping[str, Any]) -> Row:
    of = f"{document}, {said.get('reference')}"
    _require_fields(said, known=_ROW_FIELDS, needed={"reference", "question"}, of=of)
    row = Row(
        document=document,
        **{key: said[key] for key in said.keys() - {"where", "applies"}},
        where=tuple(said.get("where", ())),
        applies=said.get("applies", {}),
    )
    if not row.answer and not row.not_covered:
        raise ConfigurationError(f"{of}: give an answer, or say in not_covered why there is none")
    if bool(row.answer) != bool(row.where):
        raise ConfigurationError(f"{of}: an answer and where it stands belong together")
    for fact, value in row.applies.items():
        if value not in _FACTS.get(fact, ()):
            raise ConfigurationError(f"{of}: applies {fact}={value!r} is no fact of a run")
    return row


def _require_fields(said: Mapping[str, Any], *, known: set[str], needed: set[str], of: str) -> None:
    if strange := said.keys() - known:
        raise ConfigurationError(f"{of}: unknown fields {sorted(strange)}")
    if missing := needed - said.keys():
        raise ConfigurationError(f"{of}: missing fields {sorted(missing)}")
    for field in known - {"rows", "where", "applies"}:
        if not (isinstance(said.get(field, "-"), str) and said.get(field, "-").strip()):
            raise ConfigurationError(f"{of}: {field}={said[field]!r} is no text")


def _require_once(rows: Iterable[Row]) -> None:
    counted = Counter((row.document, row.reference) for row in rows)
    if twice := [f"{document}, {place}" for (document, place), n in counted.items() if n > 1]:
        raise ConfigurationError(f"references that stand there twice: {'; '.join(twice)}")
