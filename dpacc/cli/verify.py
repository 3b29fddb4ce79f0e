"""`dpacc verify`: does independent code arrive at the same ε?"""

import sys
from pathlib import Path
from typing import Any

import click
from dpacc_accounting.guarantee import rounded_up

from dpacc.agreement import Comparison, compare, dp_accounting_is_installed
from dpacc.cli import options, terminal
from dpacc.cli.sources import read_source


@click.command(short_help="Recompute a ledger's or a plan's ε with independent code.")
@options.source
@options.delta
@options.as_json
def verify(source: Path, delta: float | None, as_json: bool) -> None:
    """Recompute ε of SOURCE, a ledger or a plan, by accountants that share no code with ours.

    Exits with 1 where one of them cannot be right beside our certified interval.
    """
    found = read_source(path=source)
    claim = found.guarantee(delta=delta)
    with terminal.at_work("asking the other accountants"):
        comparisons = compare(event=found.event, claim=claim)
    agree = all(each.agrees for each in comparisons)
    if as_json:
        terminal.show_json(
            {**claim.to_json(), "agree": agree, "opinions": [_document(c) for c in comparisons]}
        )
    else:
        _show(comparisons, agree=agree, delta=claim.delta)
    if not dp_accounting_is_installed():
        terminal.say("dp-accounting is not installed: pip install dp-accounting asks it as well")
    sys.exit(0 if agree else 1)


def _show(comparisons: list[Comparison], *, agree: bool, delta: float) -> None:
    claim = comparisons[0].claim
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
        for each in comparisons
    ]
    terminal.show_table(
        title=f"ε at δ = {rounded_up(delta)}",
        columns=["accountant", "at least", "at most", "claim / this", "this is"],
        rows=[first, *rows],
    )
    terminal.show_facts(
        title="",
        facts=[("verdict", "all agree" if agree else "DISAGREEMENT: do not rely on this ε")],
    )


def _number(low: float) -> str:
    return f"{low:.6g}" if low else "–"


def _document(each: Comparison) -> dict[str, Any]:
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
