"""`dpacc verify`: does independent code arrive at the same ε?"""

import sys
from pathlib import Path
from typing import Any

import click
from dpacc_accounting import Guarantee
from dpacc_accounting.guarantee import rounded_up

from dpacc.cli import options, terminal
from dpacc.cli.report.agreement import Agreement, Comparison, compare, dp_accounting_is_installed
from dpacc.cli.sources import read_source


@click.command(short_help="Recompute a ledger's or a plan's ε with independent code.")
@options.source
@options.delta
@options.settings
@options.as_json
def verify(source: Path, delta: float | None, settings: Path | None, as_json: bool) -> None:
    """Recompute ε of SOURCE, a ledger or a plan, by accountants that share no code with ours.

    Exits with 1 where one of them cannot be right beside our certified interval, and with 2 where
    no other accountant can price what was run.
    """
    found = read_source(path=source, settings=settings)
    claim = found.guarantee(delta=delta)
    with terminal.at_work("asking the other accountants"):
        agreement = compare(event=found.event, claim=claim)
    if as_json:
        terminal.show_json({**claim.to_json(), **_document(agreement)})
    else:
        _show(agreement, stated=claim)
        for silent in agreement.silences:
            terminal.say(f"{silent.accountant} has no answer: {silent.reason}")
    if not dp_accounting_is_installed():
        terminal.say("dp-accounting is not installed: pip install dp-accounting asks it as well")
    sys.exit(0 if agreement.holds else 1)


def _show(agreement: Agreement, *, stated: Guarantee) -> None:
    claim = agreement.comparisons[0].claim
    first = [
        claim.accountant,
        _number(claim.low),
        rounded_up(claim.high, digits=6),
        "",
        "the claim",
    ]
    rows = [
        [
            each.other.accountant,
            _number(each.other.low),
            rounded_up(each.other.high, digits=6),
            f"{each.ratio:.4f}",
            each.verdict,
        ]
        for each in agreement.comparisons
    ]
    terminal.show_table(
        title=f"ε at δ = {rounded_up(stated.delta)}",
        columns=["accountant", "at least", "at most", "claim / this", "this is"],
        rows=[first, *rows],
    )
    terminal.show_facts(
        title="",
        facts=[
            ("verdict", "all agree" if agreement.holds else "DISAGREEMENT: do not rely on this ε"),
            ("adjacency", str(stated.adjacency)),
            ("privacy unit", stated.unit),
            *([("qualified", "; ".join(stated.qualified_by))] if stated.qualified_by else []),
        ],
    )


def _number(low: float) -> str:
    return f"{low:.6g}" if low else "–"


def _document(agreement: Agreement) -> dict[str, Any]:
    return {
        "agree": agreement.holds,
        "opinions": [_opinion(each) for each in agreement.comparisons],
        "silent": [
            {"accountant": silent.accountant, "reason": silent.reason}
            for silent in agreement.silences
        ],
    }


def _opinion(each: Comparison) -> dict[str, Any]:
    return {
        "accountant": each.other.accountant,
        "low": _finite(each.other.low),
        "high": _finite(each.other.high),
        "ratio": _finite(each.ratio),
        "agrees": each.agrees,
        "verdict": each.verdict,
    }


def _finite(value: float) -> float | str:
    return value if abs(value) < float("inf") else str(value)
