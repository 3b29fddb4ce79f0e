"""Ways in which a report could flatter: say less than ε, or call kept what is broken."""

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.planting import Patch

_REPORT = "tests/cli/report"

REPORT_BUGS = (
    Bug(
        "void run reported as kept",
        "the first page of a run with a fixed seed says that it keeps a promise",
        (
            Patch(
                "dpacc.cli.report.words",
                "    if facts.void:\n        return Verdict(\n",
                "    if False:\n        return Verdict(\n",
            ),
        ),
        (f"{_REPORT}/test_words.py::test_a_void_run_is_not_private_in_the_headline",),
    ),
    Bug(
        "one run's ε for several",
        "a report of several runs states the first one's ε as their total",
        (
            Patch(
                "dpacc.cli.report.several",
                "    total = priced(event=merged.event, claim=merged.together)\n",
                "    total = runs[0]\n",
            ),
        ),
        (f"{_REPORT}/test_several.py::test_the_headline_is_the_total",),
    ),
    Bug(
        "runs at their own δ",
        "the runs of a comparison are stated at different δ, so that a larger δ looks stronger",
        (
            Patch(
                "dpacc.cli.report.several",
                "gather(ledger=path, delta=stated, name=name,",
                "gather(ledger=path, delta=delta, name=name,",
            ),
        ),
        (f"{_REPORT}/test_several.py::test_every_epsilon_is_at_one_delta",),
    ),
    Bug(
        "refuted claim reported as kept",
        "an audit that refutes a claim stands in its table, and not on the first page",
        (
            Patch(
                "dpacc.cli.report.words",
                ", *refuted_by(audits=audits, claim=facts.claim))",
                ")",
            ),
        ),
        (f"{_REPORT}/test_words.py::test_an_audit_that_refutes_breaks_the_promise[changes0]",),
    ),
    Bug(
        "another adapter reported as the run's",
        "a folder whose adapter or proof is another's is reported as if its ledger were about it",
        (
            Patch(
                "dpacc.cli.report.words",
                "    found = [each.words for each in facts.findings if not each.healthy]\n",
                "    found: list[str] = []\n",
            ),
        ),
        (
            f"{_REPORT}/test_words.py::test_a_folder_that_contradicts_its_ledger_is_broken"
            "[adapter_config.json]",
        ),
    ),
    Bug(
        "best client speaks for all",
        "a federation's first page states the ε of the client with the smallest one",
        (
            Patch(
                "dpacc.cli.report.federation",
                "        return self.found.worst_released\n",
                "        return min(self.found.prices, key=lambda each: each.released.epsilon)\n",
            ),
        ),
        (f"{_REPORT}/test_federation.py::test_the_headline_is_the_worst_client",),
    ),
    Bug(
        "client's ledger not asked",
        "a client's ledger that charges more than a federation's rounds tell is passed over",
        (
            Patch(
                "dpacc.cli.report.federation",
                "    elif ledger.epsilon > told * (1 + _SAME):\n",
                "    elif False:\n",
            ),
        ),
        (
            f"{_REPORT}/test_federation.py"
            "::test_a_ledger_that_charges_more_than_the_rounds_breaks_it",
        ),
    ),
    Bug(
        "words become markup",
        "a name from a run's files is written into the page unescaped",
        (
            Patch(
                "dpacc.artifacts.document.html_page",
                '            return f"<p>{escape(words)}</p>"\n',
                '            return f"<p>{words}</p>"\n',
            ),
        ),
        (
            f"{_REPORT}/test_pages.py::test_a_page_fetches_nothing_and_runs_nothing",
            f"{_REPORT}/test_pages.py::test_hostile_words_stay_words",
        ),
    ),
)
