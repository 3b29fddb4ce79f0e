"""Which kind of thing is reported: a run, several, a federation, or a sweep or benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dpacc.artifacts.compliance import Circumstances
from dpacc.artifacts.document.content import Document
from dpacc.cli.report.audits import read_audit
from dpacc.cli.report.data_set_budget import gather_budget, with_budget
from dpacc.cli.report.federation import (
    ROUNDS,
    FederationFacts,
    gather_federation,
    report_of_federation,
)
from dpacc.cli.report.gathered import gather
from dpacc.cli.report.one_run import report_of_run
from dpacc.cli.report.questions import questions
from dpacc.cli.report.several import gather_several, report_of_several
from dpacc.cli.report.trials import RESULTS, gather_trials, report_of_trials
from dpacc.errors import ConfigurationError
from dpacc.federated.benchmark.kept_cells import CELLS, read_cells
from dpacc.federated.benchmark.report import report_of_benchmark

_LEDGER = "ledger.jsonl"
_PUBLIC = (RESULTS, CELLS)
_ANY = (_LEDGER, ROUNDS, RESULTS, CELLS)


def report_on(
    *,
    paths: Sequence[Path],
    audits: Sequence[Path] = (),
    delta: float | None = None,
    settings: Path | None = None,
    budget: Path | None = None,
    asked: bool = False,
) -> Document:
    """The report on folders: a run's or several, a federation's, a sweep's, a benchmark's.

    Args:
        paths: folders, or the ledger, rounds, results or cells in them.
        audits: files of what `dpacc audit --json` printed, of the one run.
        delta: δ at which the ε of runs is stated; their plans' when left out.
        settings: of a file with what the ledgers' own plans lack.
        budget: of the data set that the runs use.
        asked: whether what standards and laws ask of a run or a federation is appended.

    Raises:
        ConfigurationError: nothing of the kind is there, or it cannot be reported so.
        LedgerError: a ledger is damaged.
        ValueError: what was done cannot be priced.
    """
    files = [_file_of(path) for path in paths]
    if asked and (len(files) > 1 or files[0].name in _PUBLIC):
        raise ConfigurationError(
            "--questions is for a run or a federation: report one by itself, with --questions"
        )
    read = [read_audit(path=path) for path in audits]
    ledgers = [path for path in files if path.name not in (ROUNDS, *_PUBLIC)]
    if len(ledgers) < len(files) and len(files) > 1:
        raise ConfigurationError(
            "several runs are compared by their ledgers: report a federation, and a sweep or a "
            "benchmark on public data, by itself"
        )
    if len(ledgers) == 1:
        facts = gather(ledger=ledgers[0], delta=delta, settings=settings)
        found = report_of_run(facts=facts, audits=read)
        if budget is not None:
            held = gather_budget(path=budget)
            found = with_budget(document=found, facts=held, run=facts.record.run)
        return _appended(found, Circumstances.of_plan(facts.plan)) if asked else found
    if read:
        raise ConfigurationError("an audit is of one run: report that one by itself, with --audit")
    if ledgers:
        found = report_of_several(
            facts=gather_several(ledgers=ledgers, delta=delta, settings=settings)
        )
        if budget is None:
            return found
        return with_budget(document=found, facts=gather_budget(path=budget))
    if delta is not None or settings is not None or budget is not None:
        raise ConfigurationError(
            "--delta, --settings and --budget are for runs: a federation, and a sweep or a "
            "benchmark on public data, have their own"
        )
    if files[0].name == ROUNDS:
        federation = gather_federation(rounds=files[0])
        found = report_of_federation(facts=federation)
        return _appended(found, _circumstances(federation)) if asked else found
    if files[0].name == CELLS:
        return report_of_benchmark(results=read_cells(files[0].parent), name=_name(files[0]))
    return report_of_trials(facts=gather_trials(results=files[0]))


def _name(path: Path) -> str:
    return path.resolve().parent.name


def _circumstances(facts: FederationFacts) -> Circumstances:
    if facts.found.level == "client":
        return Circumstances(run="federation", unit="client")
    unit = facts.worst.server.unit
    return Circumstances(run="federation", unit="example" if unit == "example" else "owner")


def _appended(document: Document, circumstances: Circumstances) -> Document:
    appendix = questions(circumstances=circumstances)
    return replace(document, body=(*document.body, *appendix))


def _file_of(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = [path / name for name in _ANY if (path / name).is_file()]
    if not found:
        raise ConfigurationError(
            f"{path} is a folder without a {_LEDGER}, {ROUNDS}, {RESULTS} or {CELLS}, of which a "
            "run, a federation, a sweep or a benchmark leaves one: name its folder"
        )
    return found[0]
