"""The report of a benchmark: every cell, in pictures and tables, and that it protects nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dpacc.artifacts.document.content import (
    Block,
    Document,
    Figure,
    Heading,
    Paragraph,
    Points,
    Table,
    Verdict,
)
from dpacc.errors import ConfigurationError
from dpacc.federated.benchmark.charts import draw_holdings, draw_outcomes
from dpacc.federated.benchmark.data_sets import DataSet
from dpacc.federated.benchmark.kept_cells import Found
from dpacc.federated.benchmark.outcomes import (
    NAMES,
    by_task,
    epsilon_of,
    meaning,
    notes_of,
    place_of,
    series_of,
    shown,
)
from dpacc.federated.benchmark.partitions import Shares

Holdings = Mapping[str, tuple[DataSet, Mapping[int, Shares]]]
"""Of each data set its records, and their shares by number of clients."""

_DEALT = {
    "owner": "each owner's records are at one client",
    "label": "labels differ from client to client (Dirichlet, α = {alpha:g})",
    "quantity": "clients differ in how much they hold (Dirichlet, α = {alpha:g})",
    "kind": "clients hold different kinds",
}


def report_of_benchmark(
    *, results: Sequence[Found], name: str, holdings: Holdings | None = None
) -> Document:
    """All that is to be said of a benchmark.

    Args:
        results: of its cells.
        name: of the benchmark.
        holdings: for pictures of which client held what, if they are wanted.

    Raises:
        ConfigurationError: there are no results.
    """
    if not results:
        raise ConfigurationError(f"{name} has no results yet: run recipes/benchmark.py")
    return Document(
        title="Benchmark of federations",
        subtitle=f"{name}, {len(results)} cells",
        verdict=Verdict(
            standing="unclaimed",
            headline="This benchmark promises nothing to anybody: its data is public.",
            conditions=f"What is compared: {meaning(results)}.",
            reasons=(
                "each ε is what one training cost each of its clients, by their ledgers; all cells "
                "used the same records, so that they cost more together",
                *(note.text for note in notes_of(results)),
            ),
        ),
        first_page=(Points(points=tuple(_set_up(results))), *_pictures(results)),
        body=(*_tables(results), *_dealings(holdings or {})),
    )


def _set_up(results: Sequence[Found]) -> Iterator[tuple[str, str]]:
    shared = results[0]["cell"]["shared"]
    yield "In one place", "all records at one client, in batches as large as all others' together."
    yield "Federated", "every client adds its own noise; the server averages their adapters."
    yield "Alone", "the mean of models that the clients train by themselves, for the same ε."
    dealt = _DEALT[shared["partition"]].format(alpha=shared["alpha"])
    yield "Who holds what", f"{dealt}; every record is at one client."
    yield (
        "Training",
        f"{shared['rounds']} rounds of {shared['local_epochs']:g} expected passes, steps of "
        f"{shared['sampling_rate']:.0%} of a client's data, adapters of rank "
        f"{shared['lora_rank']} on the uppermost {_counted(shared['lora_top_layers'], 'block')}.",
    )
    yield (
        "Errors",
        "one standard error: the held-out records are a sample. Models of one table are measured "
        "on the same sample, so that their differences are surer than the errors suggest.",
    )
    worked = sum(float(each.get("cpu_seconds", 0)) for each in results)
    yield "Cost", f"{worked / 60:.0f} minutes of processor time for all cells."


def _counted(number: int, what: str) -> str:
    return what if number == 1 else f"{number} {what}s"


def _pictures(results: Sequence[Found]) -> Iterator[Block]:
    for (model, data), found in by_task(results).items():
        yield Heading(level=2, words=f"{model} on {data}")
        yield Figure(
            svg=draw_outcomes(found),
            alternative=" ".join(_read_out(found)),
            caption=f"Held-out {found[0]['metric']} of {model} on {data}, by ε",
        )


def _read_out(found: Sequence[Found]) -> Iterator[str]:
    for line in series_of(found):
        values = ", ".join(
            f"{value:.1f} ± {error:.1f} at ε = {epsilon:g}"
            for epsilon, (value, error) in line.points.items()
        )
        yield f"{line.name}: {values}."


def _tables(results: Sequence[Found]) -> Iterator[Block]:
    yield Heading(level=2, words="All cells")
    for (model, data), found in by_task(results).items():
        yield Table(
            caption=f"{model} on {data}: held-out {found[0]['metric']} with its standard error",
            columns=("way", "clients", "average", "ε by the ledgers", "quality", "received, MB"),
            rows=tuple(_row(each) for each in sorted(found, key=place_of)),
        )


def _row(found: Found) -> tuple[str, ...]:
    cell = found["cell"]
    federated = cell["way"] == "federated"
    return (
        NAMES[cell["way"]],
        str(cell["clients"]),
        cell["aggregation"] if federated else "",
        epsilon_of(found),
        shown(found["quality"], found["error"], metric=found["metric"]),
        f"{found['bytes_received'] / 1e6:.2f}" if federated else "",
    )


def _dealings(holdings: Holdings) -> Iterator[Block]:
    if not holdings:
        return
    yield Heading(level=2, words="Who holds what")
    yield Paragraph(words="Partitions follow from a public seed. Held-out records are nobody's.")
    for name, (data, dealings) in holdings.items():
        sizes = "; ".join(
            f"{clients} clients hold {', '.join(str(len(share)) for share in shares)}"
            for clients, shares in dealings.items()
        )
        yield Figure(
            svg=draw_holdings(data, dealings),
            alternative=f"Bars of records: {sizes}.",
            caption=f"Records of {name} at each client",
        )
