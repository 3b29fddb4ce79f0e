"""`dpacc compose`: what a federation costs each of its clients."""

from pathlib import Path

import click
from dpacc_accounting import FederatedGuarantee, price_federation, read_federation
from dpacc_accounting.federation.guarantees import Price
from dpacc_accounting.guarantee import Guarantee, rounded_up

from dpacc.artifacts.figure_files import format_of
from dpacc.cli import options, terminal
from dpacc.cli.documents import located, read_document


@click.command(short_help="Price the rounds of a federation, client by client.")
@click.argument("rounds", type=click.Path(path_type=Path))
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Rows of the table, the most expensive clients first.",
)
@options.plot
@options.as_json
def compose(rounds: Path, top: int, plot: Path | None, as_json: bool) -> None:
    """Price the federation that the YAML or JSON file ROUNDS describes.

    States ε against a server that sees every message, and against whoever sees only the released
    models.
    """
    with located(path=rounds):
        federation = read_federation(document=read_document(path=rounds))
    with terminal.at_work("pricing the rounds"):
        found = price_federation(federation=federation)
    if plot is not None:
        from dpacc.artifacts.pictures import draw_federation

        picture = draw_federation(found=found, form=format_of(path=plot))
        options.write_picture(path=plot, picture=picture)
    if as_json:
        terminal.show_json(found.to_json())
    else:
        _show(found, top)


def _show(found: FederatedGuarantee, top: int) -> None:
    ranked = sorted(
        (*found.overlaps, *found.prices), key=lambda price: price.server.epsilon, reverse=True
    )
    prices = ranked[:top] if found.level == "example" else found.prices
    terminal.show_table(
        title="Federation",
        columns=["client" if found.level == "example" else "course", *_columns(found)],
        rows=[_row(price, found) for price in prices],
    )
    if len(ranked) > len(prices):
        terminal.say(f"{len(ranked) - len(prices)} more rows: --top or --json shows them")
    terminal.show_facts(title="", facts=_facts(found))


def _columns(found: FederatedGuarantee) -> list[str]:
    budget = ["budget"] if _budgeted(found) else []
    return [*(["clients"] if _counted(found) else []), "ε, server's view", "ε, released", *budget]


def _row(price: Price, found: FederatedGuarantee) -> list[str]:
    counted = [f"{price.count:,}"] if _counted(found) else []
    budget = [_budget(price)] if _budgeted(found) else []
    return [price.name, *counted, _epsilon(price.server), _epsilon(price.released), *budget]


def _counted(found: FederatedGuarantee) -> bool:
    return any(price.count > 1 for price in found.prices)


def _budgeted(found: FederatedGuarantee) -> bool:
    return any(price.epsilon_budget is not None for price in found.prices)


def _budget(price: Price) -> str:
    if price.epsilon_budget is None:
        return ""
    return f"{price.epsilon_budget:g}" + ("" if price.within_budget else ", EXCEEDED")


def _epsilon(guarantee: Guarantee) -> str:
    finite = guarantee.epsilon < float("inf")
    return rounded_up(guarantee.epsilon) if finite else "none holds"


def _units(found: FederatedGuarantee) -> str:
    """Whose data each price is of; by name where clients differ."""
    names: dict[str, list[str]] = {}
    for price in found.prices:
        names.setdefault(price.server.unit, []).append(price.name)
    if len(names) == 1:
        return next(iter(names))
    return ", ".join(f"{unit} ({', '.join(sorted(of))})" for unit, of in sorted(names.items()))


def _notes(found: FederatedGuarantee) -> list[tuple[str, str]]:
    """What voids or qualifies prices, each with the clients of whom it is said."""
    return [("NOT private" if note.voids else "qualified", note.text) for note in found.told]


def _facts(found: FederatedGuarantee) -> list[tuple[str, str]]:
    server, released = found.worst_server, found.worst_released
    stated = released.released
    return [
        ("largest, server's view", f"{_epsilon(server.server)} ({server.name})"),
        ("largest, released models", f"{_epsilon(stated)} ({released.name})"),
        ("δ", rounded_up(stated.delta)),
        ("adjacency", str(stated.adjacency)),
        ("privacy unit", _units(found)),
        *_notes(found),
        *([("over budget", ", ".join(found.over_budget))] if found.over_budget else []),
        *(("holds if" if at == 0 else "", words) for at, words in enumerate(found.assumptions)),
    ]
