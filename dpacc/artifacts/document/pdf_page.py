"""A report as a PDF: tagged for screen readers (PDF/UA-1), with embedded fonts and no date.

typst lays it out. It is handed all words as data, which it never reads as markup, and no fonts but
its own, so that the same report is the same file on every machine.
"""

from __future__ import annotations

import json
from dataclasses import fields
from importlib.resources import as_file, files
from typing import Any

from dpacc.artifacts.document.content import Block, Document, Verdict
from dpacc.errors import ConfigurationError


def pdf_page(document: Document) -> bytes:
    """The whole file.

    Raises:
        ConfigurationError: typst is not installed, or cannot lay the report out.
    """
    try:
        import typst
    except ModuleNotFoundError:
        raise ConfigurationError(
            "a PDF needs typst, which is not installed; pip install 'dpacc[report]', or write a "
            "page with --html"
        ) from None
    told = {
        "title": document.title,
        "subtitle": document.subtitle,
        "first_page": [_as_data(each) for each in (document.verdict, *document.first_page)],
        "body": [_as_data(each) for each in document.body],
    }
    with as_file(files("dpacc.artifacts.document").joinpath("page.typ")) as template:
        try:
            laid_out: bytes = typst.compile(
                str(template),
                sys_inputs={"report": json.dumps(told)},
                ignore_system_fonts=True,
                pdf_standards=["ua-1"],
                timestamp=0,
            )
        except typst.TypstError as failure:
            raise ConfigurationError(
                f"the report cannot be laid out: {failure}; write a page with --html"
            ) from failure
    return laid_out


def _as_data(block: Block) -> dict[str, Any]:
    said = {each.name: getattr(block, each.name) for each in fields(block)}
    if isinstance(said.get("svg"), bytes):
        said["svg"] = said["svg"].decode()
    label = {"label": block.label} if isinstance(block, Verdict) else {}
    return {"kind": type(block).__name__, **said, **label}
