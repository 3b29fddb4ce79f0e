"""Plotly figures of what is read, each with words for whoever cannot see it.

Names come from files: in a figure they are escaped, for Plotly reads a few tags.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go
from dpacc_accounting.guarantee import rounded_up
from plotly.subplots import make_subplots

from dpacc.cli.dashboard.listed_runs import ListedRun
from dpacc.cli.dashboard.one_federation import FederationView
from dpacc.cli.dashboard.one_run import RunView
from dpacc.cli.dashboard.utility import in_words
from dpacc.cli.report.data_set_budget import BudgetFacts, left_of
from dpacc.cli.report.federation import kinds_of
from dpacc.federated.monitoring.course import Course, placed
from dpacc.federated.monitoring.live_curve import live_curve

# Okabe and Ito's colours, told apart by every kind of eye.
_SPENT, _LEFT, _LEARNED, _OVER, _SOFT = "#D55E00", "#B9D9EC", "#0072B2", "#7A1F00", "#8A8A8A"
_KINDS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_INK = "#1f2328"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure, and what it shows in a sentence."""

    figure: go.Figure
    alternative: str


def budget_bars(runs: Sequence[ListedRun]) -> Chart | None:
    """Of each run's own budget, how much is spent, left, or spent beyond it.

    None where no run has both a budget and a finite ε.
    """
    shown = [r for r in runs if r.budget and r.claim and math.isfinite(r.claim.epsilon)]
    if not shown:
        return None
    names = [_short(each.name) for each in shown]
    spent = [each.claim.epsilon if each.claim else 0.0 for each in shown]
    budgets = [each.budget or 0.0 for each in shown]
    within = [min(s, b) for s, b in zip(spent, budgets, strict=True)]
    left = [max(b - s, 0.0) for s, b in zip(spent, budgets, strict=True)]
    over = [max(s - b, 0.0) for s, b in zip(spent, budgets, strict=True)]
    figure = go.Figure()
    for values, what, colour in (
        (within, "spent", _SPENT),
        (left, "left", _LEFT),
        (over, "beyond the budget", _OVER),
    ):
        if any(values) or what == "spent":
            figure.add_bar(y=names, x=values, name=what, orientation="h", marker_color=colour)
    figure.update_layout(barmode="stack", height=110 + 26 * len(shown))
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_xaxes(title="ε, each run at its own δ", rangemode="tozero")
    said = "; ".join(
        f"{run.name} spent {rounded_up(s)} of {b:g}"
        for run, s, b in zip(shown, spent, budgets, strict=True)
    )
    return _dressed(figure, f"Bars of ε spent and left: {said}.")


def course(view: RunView) -> Chart | None:
    """ε after each step, with its budget, above held-out quality; None where nothing is claimed."""
    if not view.course:
        return None
    rows = 2 if view.measured else 1
    figure = make_subplots(rows=rows, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    steps, spent = zip(*view.course, strict=True)
    figure.add_scatter(
        x=steps, y=spent, name="ε spent", mode="lines+markers", line_color=_SPENT, row=1, col=1
    )
    figure.update_yaxes(title="ε spent", rangemode="tozero", row=1, col=1)
    if view.listed.budget is not None:
        figure.add_hline(y=view.listed.budget, line_dash="dash", line_color=_INK, row=1, col=1,
                         annotation_text=f"budget ε = {view.listed.budget:g}")  # fmt: skip
    words = f"A curve: ε rises from 0 to {rounded_up(spent[-1])} after {steps[-1]} steps"
    if view.measured:
        metric = view.measured[0].metric
        figure.add_scatter(
            x=[each.step for each in view.measured],
            y=[each.quality for each in view.measured],
            name=f"held-out {metric}",
            mode="lines+markers",
            line_color=_LEARNED,
            row=2,
            col=1,
        )
        figure.update_yaxes(title=f"held-out {metric}", row=2, col=1)
        words += (
            f"; held-out {metric} goes from {view.measured[0].shown} to {view.measured[-1].shown}"
        )
    claim = view.claim
    figure.update_xaxes(
        title=escape(f"steps (δ = {rounded_up(claim.delta)}, {claim.adjacency}, one {claim.unit})"),
        row=rows,
        col=1,
    )
    figure.update_layout(height=240 * rows + 60, showlegend=False)
    return _dressed(figure, words + ".")


def attack(view: RunView, *, words: str) -> Chart | None:
    """The most true positives of any attack against its false ones; None if nothing is claimed."""
    if not view.attack:
        return None
    alarms, found = zip(*view.attack, strict=True)
    figure = go.Figure()
    figure.add_scatter(x=alarms, y=found, name="any attack, at most", line_color=_SPENT)
    figure.add_scatter(x=[0, 1], y=[0, 1], name="guessing", line={"color": _SOFT, "dash": "dash"})
    figure.update_xaxes(title="wrongly accused, of those not used", range=[0, 1])
    figure.update_yaxes(title="recognised, of those used", range=[0, 1.02])
    figure.update_layout(height=380)
    return _dressed(figure, words)


def took_part(view: FederationView) -> Chart | None:
    """In each round how many clients' updates were used, filtered, or did not arrive."""
    if not view.rounds:
        return None
    numbers = [each.number for each in view.rounds]
    filtered = [len(each.filtered) for each in view.rounds]
    used = [len(each.survivors) - len(each.filtered) for each in view.rounds]
    failed = [len(each.asked) - len(each.survivors) for each in view.rounds]
    figure = go.Figure()
    for values, what, colour in (
        (used, "used", _LEARNED),
        (filtered, "filtered", _SPENT),
        (failed, "asked, and failed", _SOFT),
    ):
        figure.add_bar(x=numbers, y=values, name=what, marker_color=colour)
    figure.update_layout(barmode="stack", height=300)
    figure.update_xaxes(title="round", dtick=max(1, len(numbers) // 12))
    figure.update_yaxes(title="clients")
    last = view.rounds[-1]
    return _dressed(
        figure,
        f"Bars of clients in each of {len(numbers)} rounds; in the last {len(last.asked)} were "
        f"asked, {len(last.survivors)} updates arrived, {len(last.filtered)} were filtered.",
    )


def clients_spent(view: FederationView) -> Chart | None:
    """Each client's ε against the server, with its budget; None where none is finite."""
    shown = [p for p in view.found.prices if math.isfinite(p.server.epsilon)]
    if not shown:
        return None
    names = [_short(each.name) for each in shown]
    figure = go.Figure()
    spent = [each.server.epsilon for each in shown]
    figure.add_bar(y=names, x=spent, name="ε spent", orientation="h", marker_color=_SPENT)
    budgets = [each.epsilon_budget for each in shown]
    if any(each is not None for each in budgets):
        figure.add_scatter(
            y=names,
            x=budgets,
            name="budget",
            mode="markers",
            marker={"symbol": "line-ns-open", "size": 18, "color": _INK, "line": {"width": 2}},
        )
    figure.update_layout(height=130 + 30 * len(shown))
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_xaxes(title="ε against the server", rangemode="tozero")
    said = "; ".join(f"{p.name} {rounded_up(p.server.epsilon)}" for p in shown)
    return _dressed(figure, f"Bars of ε spent by client: {said}.")


def privacy_utility(courses: Sequence[Course], *, metric: str) -> Chart | None:
    """Quality against ε, a line for each run; None where no point has both.

    Raises:
        ConfigurationError: their ε mean different things, or they are too many to tell apart.
    """
    if not any(metric in each.metrics and placed(each, metric) for each in courses):
        return None
    figure = live_curve(courses=courses, metric=metric)
    figure.update_layout(height=420)
    return _dressed(figure, in_words(courses, metric=metric))


def quality_by_kind(view: FederationView) -> Chart | None:
    """Held-out quality of each kind, round by round."""
    if not view.quality:
        return None
    figure = go.Figure()
    for at, kind in enumerate(kinds_of(view.quality)):
        measured = [(n, each[kind]) for n, each in enumerate(view.quality) if kind in each]
        numbers, values = zip(*measured, strict=True)
        colour = _KINDS[at % len(_KINDS)]
        figure.add_scatter(x=numbers, y=values, name=_short(kind), mode="lines+markers",
                           line_color=colour)  # fmt: skip
    figure.update_xaxes(title="rounds done", dtick=max(1, len(view.quality) // 12))
    figure.update_yaxes(title="held-out quality")
    figure.update_layout(height=320)
    last = ", ".join(f"{kind} {each:.1%}" for kind, each in view.quality[-1].items())
    return _dressed(figure, f"Curves of quality by kind, in the end: {last}.")


def budget_bar(facts: BudgetFacts) -> Chart | None:
    """A data set's total: spent, reserved besides, left; None where no ε may be claimed."""
    held, spent, total = facts.held.epsilon, facts.spent.epsilon, facts.record.epsilon
    if not math.isfinite(held):
        return None
    figure = go.Figure()
    parts = (
        (min(spent, total), "spent", _SPENT),
        (max(min(held, total) - spent, 0.0), "reserved besides", "#E69F00"),
        (facts.left, "left", _LEFT),
        (max(held - total, 0.0), "beyond the total", _OVER),
    )
    for value, what, colour in parts:
        if value:
            figure.add_bar(x=[value], y=["ε"], name=what, orientation="h", marker_color=colour)
    figure.update_layout(barmode="stack", height=170)
    figure.update_xaxes(title=f"ε at δ = {rounded_up(facts.record.delta)}", rangemode="tozero")
    return _dressed(
        figure,
        f"A bar: of a total of {total:g}, ε = {rounded_up(spent)} is spent and "
        f"{rounded_up(held)} is held. Left: {left_of(facts)}.",
    )


def _dressed(figure: go.Figure, alternative: str) -> Chart:
    look: dict[str, Any] = {
        "margin": {"l": 10, "r": 10, "t": 30, "b": 10},
        "font": {"color": _INK, "size": 13},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
    }
    figure.update_layout(**look)
    figure.update_xaxes(gridcolor="#dfe3e8", automargin=True)
    figure.update_yaxes(gridcolor="#dfe3e8", automargin=True)
    return Chart(figure=figure, alternative=alternative)


def _short(name: str) -> str:
    """A name as a label: no tag of it is one, and its end is what tells it apart."""
    return escape(name if len(name) <= 32 else f"…{name[-31:]}")
