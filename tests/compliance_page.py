"""What docs/compliance.md shows of dpacc/artifacts/compliance.yaml.

python -m tests.compliance_page     writes its tables
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dpacc.artifacts.compliance import Document, Row, documents

PAGE = Path(__file__).parents[1] / "docs/compliance.md"
BEGIN, END = "<!-- questions: begin -->", "<!-- questions: end -->"
_ASKED_OF = {
    ("run", "federation"): "federations",
    ("run", "synthetic"): "synthetic text",
    ("unit", "example"): "unit: example",
    ("unit", "owner"): "unit: owner",
    ("noise", "gaussian"): "Gaussian noise",
    ("noise", "discrete_gaussian"): "discrete noise",
    ("secure_sum", True): "secure sums",
}


def page() -> str:
    """How many rows there are, and each document with its table."""
    return "\n\n".join([_counts(), *map(_section, documents())])


def _counts() -> str:
    rows = [row for document in documents() for row in document.rows]
    whole = sum(1 for row in rows if not row.not_covered)
    none = sum(1 for row in rows if not row.answer)
    return (
        f"{len(rows)} questions: {whole} are answered, {len(rows) - whole - none} in part, "
        f"{none} not covered at all."
    )


def _section(document: Document) -> str:
    heads = ["where it asks", "question", "here", "where", "not covered"]
    lines = [f"## {document.title}", "", f"Read: {document.read}", "", _line(heads)]
    return "\n".join([*lines, "|---|---|---|---|---|", *map(_row, document.rows)])


def _row(row: Row) -> str:
    places = "; ".join(map(_place, row.where))
    asked_of = ", ".join(_ASKED_OF[fact] for fact in row.applies.items())
    question = f"({asked_of}) {row.question}" if asked_of else row.question
    return _line(
        [row.reference, question, row.answer or "–", places or "–", row.not_covered or "–"]
    )


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _place(place: str) -> str:
    """A command as it is typed, a file of a run by its name, and a link to any other file."""
    if place.startswith("dpacc "):
        return f"`{place}`"
    if place.startswith("run/"):
        return f"`{place.removeprefix('run/')}` of the run"
    if place.startswith("docs/"):
        target = place.removeprefix("docs/")
        return f"[{target.replace('#', ': ').replace('-', ' ')}]({target})"
    return f"[`{place}`](../{place})"


def write_page(path: Path) -> None:
    """Exchange what stands between the marks of the page."""
    text = path.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    path.write_text(f"{before}{BEGIN}\n\n{page()}\n\n{END}{after}")


if __name__ == "__main__":
    write_page(PAGE)
