"""Earlier runs of the same name: what they cost together with the next, and which may go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from dpacc_accounting import (
    Composed,
    Event,
    LedgerRecord,
    epsilon,
    merge_ledgers,
    read_ledger,
)
from dpacc_accounting.ledger.record import LedgerError

from dpacc.artifacts.run_folder import new_run_folder
from dpacc.errors import ConfigurationError
from dpacc.plan import PrivacyPlan
from dpacc.recipe.config import TrainingConfig

AUTO = "auto"
"""For `resume`: the last run of the same name."""


def begin_run(
    *,
    output_dir: str | Path,
    name: str,
    plan: PrivacyPlan,
    say: Callable[[str], None],
    event: Event | None = None,
) -> Path:
    """Make a run's folder, after saying what it costs together with earlier runs of its name.

    For the main process alone. Arguments as in `cost_with_earlier_runs`; `say` shows a line.

    Raises:
        ConfigurationError: an earlier run should be resumed, or the folder cannot be created.
    """
    told = cost_with_earlier_runs(output_dir=output_dir, name=name, plan=plan, event=event)
    if told is not None:
        say(told)
    return new_run_folder(output_dir=output_dir, name=name)


def run_to_go_on(*, config: TrainingConfig) -> str | None:
    """The folder that `resume` names; for `auto` the last run's of this name, if there is one.

    So a job that is started again and again takes its run to the end, and spends one budget.

    Raises:
        ConfigurationError: that run spent a budget and cannot go on, or there is none yet and
            nothing would be kept of the one that begins.
        LedgerError: its ledger is damaged, so that nobody knows what it spent.
    """
    if config.resume != AUTO:
        return config.resume
    last, _ = _last_run(config)
    if last is None and config.checkpoint_every is None:
        raise ConfigurationError(
            "resume=auto goes on from checkpoints, and this run would keep none: set "
            "--checkpoint_every too"
        )
    if last is not None and not (last / "checkpoints").is_dir():
        raise ConfigurationError(
            f"{last} spent a budget and kept no checkpoint to go on from: choose another --name to "
            "spend one beside it"
        )
    return None if last is None else str(last)


def finished_run(*, config: TrainingConfig) -> Path | None:
    """The run that `resume: auto` goes on with, if its adapter is saved: there is nothing to do."""
    last, record = _last_run(config) if config.resume == AUTO else (None, None)
    return last if record is not None and record.saved else None


def _last_run(config: TrainingConfig) -> tuple[Path, LedgerRecord] | tuple[None, None]:
    """The last that released anything; of a ledger that is damaged nobody knows whether it did.

    Raises:
        LedgerError: one of them is.
    """
    for folder in reversed([*_folders(Path(config.output_dir).expanduser(), config.name)]):
        ledger = folder / "ledger.jsonl"
        if ledger.is_file() and ledger.stat().st_size:
            record = read_ledger(path=ledger)
            if record.releases:
                return folder, record
    return None, None


def cost_with_earlier_runs(
    *, output_dir: str | Path, name: str, plan: PrivacyPlan, event: Event | None = None
) -> str | None:
    """What a run costs together with those in `name`, `name-2`, ..., in words; None without any.

    Whether they used the same data is not known here: whoever's data all of them used pays for all.

    Args:
        output_dir: the folder of all runs' folders.
        name: of the run that is to begin.
        plan: how it will be trained.
        event: what it will release; all steps of the plan when left out.

    Raises:
        ConfigurationError: the last of them can be resumed, which costs no second budget.
    """
    found = _charged(Path(output_dir).expanduser(), name)
    if not found:
        return None
    last, record = list(found.items())[-1]
    planned = event or plan.event()
    together = _together(found, plan, planned)
    if _can_go_on(last, record):
        raise ConfigurationError(
            f"{last} stopped after {len(record.releases)} of {record.plan['steps']} steps: go on "
            f"with --resume {last}, or choose another --name to spend a budget beside it"
            f"{f', {together}' if together else ''}"
        )
    names = " and ".join(str(folder) for folder in found)
    plural = "s" if len(found) == 1 else "ve"
    words = f"; {together}" if together else ", whose costs add to this run's"
    return f"{names} ha{plural} spent a budget already{words}"


def spent_by_client(*, output_dir: str | Path, name: str, client: str) -> str | None:
    """What earlier federations of one name cost a client's data, in words; None without any.

    Counted are its ledgers of training together and alone, and those of pooled data. What is to
    come is not priced here, for a client's plan is made from its data when it is first asked.

    Args:
        output_dir: the folder of all runs' folders.
        name: of the federation that is to begin.
        client: whose data.
    """
    places = (client, f"alone/{client}/{client}", "pooled/everything")
    parent = Path(output_dir).expanduser()
    found: dict[Path, LedgerRecord] = {}
    for place in places:
        found |= _charged(parent, name, place)
    if not found:
        return None
    ledgers = "1 ledger" if len(found) == 1 else f"{len(found)} ledgers"
    begun = f"{client}: {ledgers} of earlier runs in {parent} spent on its data"
    first = next(iter(found.values())).plan
    try:
        spent = merge_ledgers(
            records={str(folder): record for folder, record in found.items()},
            delta=float(first["target_delta"]),
        )
        price = epsilon(
            event=spent.event,
            delta=float(first["target_delta"]),
            adjacency=first["adjacency"],
            unit=first["unit"],
        )
    except (ValueError, KeyError):  # of several units, or of a plan that composes with nothing
        return f"{begun}; their costs add to this run's"
    return f"{begun}, and this run's ε adds to it: {price.noted(spent.notes)}"


def _charged(parent: Path, name: str, place: str = ".") -> dict[Path, LedgerRecord]:
    """The earlier runs that released anything, by their folders, the oldest first."""
    found = {}
    for folder in _folders(parent, name):
        try:
            record = read_ledger(path=folder / place / "ledger.jsonl")
            if record.releases:
                found[folder / place] = record
        except LedgerError:  # none, or one that says nothing
            pass
    return found


def _folders(parent: Path, name: str) -> Iterator[Path]:
    """Those that runs of a name have begun, in their order."""
    number, folder = 1, parent / name
    while folder.is_dir():
        yield folder
        number += 1
        folder = parent / f"{name}-{number}"


def _can_go_on(folder: Path, record: LedgerRecord) -> bool:
    over = 0 if record.last_step is None else record.last_step + 1
    unfinished = over < int(record.plan.get("steps", 0))
    return unfinished and (folder / "checkpoints").is_dir()


def _together(found: Mapping[Path, LedgerRecord], plan: PrivacyPlan, planned: Event) -> str | None:
    """What all releases and the planned promise; None where no one guarantee covers them."""
    settings, delta = plan.to_json(), plan.target_delta
    if any(
        record.plan.get(each) != settings[each]
        for record in found.values()
        for each in ("adjacency", "unit")
    ):
        return None
    try:
        spent = merge_ledgers(records={str(f): record for f, record in found.items()}, delta=delta)
        price = epsilon(
            event=Composed(events=(spent.event, planned)),
            delta=delta,
            adjacency=plan.adjacency,
            unit=plan.unit,
        )
    except ValueError:  # a plan of another kind, or a search, which composes with nothing
        return None
    return f"on the same data, all cost together: {price.noted(spent.notes)}"
