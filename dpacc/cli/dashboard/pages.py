"""The five pages, drawn with Streamlit from what the files say.

Words from files never become markup: tables are escaped HTML, statements plain text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import streamlit as st
from dpacc_accounting import BudgetError

from dpacc.artifacts.document.content import Block, Paragraph, Verdict
from dpacc.artifacts.document.html_page import fragment
from dpacc.artifacts.kept.metrics import METRICS_FILE
from dpacc.artifacts.proof import RUN_FILE
from dpacc.cli.dashboard import charts, one_federation, one_run, utility
from dpacc.cli.dashboard.charts import Chart
from dpacc.cli.dashboard.kept import Kept
from dpacc.cli.dashboard.listed_runs import ListedRun, RunList
from dpacc.cli.dashboard.one_federation import FederationView, federation_view
from dpacc.cli.dashboard.one_run import RunView, run_view
from dpacc.cli.dashboard.places import HISTORIES, LEDGER, ROUNDS, Place, Places, find_places
from dpacc.cli.dashboard.run_table import ORDERS, in_order, runs_html, tally
from dpacc.cli.report.data_set_budget import BudgetFacts, budget_blocks, gather_budget, left_of
from dpacc.errors import ConfigurationError
from dpacc.federated.monitoring.course import Course

PAGES = {
    "runs": "All runs",
    "run": "One run",
    "federation": "One federation",
    "budget": "One data set's budget",
    "utility": "Privacy and utility",
}
_A_PAGE = 25
_STYLE = (files("dpacc.cli.dashboard") / "dashboard.css").read_text(encoding="utf-8")


class Reader:
    """All that was read, shared by all who look."""

    def __init__(self) -> None:
        self.runs = RunList()
        self._views: Kept[RunView | str] = Kept()
        self._federations: Kept[FederationView | str] = Kept()
        self._budgets: Kept[BudgetFacts | str] = Kept()
        self._saved: Kept[Course | str] = Kept()

    def run(self, place: Place) -> tuple[ListedRun, RunView | str]:
        """One run, priced."""
        listed = self.runs.one(place)
        beside = [place.path.parent / each for each in (METRICS_FILE, RUN_FILE)]
        view = self._views.read([place.path, *beside], lambda: run_view(listed))
        if isinstance(view, str):
            return listed, view
        # Whether it still runs is not in a file.
        return listed, one_run.relisted(view, listed)

    def federation(self, place: Place) -> FederationView | str:
        """One federation, priced."""
        folder = place.path
        files = [folder / ROUNDS, *(folder / each for each in HISTORIES)]
        files += sorted(folder.glob(f"*/{LEDGER}"))
        return self._federations.read(files, lambda: federation_view(place=place, runs=self.runs))

    def budget(self, place: Place) -> BudgetFacts | str:
        """One data set's budget, priced."""
        return self._budgets.read([place.path], lambda: _budget(place.path))

    def course(self, place: Place, *, places: Places) -> Course | str:
        """Quality beside ε: of a run or a federation, or as a monitor saved it; or why not."""
        if place in places.courses:
            files = [place.path, place.path.parent / LEDGER]
            return self._saved.read(files, lambda: utility.saved_course(place.path))
        if place in places.runs:
            view = self.run(place)[1]
            return view if isinstance(view, str) else utility.course_of_run(view)
        found = self.federation(place)
        return found if isinstance(found, str) else utility.course_of_federation(found)


@lru_cache(maxsize=8)
def reader_of(_paths: tuple[str, ...]) -> Reader:
    """One reader for all who look at the same paths."""
    return Reader()


def show(*, paths: Sequence[str], refresh: float | None = 5.0, allowance: float = 1.0) -> None:
    """Draw the page that the address asks for.

    Args:
        paths: folders of runs and federations, ledgers, budgets.
        refresh: seconds after which the page is drawn anew; None never.
        allowance: seconds for which runs in a list are priced each time.
    """
    st.set_page_config(page_title="dpacc dashboard", layout="wide")
    st.html(f"<style>{_STYLE}</style>")
    roots, reader = [Path(each) for each in paths], reader_of((*paths,))
    asked = st.query_params.get("page", "runs")
    known = list(PAGES)
    page = st.sidebar.radio(
        "Page",
        known,
        index=known.index(asked) if asked in known else 0,
        format_func=PAGES.__getitem__,
        key="page",
    )
    st.title(PAGES[page])
    if page == "runs":
        st.query_params.from_dict({"page": page})
        _list_of_runs(roots, reader, refresh, allowance)
        return
    places = find_places(paths=roots)
    if page == "utility":
        _utility(places, reader, refresh)
        return
    drawn: Callable[[Place], None]
    choices, drawn = {
        "run": (places.runs, lambda place: _run(reader, place)),
        "federation": (places.federations, lambda place: _federation(reader, place)),
        "budget": (places.budgets, lambda place: _budget_page(reader, place)),
    }[page]
    place = _chosen(page, choices)
    if place is None:
        _blocks([Paragraph(words=_none_of(page))])
        return
    st.query_params.from_dict({"page": page, "name": place.name})
    st.fragment(lambda: drawn(place), run_every=refresh)()


def _chosen(page: str, choices: Sequence[Place]) -> Place | None:
    if not choices:
        return None
    names, asked = [each.name for each in choices], st.query_params.get("name")
    at = names.index(asked) if asked in names else 0
    name = st.selectbox(PAGES[page].removeprefix("One ").capitalize(), names, index=at, key=page)
    return next(each for each in choices if each.name == name)


def _none_of(page: str) -> str:
    return {
        "run": "No folder with a ledger.jsonl lies here.",
        "federation": "No folder with rounds.yaml, history.json or state.json lies here.",
        "budget": "No *.budget.jsonl lies here: name one, as in dpacc dashboard runs "
        "notes.budget.jsonl.",
        "utility": "No run, no federation and no *.course.json lies here.",
    }[page]


def _list_of_runs(
    roots: list[Path], reader: Reader, refresh: float | None, allowance: float
) -> None:
    order = st.selectbox("In order of", list(ORDERS), key="order")
    paint = st.fragment(
        lambda: _painted_list(find_places(paths=roots), reader, order, allowance),
        run_every=refresh,
    )
    paint()


def _painted_list(places: Places, reader: Reader, order: str, allowance: float) -> None:
    if not places.runs:
        _blocks([Paragraph(words=_none_of("run"))])
        return
    by_name = {each.name: each for each in places.runs}
    listed = in_order(reader.runs.listed(places=places.runs, seconds=0.0), order)
    _blocks([Paragraph(words=tally(listed, places))])
    pages = math.ceil(len(listed) / _A_PAGE)
    number = 1
    if pages > 1:
        number = int(st.number_input(f"Page of {pages}", 1, pages, key="number"))
    shown = listed[(number - 1) * _A_PAGE : number * _A_PAGE]
    # What is seen is priced first; at first sight only what has recorded nothing.
    seen = bool(st.session_state.get("seen")) or math.isinf(allowance)
    st.session_state["seen"] = True
    wanted = [by_name[each.name] for each in shown if seen or each.claim is None]
    priced = reader.runs.listed(places=wanted, seconds=allowance if seen else allowance / 4)
    known = {each.name: each for each in priced}
    shown = [known.get(each.name, each) for each in shown]
    _chart(charts.budget_bars(shown))
    st.html(runs_html(shown))


def _run(reader: Reader, place: Place) -> None:
    listed, view = reader.run(place)
    if isinstance(view, str):
        _blocks([_refused(view)])
        return
    _blocks([one_run.verdict(view), one_run.spent_rows(view)])
    st.header("ε and quality, step by step")
    _chart(charts.course(view))
    if view.measured and view.course:
        st.header("Privacy and utility")
        courses = [utility.course_of_run(view)]
        _chart(charts.privacy_utility(courses, metric=view.measured[-1].metric))
    st.header("Ledger")
    _blocks(one_run.ledger_blocks(view))
    st.header("Noise")
    _blocks(one_run.noise_blocks(view))
    st.header("What an attacker can gain")
    # These take seconds of a processor that a run may be training on.
    still = listed.state != "running"
    if st.toggle("Price the whole trade-off curve", value=still, key=f"curve {place.name}"):
        words = one_run.attack_words(view)
        _chart(charts.attack(view, words=words))
        _blocks([Paragraph(words=words)])
    st.header("Statement")
    if st.toggle("Write the privacy statement", value=still, key=f"words {place.name}"):
        st.code(one_run.stated(view), language=None, wrap_lines=True)


def _federation(reader: Reader, place: Place) -> None:
    view = reader.federation(place)
    if isinstance(view, str):
        _blocks([_refused(view)])
        return
    _blocks([one_federation.verdict(view), *one_federation.assumption_blocks(view)])
    st.header("Clients")
    _chart(charts.clients_spent(view))
    _blocks([one_federation.client_table(view)])
    st.header("Rounds")
    _chart(charts.took_part(view))
    _blocks(one_federation.round_blocks(view))
    st.header("Privacy and utility")
    _chart(charts.privacy_utility([utility.course_of_federation(view)], metric=utility.MEAN))
    st.header("Quality by kind")
    _chart(charts.quality_by_kind(view))
    _blocks(one_federation.quality_blocks(view))


def _utility(places: Places, reader: Reader, refresh: float | None) -> None:
    """Runs, federations and saved courses of one's choice in one picture."""
    kinds = {"course": places.courses, "federation": places.federations, "run": places.runs}
    known = {f"{kind} {each.name}": each for kind, found in kinds.items() for each in found}
    if not known:
        _blocks([Paragraph(words=_none_of("utility"))])
        return
    asked = [each for each in st.query_params.get_all("name") if each in known]
    names = st.multiselect("Of", list(known), default=asked or [next(iter(known))], key="utility")
    st.query_params.from_dict({"page": "utility", "name": names})
    chosen = {each: known[each] for each in names}
    st.fragment(lambda: _compared(chosen, places, reader), run_every=refresh)()


def _compared(chosen: Mapping[str, Place], places: Places, reader: Reader) -> None:
    read = [(name, reader.course(each, places=places)) for name, each in chosen.items()]
    for name, why in read:
        if isinstance(why, str):
            _blocks([_refused(f"{name}: {why}")])
    courses = [replace(each, name=name) for name, each in read if isinstance(each, Course)]
    metrics = utility.shared_metrics(courses) if courses else []
    if not metrics:
        _blocks([Paragraph(words="They measured nothing that all have in common.")])
        return
    metric = st.selectbox("Quality", metrics, key="metric")
    try:
        _chart(charts.privacy_utility(courses, metric=metric))
        _blocks([Paragraph(words=utility.WHOSE), utility.ends_table(courses, metric=metric)])
    except ConfigurationError as refusal:
        _blocks([_refused(str(refusal))])


def _budget_page(reader: Reader, place: Place) -> None:
    facts = reader.budget(place)
    if isinstance(facts, str):
        _blocks([_refused(facts)])
        return
    void = facts.held.void_because
    left = f"Left of ε = {facts.record.epsilon:g}: {left_of(facts)}."
    amiss = void or (() if facts.within else ("the total is exceeded",))
    broken = Verdict(
        standing="broken", headline="Nothing is granted any more.", reasons=tuple(amiss)
    )
    _blocks([broken if amiss else Paragraph(words=left)])
    _chart(charts.budget_bar(facts))
    _blocks(budget_blocks(facts=facts))


def _budget(path: Path) -> BudgetFacts | str:
    try:
        return gather_budget(path=path)
    except (BudgetError, ValueError, OSError) as refusal:
        return str(refusal)


def _refused(why: str) -> Verdict:
    return Verdict(standing="broken", headline="It cannot be shown.", reasons=(why,))


def _blocks(blocks: Iterable[Block]) -> None:
    st.html(fragment(blocks))


def _chart(chart: Chart | None) -> None:
    if chart is not None:
        plain = {"displayModeBar": False, "scrollZoom": False}
        st.plotly_chart(chart.figure, theme=None, config=plain, alt=chart.alternative)
