"""The server is this machine's alone, and tells nobody of it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit import config, net_util
from streamlit.web import bootstrap
from streamlit.web.server import server_util

from dpacc.cli.dashboard.server import options_of, serve


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What Streamlit is started with, which it is not."""
    told: dict[str, Any] = {}
    monkeypatch.setattr(
        bootstrap, "run", lambda script, _, words, flags: told.update(words=words, flags=flags)
    )
    monkeypatch.setattr(net_util, "get_external_ip", net_util.get_external_ip)
    before = {each: config.get_option(each) for each in ("server.address", "logger.level")}
    yield told
    for name, value in before.items():
        config.set_option(name, value)


def test_it_listens_on_this_machine_and_sends_nothing(started: dict[str, Any]) -> None:
    """Whatever a user's own configuration of Streamlit says."""
    serve(paths=[Path("runs")], address="127.0.0.1", port=8501, refresh=5.0)
    assert started["words"] == ["5", "runs"]
    assert config.get_option("server.address") == "127.0.0.1"
    assert config.get_option("browser.gatherUsageStats") is False
    assert config.get_option("server.fileWatcherType") == "none"
    assert config.get_option("server.headless") is True
    assert config.get_option("server.allowedHosts") == ["localhost", "127.0.0.1", "127.0.0.1"]


def test_a_foreign_page_is_refused_and_nobody_is_asked(
    started: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streamlit would ask a server for this machine's public address when another site knocks."""
    serve(paths=[], address="127.0.0.1", port=8501, refresh=5.0)
    asked: list[object] = []
    monkeypatch.setattr(socket, "create_connection", lambda *where, **_: asked.append(where))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *where, **_: asked.append(where))
    assert server_util.is_url_from_allowed_origins("http://127.0.0.1:8501")
    assert not server_util.is_url_from_allowed_origins("https://elsewhere.example")
    assert asked == []


def test_another_address_answers_by_any_name() -> None:
    """Which names it has is not known here; the command warns of it."""
    assert options_of(address="0.0.0.0", port=1)["server_allowedHosts"] == []
    assert options_of(address="::1", port=1)["server_allowedHosts"][-1] == "::1"
