"""`dpacc attack`: what an attacker with a finished adapter really finds out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from dpacc_accounting.guarantee import rounded_up

from dpacc.cli import options, terminal
from dpacc.cli.guarantee_table import guarantee_rows
from dpacc.cli.sources import read_source
from dpacc.errors import ConfigurationError

if TYPE_CHECKING:
    from dpacc.audit.exposure import Exposure
    from dpacc.audit.finished import FinishedAdapter
    from dpacc.audit.membership import MembershipReport, Promised

_NOT_FOR_PUBLICATION = (
    "these numbers are computed from private texts without noise: they are not covered by the "
    "guarantee, so do not publish them"
)
_file = click.Path(path_type=Path, dir_okay=False)


@click.command(short_help="Attack a finished adapter: membership inference and exposure.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--members", type=_file, help="Texts that were trained on (.jsonl, .txt, …).")
@click.option("--strangers", type=_file, help="Texts of the same kind that were not.")
@click.option("--text-field", default="text", show_default=True, help="Field of their text.")
@click.option("--most", type=click.IntRange(min=1), default=1000, show_default=True,
              help="Texts of each kind that are tried, the first of the file.")  # fmt: skip
@click.option("--secret", "secrets", multiple=True, help="A text whose digits are secret.")
@click.option("--candidates", type=click.IntRange(min=1), default=1023, show_default=True,
              help="Other digits that are tried for each secret.")  # fmt: skip
@click.option("--model", help="The base model.  [default: the one that the adapter names]")
@options.as_json
def attack(
    run: Path,
    members: Path | None,
    strangers: Path | None,
    text_field: str,
    most: int,
    secrets: tuple[str, ...],
    candidates: int,
    model: str | None,
    as_json: bool,
) -> None:
    """Attack the adapter in the folder RUN as somebody would who has it and its base model.

    Membership inference tells --members from --strangers by how far training lowered their
    losses. Exposure counts how many bits of each --secret the adapter gives away.
    """
    if (members is None) != (strangers is None):
        raise ConfigurationError("--members and --strangers belong together: give both or neither")
    if members is None and not secrets:
        raise ConfigurationError("nothing to attack: give --members and --strangers, or --secret")
    with options.training_stack():
        from dpacc.audit.finished import FinishedAdapter

    known = {path: _texts(path, text_field, most) for path in (members, strangers) if path}
    with terminal.at_work("loading the adapter"):
        adapter = FinishedAdapter(run, model=model)
    report, promised = None, _promised(run)
    if members is not None and strangers is not None:
        with terminal.at_work("scoring members and strangers"):
            report = _membership(adapter, known[members], known[strangers], promised)
    exposures = {
        secret: _exposure(adapter, secret, candidates)
        for secret in terminal.tracked(secrets, message="trying secrets")
    }
    if as_json:
        terminal.show_json(
            {
                "promised": None if promised is None else promised.claim.to_json(),
                "membership": None if report is None else report.to_json(),
                "exposure": [{"secret": at + 1, **vars(e)} for at, e in _numbered(exposures)],
            }
        )
    else:
        _show(report, exposures, promised)
    terminal.say(_NOT_FOR_PUBLICATION)


def _numbered(exposures: dict[str, Exposure]) -> list[tuple[int, Exposure]]:
    return list(enumerate(exposures.values()))


def _membership(
    adapter: FinishedAdapter, members: list[str], strangers: list[str], promised: Promised | None
) -> MembershipReport:
    from dpacc.audit.membership import membership_report

    return membership_report(
        members=adapter.gains(members), strangers=adapter.gains(strangers), promised=promised
    )


def _exposure(adapter: FinishedAdapter, secret: str, candidates: int) -> Exposure:
    from dpacc.audit.exposure import exposure, other_digits

    others, space = other_digits(secret=secret, candidates=candidates)
    losses = adapter.losses([secret, *others])
    return exposure(secret=float(losses[0]), candidates=losses[1:], space=space)


def _texts(path: Path, field: str, most: int) -> list[str]:
    from dpacc.data.records import read_records

    records = read_records(source=str(path), fields={field: str})
    return [record[field] for record in records[:most]]


def _promised(run: Path) -> Promised | None:
    """What the run's own ledger promises, if it has one; nothing where it is void."""
    from dpacc.audit.membership import Promised

    ledger = run / "ledger.jsonl"
    if not ledger.exists():
        return None
    found = read_source(path=ledger)
    return Promised(event=found.event, claim=found.claim())


def _show(
    report: MembershipReport | None, exposures: dict[str, Exposure], promised: Promised | None
) -> None:
    if promised is not None:
        terminal.show_facts(title="What the ledger promises", facts=guarantee_rows(promised.claim))
    if report is not None:
        terminal.show_facts(title="Membership inference", facts=_rows(report))
    for at, found in _numbered(exposures):
        terminal.show_facts(
            title=f"Exposure of secret {at + 1}",
            facts=[
                ("bits given away", f"{found.bits:.2f} of at most {found.most:.2f} seen"),
                ("known by chance", "1.44 on average, for a secret the model never saw"),
                ("tries to find it", f"about {found.guesses:.3g} of {found.space:.3g}"),
            ],
        )


def _rows(report: MembershipReport) -> list[tuple[str, str]]:
    rows = [
        ("tried", f"{report.members} members, {report.strangers} strangers"),
        ("AUC", f"{report.auc:.3f} (0.5 is guessing)"),
        ("advantage", f"{report.advantage:.3f}{_allowed(report.allowed_advantage)}"),
    ]
    rows += [
        (
            f"found at {each.false_positives:.2%} false alarms",
            f"{each.true_positives:.2%}, with 95% confidence at least {each.at_least:.2%}"
            f"{_allowed(each.allowed)}",
        )
        for each in report.detections
    ]
    return rows


def _allowed(bound: float | None) -> str:
    return "" if bound is None else f"; the guarantee allows {rounded_up(bound, digits=3)}"
