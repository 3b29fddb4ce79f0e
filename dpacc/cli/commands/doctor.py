"""`dpacc doctor`: is what ran what was accounted?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from dpacc_accounting import read_ledger

from dpacc.cli import options, terminal
from dpacc.cli.sources import read_source
from dpacc.plan import PrivacyPlan
from dpacc.recipe.config import load_config

if TYPE_CHECKING:
    from dpacc.doctor.finding import Finding

NOT_PRIVATE = (
    "computed from private data without noise: for the owner's eyes alone. Whoever publishes it, "
    "or chooses settings by it, releases what no ε covers"
)


@click.command(
    short_help="Check that what ran, or would run, is what was accounted.",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("run_or_script", type=click.Path(path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--watch",
    "steps",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Logical steps of a script that are watched.",
)
@click.option(
    "--data",
    "of_data",
    is_flag=True,
    help="Look through the private data of a configuration instead. The output is not private.",
)
@options.as_json
def doctor(
    run_or_script: Path, arguments: tuple[str, ...], steps: int, of_data: bool, as_json: bool
) -> None:
    """Examine RUN_OR_SCRIPT and say in plain words what is right and what is not.

    A run's folder: its ledger, proof and adapter, and the installed engine under its plan. A plan
    or a ledger: the engine alone. Synthetic text: whether the cards beside it are about it. Labels
    that were counted: their charge, the counts, and the noise. A training script (.py), with the
    ARGUMENTS that follow it: the script itself runs for a few steps, whose updates are noise alone
    and whose ledger is thrown away. Words that this command knows as its own go to the script after
    a --.

    With --data it is a configuration of recipes/train.py, whose settings ARGUMENTS may override:
    texts that several units share, the largest unit, records that teach nothing or are cut.

    Exits with 1 where something is wrong.
    """
    if of_data:
        findings = _of_data(run_or_script, arguments)
    elif run_or_script.suffix == ".py":
        with options.training_stack():
            from dpacc.doctor.script import script_findings

        findings = script_findings(script=run_or_script, arguments=arguments, steps=steps)
    else:
        findings = _of_run(run_or_script)
    healthy = all(each.healthy for each in findings)
    if as_json:
        terminal.show_json(
            {
                "healthy": healthy,
                "findings": [each.to_json() for each in findings],
                **({"not_private": NOT_PRIVATE} if of_data else {}),
            }
        )
    else:
        facts = [(f"{_mark(each)} {each.subject}", each.words) for each in findings]
        verdict = "healthy" if healthy else "NOT healthy: do not rely on its ε"
        last = ("this output", NOT_PRIVATE) if of_data else ("verdict", verdict)
        terminal.show_facts(title="Examination", facts=[*facts, last])
    sys.exit(0 if healthy else 1)


def _of_data(config: Path, overrides: tuple[str, ...]) -> list[Finding]:
    if config.suffix == ".py":
        raise click.UsageError(
            f"--data looks through the data of a configuration, and {config} is a script: its own "
            "words go after a --."
        )
    settings = load_config(arguments=["--config", str(config), *overrides])
    with options.training_stack(), terminal.at_work("looking through the data"):
        from dpacc.doctor.private_data import data_findings

        return data_findings(config=settings)


def _of_run(source: Path) -> list[Finding]:
    with options.training_stack():
        from dpacc.doctor.engine_room import engine_findings
        from dpacc.doctor.run_folder import adapter_findings, ledger_findings
        from dpacc.doctor.synthetic_text import written_findings

    if written := written_findings(source=source):
        return written
    left: list[Finding] = []
    if source.is_dir():
        left = [*ledger_findings(folder=source), *adapter_findings(folder=source)]
        plan = PrivacyPlan.from_json(read_ledger(path=source / "ledger.jsonl").plan)
    else:
        plan = PrivacyPlan.from_json(read_source(path=source).plan)
    with terminal.at_work("rehearsing the plan"):
        return [*left, *engine_findings(plan=plan)]


def _mark(finding: Finding) -> str:
    return "ok " if finding.healthy else "BAD"
