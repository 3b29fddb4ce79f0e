"""Serve the pages on this machine, and let Streamlit tell nobody of it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.resources import files
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from dpacc.errors import ConfigurationError

LOOPBACK = "127.0.0.1"


def is_this_machine(address: str) -> bool:
    """Whether only programs on this machine reach what listens there.

    >>> is_this_machine("127.0.0.1"), is_this_machine("::1"), is_this_machine("0.0.0.0")
    (True, True, False)
    """
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def options_of(*, address: str, port: int) -> dict[str, Any]:
    """What Streamlit is told: where to listen, and to keep to itself.

    It sends no statistics, asks nobody for this machine's public address, watches no file, and
    shows no developer's tools. On a loopback address only requests for this machine's own names are
    answered, so that no other site's page can read it by a name that it lets point here.
    """
    own = ["localhost", LOOPBACK, address] if is_this_machine(address) else []
    return {
        "server_address": address,
        "server_port": port,
        "server_headless": True,
        "server_fileWatcherType": "none",
        "server_runOnSave": False,
        "server_allowedHosts": own,
        "server_enableCORS": True,
        "server_enableXsrfProtection": True,
        "server_enableStaticServing": False,
        "server_enableAgentApi": False,
        "server_showEmailPrompt": False,
        "server_maxUploadSize": 1,
        "browser_serverAddress": address,
        "browser_gatherUsageStats": False,
        "global_developmentMode": False,
        "client_toolbarMode": "minimal",
        "client_showErrorDetails": "type",
        "client_showErrorLinks": False,
        "logger_hideWelcomeMessage": True,
        "logger_level": "error",
        "runner_magicEnabled": False,
        "theme_base": "light",
    }


def serve(*, paths: Sequence[Path], address: str, port: int, refresh: float) -> None:
    """Serve until interrupted.

    Raises:
        ConfigurationError: Streamlit or Plotly is not installed.
    """
    try:
        from streamlit import net_util
        from streamlit.web import bootstrap

        # Loaded before anybody looks, and not while the first one waits.
        import_module("dpacc.cli.dashboard.pages")
    except ModuleNotFoundError as missing:
        raise ConfigurationError(
            f"a dashboard needs {missing.name}: pip install 'dpacc[dashboard]'"
        ) from None
    # It would ask a server for this machine's public address when another site knocks.
    net_util.get_external_ip = _nobody_is_asked
    flags = options_of(address=address, port=port)
    bootstrap.load_config_options(flag_options=flags)
    words = [f"{refresh:g}", *(str(each) for each in paths)]
    bootstrap.run(str(files("dpacc.cli.dashboard") / "app.py"), False, words, flags)


def _nobody_is_asked() -> None:
    return None
