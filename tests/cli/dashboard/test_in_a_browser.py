"""In a real browser: pages open, say what `dpacc spend` says, fetch nothing foreign, are legible.

axe-core looks at whole pages, of the dashboard and of reports.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from dpacc_accounting.guarantee import rounded_up
from playwright.sync_api import Browser, Page, expect

from tests.browser import NEEDED, PATIENT, chromium, fetched, opened, serious_findings
from tests.cli.conftest import Run
from tests.cli.dashboard.folders import BUDGETED, budget, going_on, runs_of_all_kinds, spent
from tests.cli.report.folders import finished_run, no_attackers, nobody_asked


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for all tests of this file."""
    with opened() as found:
        yield found


@pytest.fixture(scope="module")
def address(browser: Browser, there: Path) -> Iterator[str]:
    """Where `dpacc dashboard` serves it, as a person starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["dashboard", str(there), "--port", str(port), "--refresh", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "dpacc", *words], stderr=subprocess.PIPE, env={**os.environ}
    )
    found = f"http://127.0.0.1:{port}"
    try:
        while not _answers(found):
            assert process.poll() is None, (process.stderr or sys.stdin).read()
        yield found
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate()


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/_stcore/health").close()
    except OSError:
        return False
    return True


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A window of its own."""
    context = browser.new_context(viewport={"width": 1280, "height": 1600})
    context.set_default_timeout(PATIENT)
    expect.set_options(timeout=PATIENT)
    yield context.new_page()
    context.close()


@pytest.mark.parametrize(
    ("asked", "name", "charts"),
    [
        ("runs", "", 1),
        ("run", "runs/fine", 3),
        ("federation", "fed", 4),
        ("budget", "", 1),
        ("utility", "run runs/fine", 1),
    ],
)
def test_each_page_says_what_the_commands_say(
    dpacc: Run, there: Path, address: str, page: Page, asked: str, name: str, charts: int
) -> None:
    """Drawn whole, from this machine alone, without an error, and with nothing serious to axe."""
    foreign = fetched(page)
    page.goto(f"{address}/?{urlencode({'page': asked, 'name': name})}")
    expect(page.locator(".js-plotly-plot")).to_have_count(charts)
    main = page.get_by_test_id("stMain")
    wanted = {
        "runs": [spent(dpacc, there / "runs/fine"), "NOT private: the noise came from"],
        "run": [f"{spent(dpacc, there / 'runs/fine')} at δ = 1e-05", "Privacy statement"],
        "federation": [spent(dpacc, there / "fed/films"), "books: too far from the others"],
        "budget": [f"ε = {spent(dpacc, there / 'notes/first')}", "reserved"],
        "utility": ["price of its ledger", "last gain per further ε"],
    }
    for words in wanted[asked]:
        expect(main).to_contain_text(words)
    expect(page.get_by_test_id("stException")).to_have_count(0)
    assert {each.split("/")[2] for each in foreign if "//" in each} == {address.split("/")[2]}
    assert serious_findings(page) == []
    if shots := os.environ.get("DPACC_SCREENSHOTS"):
        page.screenshot(path=f"{shots}/{asked}.png")


def test_a_page_follows_a_run_that_trains(there: Path, address: str, page: Page) -> None:
    """From the list a click leads to it; a step later the page says so by itself."""
    with going_on(there / "runs/live") as book:
        page.goto(address)
        page.get_by_role("link", name="runs/live").click()
        main = page.get_by_test_id("stMain")
        expect(main).to_contain_text("3 of 6 planned")
        book.charge(step=3, event=BUDGETED.charge(3))
        expect(main).to_contain_text("4 of 6 planned")
        now = rounded_up(BUDGETED.guarantee(steps=4).epsilon, digits=6)
        expect(main).to_contain_text(f"{now} at δ")


def test_another_sites_name_for_this_machine_is_not_answered(address: str) -> None:
    """A page that lets its own name point to 127.0.0.1 opens no connection to what is shown."""
    port = int(address.rpartition(":")[2])
    answers = {host: _handshake(port, host) for host in ("127.0.0.1", "elsewhere.example")}
    assert b" 101 " in answers["127.0.0.1"]
    assert b" 101 " not in answers["elsewhere.example"]


def _handshake(port: int, host: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.sendall(
            f"GET /_stcore/stream HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        return line.recv(64)


@pytest.mark.parametrize("names", [["fine"], ["void"], ["fine", "longer"]], ids="-".join)
def test_a_report_can_be_read_by_everybody_and_fetches_nothing(
    dpacc: Run, tmp_path: Path, page: Page, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    """Of a run, of one that is not private, of two with their data's budget: nothing serious."""
    nobody_asked(monkeypatch)
    no_attackers(monkeypatch)
    runs_of_all_kinds(tmp_path / "runs")
    finished_run(tmp_path / "runs/longer", plan=BUDGETED)
    words = ["--budget", budget(tmp_path / "notes")] if len(names) > 1 else []
    out = tmp_path / "report.html"
    folders = [tmp_path / "runs" / name for name in names]
    done = dpacc("report", *folders, *words, "--html", out)
    assert out.exists(), done.err
    asked = fetched(page)
    page.goto(out.as_uri())
    assert [each for each in asked if not each.startswith("data:")] == [out.as_uri()]
    assert serious_findings(page) == []


def test_what_cannot_be_read_is_found(page: Page) -> None:
    """Faint words and a picture without any: axe-core, as it is asked here, can fail."""
    page.set_content(
        "<html lang=en><title>x</title><main><h1>x</h1><p style='color:#ccc'>faint</p>"
        "<img src='data:,'>"
    )
    found = {each.partition(":")[0] for each in serious_findings(page)}
    assert found == {"color-contrast", "image-alt"}


def test_a_missing_browser_is_said_or_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make test` skips with the reason; where one is needed it does not."""
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.delenv(NEEDED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        chromium()
    monkeypatch.setenv(NEEDED, "1")
    with pytest.raises(pytest.fail.Exception, match="no Chromium"):
        chromium()
