"""`dpacc dashboard`: runs, federations and budgets in a browser, while they go on."""

from __future__ import annotations

import math
from pathlib import Path

import click

from dpacc.cli import options, terminal


@click.command(short_help="Show runs, federations and budgets in a browser, as they go on.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--address", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(1, 65535), default=8501, show_default=True)
@click.option("--refresh", type=click.FloatRange(min=0), default=5.0, show_default=True,
              help="Seconds after which pages are drawn anew; 0: never.")  # fmt: skip
@options.as_json
def dashboard(
    runs: tuple[Path, ...], address: str, port: int, refresh: float, as_json: bool
) -> None:
    """Show RUNS: folders of runs and federations, ledgers, budgets' files, saved courses.

    With --json the list of all runs is printed, every ledger priced, and nothing is served.
    """
    from dpacc.cli.dashboard.places import find_places

    places = find_places(paths=runs)
    if as_json:
        from dpacc.cli.dashboard.listed_runs import RunList

        listed = RunList().listed(places=places.runs, seconds=math.inf)
        terminal.show_json(
            {
                "runs": [each.to_json() for each in listed],
                "federations": {each.name: str(each.path) for each in places.federations},
                "budgets": {each.name: str(each.path) for each in places.budgets},
                "courses": {each.name: str(each.path) for each in places.courses},
            }
        )
        return
    from dpacc.cli.dashboard.server import is_this_machine, serve

    if not is_this_machine(address):
        terminal.say(
            f"WARNING: whoever reaches {address} reads the names of runs and clients, who took "
            "part when, and how fast steps go; there is no password and no encryption. Better: "
            "leave --address out, and reach it through ssh -L"
        )
    terminal.say(f"http://{address}:{port} shows {len(places.runs)} runs; Ctrl-C ends it")
    serve(paths=runs, address=address, port=port, refresh=refresh)
