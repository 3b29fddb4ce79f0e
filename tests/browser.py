"""A real Chromium for tests of pages: what it drew, what it fetched, and what axe-core finds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

NEEDED = "DPACC_TESTS_NEED_A_BROWSER"
"""Where this variable is set, a missing browser is a failure."""
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENT = 300_000
"""Milliseconds after which a page that does not come is a failure, however busy the machine."""


def chromium() -> str:
    """Where it is; without one the test is skipped, or fails where one is needed."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is not None:
        return found
    missing = "no Chromium is installed, which the tests of pages drive: apt-get install chromium"
    if os.environ.get(NEEDED):
        pytest.fail(missing)
    pytest.skip(missing)


@contextmanager
def opened() -> Iterator[Browser]:
    """A headless browser with a profile of its own."""
    path = chromium()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=[*_QUIET])
        yield browser
        browser.close()


def fetched(page: Page) -> list[str]:
    """Every address that the page asks for, from now on."""
    found: list[str] = []
    page.on("request", lambda request: found.append(request.url))
    return found


def serious_findings(page: Page) -> list[str]:
    """What axe-core calls serious or critical, with the element."""
    result = Axe().run(page).response
    assert result["passes"], "axe-core looked at nothing"
    return [
        f"{found['id']}: {node['html'][:160]}"
        for found in result["violations"]
        if found["impact"] in ("serious", "critical")
        for node in found["nodes"]
    ]
