"""Pages of the site that nobody writes: names, settings, commands, and the files that pages link.

mkdocs calls `on_files`, `on_page_markdown` and `on_page_content`, and mkdocstrings `Doctests`
(`mkdocs.yml` says so).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import griffe
import jupytext
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parents[1]
TUTORIALS = "docs/tutorials"
PACKAGES = ("dpacc", "dpacc.federated", "dpacc.audit", "dpacc_accounting")
BEHIND = (
    "dpacc.step.engine.PrivacyEngine",
    "dpacc.loops.drop_in.PlainLoop",
    "dpacc.step.integer_sum.whole_scale",
    "dpacc.losses.preferences.preference_losses",
    "dpacc.recipe.preferences.with_reference",
    "dpacc.data.pairs.tokenize_pairs",
    "dpacc.layers.dynamic_rank.DynamicRank",
    "dpacc.layers.subspace.Subspace",
    "dpacc_accounting.events.participation.EpochAllocation",
    "dpacc_accounting.pricing.small_delta",
)
"""What the docstrings of the packages' names point to."""
_LINK = re.compile(r"\]\((?P<to>\.\./[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")
_PAGE_LINK = re.compile(r'href="(?P<to>[^":#]+\.(?:md|py))(?P<anchor>#[^"]*)?"')
_ELSEWHERE = re.compile(r"<!-- Load mathjax -->.*?<!-- End of mermaid configuration -->", re.DOTALL)
_UNDESCRIBED = "No description has been provided for this image"
_EXAMPLE = re.compile(r"^>>> .*\n?(?:.+\n?)*", re.MULTILINE)
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".json": "json", ".sh": "sh"}


def on_files(files: Files, config: Any) -> Files:
    """Add what is made from the source."""
    pages = {f"reference/{package}.md": names(package) for package in PACKAGES}
    pages["reference/behind.md"] = behind()
    pages["reference/settings.md"] = settings()
    pages["reference/commands.md"] = commands()
    for path in sorted((ROOT / TUTORIALS).glob("*.py")):
        pages[f"tutorials/{path.stem}.ipynb"] = jupytext.writes(jupytext.read(path), fmt="ipynb")
    for page, words in pages.items():
        files.append(File.generated(config, page, content=words))
    for path in linked(files):
        page, beside = _page_of(path), InclusionLevel.NOT_IN_NAV
        files.append(File.generated(config, page, content=source(path), inclusion=beside))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Point links that leave the folder of pages to the pages made of their files."""
    here = posixpath.dirname(page.file.src_uri)

    def pointed(link: re.Match[str]) -> str:
        path = _repository_path(here, link["to"])
        if path is None:
            return link[0]
        return f"]({posixpath.relpath(_page_of(path), here or '.')})"

    return _LINK.sub(pointed, markdown)


def on_page_content(html: str, *, page: Any, files: Files, **_: Any) -> str:
    """Make a notebook a page like the others: what its links name, and no script of another host.

    Raises:
        PluginError: a link to a page that there is not.
    """
    if not page.file.src_uri.startswith("tutorials/"):
        return html

    def pointed(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("tutorials", link["to"]))
        found = files.get_file_from_path(path)
        if found is None:
            raise PluginError(f"{page.file.src_uri} links {link['to']}, which is no page")
        return f'href="{found.url_relative_to(page.file)}{link["anchor"] or ""}"'

    html = _ELSEWHERE.sub("", html).replace(_UNDESCRIBED, "What the words below describe")
    notebook = f"{Path(page.file.src_uri).stem}.ipynb"
    offer = f'<p><a href="{notebook}" download>This page as a notebook</a></p>'
    return offer + _PAGE_LINK.sub(pointed, html)


def names(package: str) -> str:
    """What a package offers, each by its signature and docstring."""
    module = import_module(package)
    said = (module.__doc__ or "").partition(">>>")[0].strip()
    offered = "\n".join(f"::: {package}.{name}\n" for name in module.__all__)
    return f"# {package}\n\n{said}\n\n{offered}"


def behind() -> str:
    """What stands behind the names that packages offer."""
    parts = "\n".join(f"::: {name}\n" for name in BEHIND)
    return f"# Behind them\n\nParts that the other pages name.\n\n{parts}"


def settings() -> str:
    """The settings of `recipes/train.py`, from their definitions."""
    from dpacc.recipe.config import TrainingConfig
    from dpacc.recipe.settings import describe_settings

    return (
        "# Settings\n\nOf `recipes/train.py`, in a configuration file or as `--name value`; the "
        "other recipes take these and a few of their own (`--help`).\n\n```text\n"
        f"{describe_settings(kind=TrainingConfig, usage='')}\n```\n"
    )


def commands() -> str:
    """Every command with its options, from click."""
    return (
        "# Commands\n\n::: mkdocs-click\n    :module: dpacc.cli.main\n    :command: dpacc\n"
        "    :prog_name: dpacc\n    :depth: 1\n    :style: table\n"
    )


def linked(files: Files) -> Iterator[str]:
    """The files beyond the pages' folder that pages link, each once."""
    found: dict[str, None] = {}
    for file in files.documentation_pages():
        here = posixpath.dirname(file.src_uri)
        for link in _LINK.finditer(file.content_string):
            path = _repository_path(here, link["to"])
            if path is not None:
                found[path] = None
    yield from found


def source(path: str) -> str:
    """A page that shows a file."""
    words = (ROOT / path).read_text()
    if path.endswith(".md"):
        return re.sub(r"\]\((?!https?:)[^)]*\)", "]", words)
    fence = "~~~~"
    return f"# {path}\n\n{fence}{_LANGUAGES.get(Path(path).suffix, 'text')}\n{words}{fence}\n"


class Doctests(griffe.Extension):
    """Show examples of docstrings as programs, which Markdown would read as quotations."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Fence the examples of what was just read."""
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(_fenced, obj.docstring.value)


def _fenced(example: re.Match[str]) -> str:
    return f"```pycon\n{example[0].rstrip()}\n```\n"


def _repository_path(here: str, link: str) -> str | None:
    path = posixpath.normpath(posixpath.join("docs", here, link))
    outside = not path.startswith(("docs/", "../"))
    return path if outside and (ROOT / path).is_file() else None


def _page_of(path: str) -> str:
    return f"source/{path}.md" if not path.endswith(".md") else f"source/{path}"
