"""The same words on both pages; nothing is fetched, nothing from a file becomes markup."""

from __future__ import annotations

import itertools
import re
import sys
from dataclasses import fields, replace
from html.parser import HTMLParser
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import pytest
from dpacc_accounting.guarantee import rounded_up
from pypdf import PdfReader

from dpacc.artifacts.document.content import Document
from dpacc.artifacts.document.html_page import html_page
from dpacc.artifacts.document.pdf_page import pdf_page
from dpacc.cli.report.gathered import RunFacts, gather
from dpacc.cli.report.one_run import report_of_run
from tests.cli.report.folders import LOGGED, PLAN, finished_run

HOSTILE = "</title><script>alert(1)</script>#[*x*]$x$ $\\frac$ @y `z` <img src=//e onerror=y>"


class Page(HTMLParser):
    """The tags of a page with their attributes, and all text in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data if self.open and self.open[-1] != "style" else ""

    def named(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.fixture(scope="module")
def document(facts: RunFacts) -> Document:
    """A healthy run's report."""
    return report_of_run(facts=facts)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Document:
    """Of a run whose unit, notes, settings and name are no friends of a reader."""
    folder = finished_run(
        tmp_path_factory.mktemp("runs") / "<b>run",
        plan=replace(PLAN, unit=HOSTILE),
        notes=[("odd", HOSTILE), LOGGED],
        settings={HOSTILE: HOSTILE},
    )
    return report_of_run(facts=gather(ledger=folder / "ledger.jsonl"))


def text_of(pdf: bytes) -> str:
    return "\n".join(page.extract_text() for page in PdfReader(BytesIO(pdf)).pages)


def squeezed(words: str) -> str:
    return re.sub(r"\s+", "", words)


def test_what_a_reader_looks_for_is_found_in_both(document: Document, facts: RunFacts) -> None:
    """ε, δ, unit and hashes: on the page, and in what is extracted from the PDF."""
    page, pdf = Page(html_page(document)).words, text_of(pdf_page(document))
    wanted = [
        f"ε = {rounded_up(facts.claim.epsilon)}",
        f"δ = {rounded_up(facts.claim.delta)}",
        "one example",
        "add-or-remove",
        facts.record.head,
        *facts.checksums.values(),
        "dp-accounting PLD",
        "dpacc verify fine",
    ]
    assert facts.checksums
    for words in wanted:
        assert words in page
        assert squeezed(words) in squeezed(pdf)


def test_both_pages_say_the_same(document: Document, hostile: Document) -> None:
    """Every word of one stands in the other: they cannot disagree."""
    for each in (document, hostile):
        page = squeezed(Page(html_page(each)).words)
        pdf = squeezed(text_of(pdf_page(each)))
        blocks = (each.verdict, *each.first_page, *each.body)
        texts = [text for block in blocks for text in _texts(block)]
        assert len(texts) > 100
        for text in texts:
            assert squeezed(text) in page
            # A page may end within it, where its foot stands.
            assert squeezed(text) in pdf or squeezed(text)[:25] in pdf


def _texts(block: object) -> list[str]:
    found: list[str] = []
    stack = [getattr(block, each.name) for each in fields(block) if each.name != "alternative"]  # type: ignore[arg-type]
    while stack:
        value = stack.pop()
        if isinstance(value, str) and value not in ("holds", "qualified", "broken"):
            found.append(value)
        elif isinstance(value, tuple):
            stack += value
    return found


def test_a_page_fetches_nothing_and_runs_nothing(document: Document, hostile: Document) -> None:
    """No link, script, frame or foreign image, whatever the files say; a policy forbids them."""
    for each in (document, hostile):
        text = html_page(each)
        page = Page(text)
        allowed = "html head meta title style body main div section h1 h2 h3 p strong ul ol li"
        allowed += " table caption thead tbody tr th td figure img figcaption code br"
        assert {tag for tag, _ in page.tags} <= {*allowed.split()}
        assert all((img["src"] or "").startswith("data:image/svg") for img in page.named("img"))
        assert page.named("img")
        assert not any(name.startswith("on") for _, found in page.tags for name in found)
        policy = [each.get("content") for each in page.named("meta") if "http-equiv" in each]
        assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
        style = text[text.index("<style>") : text.index("</style>")]
        assert "url(" not in style
        assert "@import" not in style


def test_hostile_words_stay_words(hostile: Document) -> None:
    """They stand as they are, on the page and in the PDF."""
    assert HOSTILE in Page(html_page(hostile)).words
    assert "alert(1)" in squeezed(text_of(pdf_page(hostile)))


def test_a_screen_reader_finds_its_way(document: Document) -> None:
    """Language, title, one first heading, no level left out, scopes, words for pictures."""
    text = html_page(document)
    page = Page(text)
    assert page.named("html") == [{"lang": "en"}]
    assert "<title>Privacy report: fine</title>" in text
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert {each.get("scope") for each in page.named("th")} == {"col", "row"}
    assert all(len(each["alt"] or "") > 40 for each in page.named("img"))
    assert page.open == []


def test_colours_can_be_told_apart() -> None:
    """Each colour of words has a contrast of at least 4.5 to each ground (WCAG 2.2, AA)."""
    style = files("dpacc.artifacts.document").joinpath("page.css").read_text()
    words = {*re.findall(r"[ {;]color: (#[0-9a-f]{6})", style)}
    grounds = {*re.findall(r"background: (#[0-9a-f]{6})", style)}
    assert len(words) >= 4
    assert len(grounds) >= 4
    assert min(_contrast(a, b) for a in words for b in grounds) >= 4.5


def _contrast(one: str, other: str) -> float:
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_pdf_is_tagged_and_holds_its_fonts(document: Document) -> None:
    """Tags, a language, a title, headings, words for pictures; every font is embedded."""
    reader = PdfReader(BytesIO(pdf_page(document)))
    root = reader.trailer["/Root"]
    assert root["/MarkInfo"]["/Marked"]
    assert root["/Lang"] == "en"
    assert reader.metadata is not None
    assert reader.metadata.title == "Privacy report: fine"
    kinds, alternatives = _structure(root["/StructTreeRoot"])
    assert {"/H1", "/H2", "/L", "/Table", "/TH", "/Figure"} <= kinds
    assert any("at most" in each for each in alternatives)
    for page in reader.pages:
        for font in page["/Resources"]["/Font"].values():
            inner = font.get_object()["/DescendantFonts"][0].get_object()["/FontDescriptor"]
            assert {"/FontFile2", "/FontFile3"} & inner.keys()


def _structure(root: object) -> tuple[set[str], list[str]]:
    kinds, alternatives, stack = set(), [], [root]
    while stack:
        node = stack.pop()
        node = node.get_object() if hasattr(node, "get_object") else node
        if isinstance(node, list):
            stack += node
        elif isinstance(node, dict):
            kinds.add(node.get("/S"))
            alternatives += [str(node["/Alt"])] if "/Alt" in node else []
            stack += [node["/K"]] if "/K" in node else []
    return kinds, alternatives


def test_the_same_report_is_the_same_file(document: Document, facts: RunFacts) -> None:
    """No date, no random name: whoever makes it again can compare bytes."""
    again = report_of_run(facts=facts)
    assert html_page(again) == html_page(document)
    assert pdf_page(again) == pdf_page(document)


def test_a_page_needs_no_typst(document: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is missing a PDF is refused with the remedy, and a page is written."""
    monkeypatch.setitem(sys.modules, "typst", None)
    with pytest.raises(Exception, match=r"dpacc\[report\]"):
        pdf_page(document)
    assert html_page(document)


def test_the_templates_are_packed() -> None:
    """Beside the code, where an installed package looks for them."""
    folder = Path(str(files("dpacc.artifacts.document")))
    assert {path.suffix for path in folder.iterdir()} >= {".css", ".typ", ".py"}
