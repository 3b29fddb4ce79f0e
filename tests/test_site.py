"""The site: it builds strictly, holds every name, setting and command, and fetches nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PUBLIC = json.loads((ROOT / "tests/public_names.json").read_text())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make docs` builds it: a dead link, or a page in no menu, is an error.

    Only the tutorials are not executed, which `test_tutorials.py` does.
    """
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    told = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "EXECUTE_TUTORIALS": "false"}
    made = subprocess.run(command, cwd=ROOT, env=told, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    return folder


def test_the_whole_site(site: Path) -> None:
    """One build serves all that is asked of it."""
    every_public_name_has_a_place(site)
    every_setting_and_command_is_told(site)
    nothing_is_fetched_from_elsewhere(site)
    the_search_finds_what_docstrings_say(site)
    every_tutorial_is_a_page_and_a_notebook(site)


def every_public_name_has_a_place(site: Path) -> None:
    """With its signature, under the package that offers it."""
    packages = [name for name in PUBLIC if name not in ("settings", "commands")]
    assert len(packages) == 4
    for package in packages:
        page = (site / f"reference/{package}.html").read_text()
        missing = [name for name in PUBLIC[package] if f'id="{package}.{name}"' not in page]
        assert missing == []


def every_setting_and_command_is_told(site: Path) -> None:
    """As `--help` tells them."""
    settings = (site / "reference/settings.html").read_text()
    assert [name for name in PUBLIC["settings"] if f"--{name}" not in settings] == []
    commands = (site / "reference/commands.html").read_text()
    for command, options in PUBLIC["commands"].items():
        assert f'id="dpacc-{command.replace(" ", "-")}"' in commands
        assert [each for each in options if each not in commands and each.startswith("--")] == []


def nothing_is_fetched_from_elsewhere(site: Path) -> None:
    """No script, style, font or picture of another host; links are for who follows them."""
    loads = re.compile(
        r'<(?:script|img|iframe|source)[^>]*src="(?:"|(?:https?:)?//)|<link[^>]*href="http'
        r"""|\bimport\b\W*["'](?:https?:)?//"""
    )
    imports = re.compile(r"""(?:url\(|@import )["']?(?:https?:)?//""")
    pages = list(site.rglob("*.html"))
    assert len(pages) > 50
    assert [page.name for page in pages if loads.search(page.read_text())] == []
    assert [css.name for css in site.rglob("*.css") if imports.search(css.read_text())] == []


def the_search_finds_what_docstrings_say(site: Path) -> None:
    """Its index is a file of the site's own."""
    index = json.loads((site / "search/search_index.json").read_text())
    places = {entry["location"] for entry in index["docs"]}
    assert "reference/dpacc_accounting.html#dpacc_accounting.calibrate_noise" in places
    assert any(place.startswith("glossary.html") for place in places)


def every_tutorial_is_a_page_and_a_notebook(site: Path) -> None:
    """Its links lead to pages, and its cells are in the notebook that it offers."""
    pages = sorted((site / "tutorials").glob("*.html"))
    assert len(pages) == len(list((ROOT / "docs/tutorials").glob("*.py"))) > 0
    for page in pages:
        notebook = json.loads(page.with_suffix(".ipynb").read_text())
        assert {cell["cell_type"] for cell in notebook["cells"]} == {"markdown", "code"}
        written = page.read_text()
        assert f'href="{page.stem}.ipynb"' in written
        links = re.findall(r'href="([^":#]+\.(?:html|md|ipynb|py))[#"]', written)
        assert [link for link in links if not (page.parent / link).resolve().is_file()] == []
