"""`dpacc report`: one document on what runs guarantee, for whoever reads no code."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpacc.cli import options, terminal
from dpacc.errors import ConfigurationError

if TYPE_CHECKING:
    from dpacc.artifacts.document.content import Document


class Page(click.Path):
    """Where a page goes: refused before any work where it could not be stored."""

    name = "path"

    def __init__(self, *suffixes: str) -> None:
        super().__init__(path_type=Path, dir_okay=False)
        self._suffixes = suffixes

    def convert(self, value: Any, param: Any, ctx: Any) -> Path:
        """The file to write."""
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if path.suffix.lower() not in self._suffixes:
            self.fail(f"{path} must end in {self._suffixes[0]}.", param, ctx)
        if not path.parent.is_dir():
            self.fail(f"there is no folder {path.parent}.", param, ctx)
        return path


@click.command(short_help="Write one document on what a run guarantees, for who reads no code.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--audit", "audits", multiple=True, type=click.Path(path_type=Path, dir_okay=False),
              help="What `dpacc audit --json` printed; may be given several times.")  # fmt: skip
@click.option("--budget", type=click.Path(path_type=Path, dir_okay=False),
              help="The data set's budget: what is left of it, and who holds it.")  # fmt: skip
@click.option("--html", type=Page(".html", ".htm"), help="Write a page for a browser here.")
@click.option("--questions", is_flag=True,
              help="Append what standards and laws ask, and what answers it.")  # fmt: skip
@click.option("--pdf", type=Page(".pdf"), help="Write a tagged PDF here.")
@options.delta
@options.settings
@options.as_json
def report(
    runs: tuple[Path, ...],
    audits: tuple[Path, ...],
    budget: Path | None,
    html: Path | None,
    pdf: Path | None,
    questions: bool,
    delta: float | None,
    settings: Path | None,
    as_json: bool,
) -> None:
    """Write one report on RUNS: folders of training runs, or of a federation or a sweep.

    Of several runs it compares them, and says what they cost whoever's data all of them used.
    Exits with 1 where a run is not private, or something contradicts its ε: the report then says
    so on its first page.
    """
    if html is None and pdf is None:
        raise ConfigurationError(
            "say where the report goes: --html report.html, --pdf report.pdf, or both"
        )
    from dpacc.cli.report.any_kind import report_on

    with terminal.at_work("pricing, and asking the other accountants"):
        document = report_on(
            paths=runs,
            audits=audits,
            delta=delta,
            settings=settings,
            budget=budget,
            asked=questions,
        )
        pages = _pages(document, html, pdf)
    _write(pages)
    verdict = document.verdict
    if as_json:
        told = {"standing": verdict.standing, "headline": verdict.headline}
        reasons = {"reasons": [*verdict.reasons], "files": [str(path) for path in pages]}
        claims = [{"name": name, **claim.to_json()} for name, claim in document.claims]
        terminal.show_json({**told, **reasons, "claims": claims})
    else:
        terminal.say(f"{verdict.label}: {verdict.headline}")
        terminal.say(f"wrote {' and '.join(str(path) for path in pages)}")
    sys.exit(1 if verdict.standing == "broken" else 0)


def _pages(document: Document, html: Path | None, pdf: Path | None) -> dict[Path, bytes]:
    """Each file and its content; all of them are there before any is written."""
    from dpacc.artifacts.document.html_page import html_page
    from dpacc.artifacts.document.pdf_page import pdf_page

    pages = {}
    if html is not None:
        pages[html] = html_page(document).encode()
    if pdf is not None:
        pages[pdf] = pdf_page(document)
    return pages


def _write(pages: Mapping[Path, bytes]) -> None:
    """All files, or none.

    Raises:
        ConfigurationError: one cannot be written.
    """
    scratch = {path: path.with_name(f".{path.name}.partial") for path in pages}
    try:
        for path, content in pages.items():
            scratch[path].write_bytes(content)
        for path in pages:
            scratch[path].replace(path)
    except OSError as failure:
        raise ConfigurationError(f"cannot write {failure.filename}: {failure.strerror}") from None
    finally:
        for path in scratch.values():
            with suppress(OSError):
                path.unlink()
