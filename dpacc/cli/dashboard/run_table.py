"""The list of all runs as a table: every ε with all that is assumed, and what is amiss."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from html import escape
from typing import Any
from urllib.parse import urlencode

from dpacc_accounting.guarantee import METHOD_NAMES, rounded_down, rounded_up

from dpacc.cli.dashboard.listed_runs import ListedRun
from dpacc.cli.dashboard.places import Places

COLUMNS = ("run", "state", "steps", "ε spent", "beside it", "budget", "left", "meant as", "quality")


def _spent(run: ListedRun) -> float:
    return -1.0 if run.claim is None else run.claim.epsilon


def _share(run: ListedRun) -> float:
    return _spent(run) / run.budget if run.budget else -1.0


ORDERS: dict[str, Callable[[ListedRun], Any]] = {
    "name": lambda run: run.name,
    "ε spent, most first": lambda run: (-_spent(run), run.name),
    "share of the budget, most first": lambda run: (-_share(run), run.name),
    "state, running first": lambda run: (run.state != "running", run.state, run.name),
}


def in_order(runs: Sequence[ListedRun], order: str) -> list[ListedRun]:
    """Sorted; what is not private or damaged comes first where ε decides."""
    return sorted(runs, key=ORDERS[order])


def tally(runs: Sequence[ListedRun], places: Places) -> str:
    """How many there are of each state, and how many are not private."""
    states = Counter(each.state for each in runs)
    words = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    void = sum(bool(each.void) for each in runs)
    amiss = f"; {void} NOT private" if void else ""
    others = f"{len(places.federations)} federations, {len(places.budgets)} budgets"
    return f"{len(runs)} runs: {words}{amiss}. Beside them: {others}."


def runs_html(runs: Sequence[ListedRun]) -> str:
    """The table; each name leads to the run's own page."""
    heads = "".join(f'<th scope="col">{escape(each)}</th>' for each in COLUMNS)
    rows = "\n".join(_row(each) for each in runs)
    return (
        '<div class="wide runs" tabindex="0" role="group" aria-label="Runs"><table>'
        f"<caption>Runs</caption><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def cells(run: ListedRun) -> tuple[str, ...]:
    """A run's row, without its name."""
    planned = "" if run.planned is None else f" of {run.planned}"
    measured = run.quality
    quality = "" if measured is None else f"{measured.metric} {measured.shown}"
    budget = "none" if run.budget is None else f"{run.budget:g}"
    return (
        run.state,
        f"{run.steps}{planned}",
        _epsilon(run),
        _beside(run),
        budget,
        "" if run.left is None else _less(run.left),
        _meaning(run),
        quality,
    )


def _row(run: ListedRun) -> str:
    link = f'<a href="?{escape(urlencode({"page": "run", "name": run.name}))}" target="_self">'
    rest = "".join(f"<td>{escape(each)}</td>" for each in cells(run))
    kind = ' class="amiss"' if run.void or run.problem else ""
    return f'<tr{kind}><th scope="row">{link}{escape(run.name)}</a></th>{rest}</tr>'


def _epsilon(run: ListedRun) -> str:
    if run.void:
        return "none: NOT private"
    if run.claim is None:
        return "cannot be said" if run.problem else "not priced yet"
    epsilon = rounded_up(run.claim.epsilon, digits=6)
    return epsilon if run.priced else f"{epsilon}, as the run recorded"


def _less(left: float) -> str:
    return rounded_down(left, digits=4) if math.isfinite(left) else "0"


def _meaning(run: ListedRun) -> str:
    claim = run.claim
    if claim is None or run.void:
        return ""
    method = METHOD_NAMES.get(claim.method, claim.method)
    return (
        f"δ = {rounded_up(claim.delta)}, {claim.adjacency}, one {claim.unit}, "
        f"{run.sampling} sampling, {method}"
    )


def _beside(run: ListedRun) -> str:
    said = [run.problem] if run.problem else []
    said += [f"NOT private: {why}" for why in run.void]
    said += [] if run.claim is None else [f"qualified: {why}" for why in run.claim.qualified_by]
    said += ["its last line is torn, and was never released"] if run.torn else []
    return "; ".join(said)
