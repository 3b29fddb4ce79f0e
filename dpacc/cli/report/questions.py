"""An appendix: what standards and laws ask of such a run, and what answers it here."""

from __future__ import annotations

from dpacc.artifacts.compliance import NOT_ADVICE, Circumstances, Row, documents
from dpacc.artifacts.document.content import Block, Heading, Paragraph, Table


def questions(*, circumstances: Circumstances) -> tuple[Block, ...]:
    """The questions that are asked of a run, document by document, each with its answer.

    Args:
        circumstances: what has to be known of the run to tell which are.
    """
    found: list[Block] = [
        Heading(level=2, words="Appendix: what standards and laws ask"),
        Paragraph(words=NOT_ADVICE),
    ]
    for document in documents():
        rows = [row for row in document.rows if row.is_asked_of(circumstances)]
        if not rows:
            continue
        found += [
            Heading(level=3, words=document.title),
            Paragraph(words=f"Read: {document.read}"),
            Table(
                caption=document.name,
                columns=("where, and the question", "answer here", "not covered"),
                rows=tuple(_cells(row) for row in rows),
            ),
        ]
    return tuple(found)


def _cells(row: Row) -> tuple[str, ...]:
    shown = f" See {', '.join(row.where)}." if row.where else ""
    return (
        f"{row.reference}: {row.question}",
        f"{row.answer}{shown}" or "None.",
        row.not_covered or "–",
    )
