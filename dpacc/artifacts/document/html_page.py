"""A report as one HTML file: it holds all that it shows, runs no code and fetches nothing.

A content security policy in its head forbids both, so that a hostile name that slipped through
could do nothing either.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape
from importlib.resources import files

from dpacc.artifacts.document.content import (
    Block,
    Commands,
    Document,
    Figure,
    Heading,
    Paragraph,
    Points,
    Table,
    Verdict,
)

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def html_page(document: Document) -> str:
    """The whole page."""
    style = files("dpacc.artifacts.document").joinpath("page.css").read_text(encoding="utf-8")
    first = fragment((document.verdict, *document.first_page))
    body = fragment(document.body)
    title = f"{document.title}: {document.subtitle}"
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
<h1>{escape(document.title)}</h1>
<p class="subtitle">{escape(document.subtitle)}</p>
<div class="first-page">
{first}
</div>
{body}
</main>
</body>
</html>
"""


def fragment(blocks: Iterable[Block]) -> str:
    """Blocks as HTML, of which no word is markup."""
    return "\n".join(map(_block, blocks))


def _block(block: Block) -> str:
    match block:
        case Verdict():
            return _verdict(block)
        case Heading(level=level, words=words):
            return f"<h{level}>{escape(words)}</h{level}>"
        case Paragraph(words=words):
            return f"<p>{escape(words)}</p>"
        case Points():
            return _points(block)
        case Table():
            return _table(block)
        case Figure():
            return _figure(block)
        case Commands(lines=lines):
            return _commands(lines)


def _verdict(block: Verdict) -> str:
    reasons = "".join(f"<li>{escape(each)}</li>" for each in block.reasons)
    conditions = f"<p>{escape(block.conditions)}</p>" if block.conditions else ""
    listed = f"<ul>{reasons}</ul>" if reasons else ""
    return (
        f'<section class="verdict {block.standing}" aria-label="Verdict">'
        f'<p class="standing">{block.label}</p><p class="headline">{escape(block.headline)}</p>'
        f"{conditions}{listed}</section>"
    )


def _points(block: Points) -> str:
    tag = "ol" if block.numbered else "ul"
    items = "".join(f"<li>{_point(*each)}</li>\n" for each in block.points)
    return f"<{tag}>\n{items}</{tag}>"


def _point(about: str, words: str) -> str:
    return f"<strong>{escape(about)}:</strong> {escape(words)}" if about else escape(words)


def _table(block: Table) -> str:
    heads = "".join(f'<th scope="col">{escape(each)}</th>' for each in block.columns)
    rows = "\n".join(_row(each) for each in block.rows)
    return (
        f'<div class="wide" tabindex="0" role="group" aria-label="{escape(block.caption)}"><table>'
        f"<caption>{escape(block.caption)}</caption>\n<thead><tr>{heads}</tr></thead>\n"
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )


def _row(cells: Iterable[str]) -> str:
    first, *others = cells
    rest = "".join(f"<td>{escape(each)}</td>" for each in others)
    return f'<tr><th scope="row">{escape(first)}</th>{rest}</tr>'


def _figure(block: Figure) -> str:
    data = base64.b64encode(block.svg).decode()
    return (
        f'<figure><img src="data:image/svg+xml;base64,{data}" alt="{escape(block.alternative)}">'
        f"<figcaption>{escape(block.caption)}</figcaption></figure>"
    )


def _commands(lines: Iterable[tuple[str, str]]) -> str:
    heads = '<th scope="col">what it shows</th><th scope="col">command</th>'
    rows = "\n".join(
        f'<tr><th scope="row">{escape(what)}</th><td><code>{escape(line)}</code></td></tr>'
        for what, line in lines
    )
    return (
        '<div class="wide" tabindex="0" role="group" aria-label="Commands"><table>'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )
