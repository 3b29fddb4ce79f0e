"""Train one classifier at several organisations, none of which shows its texts to anybody.

    python recipes/fetch_federation.py
    python recipes/federate.py --config recipes/configs/federation/sentiment.yaml

Each client that the budgets' file names trains on `<client>.jsonl` with noise of its own, under its
own ε and on its own ledger; the server averages what they send, and measures on the
`held_out_<kind>.jsonl` beside them. A client called `news-east` holds news. All of it runs in this
process, but only serialised messages pass between them. Afterwards each client trains alone, and
one on everything, to compare. Copy this file and edit it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, Literal

from dpacc_accounting.guarantee import rounded_up

from dpacc.cli import terminal
from dpacc.cli.guarantee_table import federation_rows
from dpacc.errors import ConfigurationError
from dpacc.recipe.settings import check_limits, read_settings, setting

if TYPE_CHECKING:
    from dpacc_accounting import FederatedGuarantee

    from dpacc.federated import DPLoRAClient, DPSettings, FederatedServer, History, LoraSettings
    from dpacc.federated.benchmark.lab import Activations
    from dpacc.federated.server.held_out import HeldOut
    from dpacc.federated.server.history import ClientBooks, RoundReport

_USAGE = "python recipes/federate.py --config FILE.yaml [settings]"

Quality = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class FederationConfig:
    """Every choice of a federation that is no client's own."""

    model: str = setting("Folder of a model to classify with, or its id on the hub.")
    data: str = setting("Folder with <client>.jsonl and held_out_<kind>.jsonl.")
    budgets: str = setting("YAML of each client's privacy and training.")
    labels: tuple[str, ...] = setting("The names of all classes.")
    label_field: str = setting("Field that holds a text's class.", default="label")
    max_length: int = setting("Tokens kept of each text.", default=128, at_least=2)
    name: str = setting("Name of this run's folder.", default="federation")
    output_dir: str = setting("Folder that holds the folders of all runs.", default="runs")
    rounds: int = setting("How often the clients' adapters become one.", default=5, at_least=1)
    local_epochs: float = setting(
        "Expected passes over its data that a client makes in one round.", default=1.0, above=0
    )
    client_sampling_rate: float = setting(
        "The chance with which each client is asked in a round.", default=1.0, above=0, at_most=1
    )
    defence: Literal[
        "none", "krum", "multi-krum", "bulyan", "median", "trimmed-mean", "clipped-mean"
    ] = setting("Against hostile clients. All but none also leave out outliers.", default="none")
    attackers: int = setting("How many clients may be hostile.", default=0, at_least=0)
    despite_noise: bool = setting("Take a defence that noise makes worse than none.", default=False)
    lora_rank: int = setting("Rank of the adapters.", default=8, at_least=1)
    lora_alpha: float = setting("Adapters are scaled by lora_alpha / lora_rank.", default=16.0)
    lora_method: Literal["ffa", "dylora"] = setting(
        "ffa trains B alone; dylora A and B, at one public rank a round.", default="ffa"
    )
    lora_target_modules: tuple[str, ...] = setting("Adapted layers.", default=("all-linear",))
    lora_top_layers: int = setting(
        "Adapt this many of the last blocks; what lies beneath them is computed once.",
        default=1,
        at_least=1,
    )
    tolerated_drop: float | None = setting(
        "By how much mean held-out accuracy may fall in a round; beyond, it is given up.",
        default=None,
        above=0,
    )
    compare: bool = setting("Whether to train alone and on everything, too.", default=True)
    seed: int = setting("Seeds A, the head and a round's rank, all public.", default=0)

    def __post_init__(self) -> None:
        check_limits(settings=self)

    @property
    def task(self) -> dict[str, Any]:
        """What server and clients are told of the task."""
        return {
            "task": "sequence-classification",
            "labels": self.labels,
            "label_field": self.label_field,
            "max_length": self.max_length,
        }


@dataclass(frozen=True, kw_only=True)
class Federation:
    """Who trains together, on what, and where all of it is kept.

    Attributes:
        config: what all agree on.
        budgets: each client's privacy and training, by its name.
        held_out: what the server measures on.
        data: the folder of the clients' texts.
        folder: where the clients and the server keep what is theirs.
        known: what frozen layers make of texts, computed once; None where each client forgets it.
    """

    config: FederationConfig
    budgets: Mapping[str, DPSettings]
    held_out: HeldOut
    data: Path
    folder: Path
    known: Activations | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What three ways to train find: each client alone, all together, everything in one place."""

    alone: Mapping[str, Quality]
    together: Quality
    pooled: Quality


def main(arguments: Sequence[str]) -> None:
    """Read the settings, run the federation, and show what came of it."""
    config = read_settings(kind=FederationConfig, arguments=arguments, usage=_USAGE)
    from dpacc.artifacts.run_folder import unspent_folders_removed
    from dpacc.federated import read_budgets
    from dpacc.recipe.pretrained import bases_read_once

    budgets = read_budgets(path=config.budgets)
    require_texts(config, budgets)
    with unspent_folders_removed(), bases_read_once():
        run(config, budgets)


def require_texts(config: FederationConfig, budgets: Mapping[str, DPSettings]) -> None:
    """Each client has a file."""
    for name in budgets:
        if not (Path(config.data) / f"{name}.jsonl").is_file():
            raise ConfigurationError(
                f"{config.data} has no {name}.jsonl for the client {name} of {config.budgets}: run "
                "`python recipes/fetch_federation.py`, or name another folder with --data"
            )


def run(config: FederationConfig, budgets: Mapping[str, DPSettings]) -> None:
    """Train together and, to compare, apart; show what came of it."""
    started = time.monotonic()
    federation = begin(config, budgets)
    history, together = train_together(federation, on_round=show_round)
    if config.compare:
        comparison = Comparison(
            alone=train_alone(federation), together=together, pooled=train_pooled(federation)
        )
        show_comparison(comparison)
        draw_figure(federation, history, comparison)
    show_result(history.guarantee(), federation.folder, seconds=time.monotonic() - started)


def begin(config: FederationConfig, budgets: Mapping[str, DPSettings]) -> Federation:
    """A new folder, after what earlier runs have cost each client's data was said."""
    from dpacc.artifacts.earlier_runs import spent_by_client
    from dpacc.artifacts.run_folder import new_run_folder
    from dpacc.federated.benchmark.lab import FirstActivations
    from dpacc.federated.server.held_out import HeldOut
    from dpacc.recipe.pretrained import load_tokenizer

    data, words = Path(config.data), load_tokenizer(model=config.model)
    held_out = HeldOut(folder=data, tokenizer=words, task=config.task)
    held_out.require_apart({name: data / f"{name}.jsonl" for name in budgets})
    for name in budgets:
        told = spent_by_client(output_dir=config.output_dir, name=config.name, client=name)
        if told is not None:
            terminal.say(told)
    folder = new_run_folder(output_dir=config.output_dir, name=config.name)
    terminal.say(f"{len(budgets)} clients, {config.rounds} rounds, run folder {folder}")
    # To compare, one process holds every text in one place anyway.
    known = FirstActivations() if config.compare else None
    return Federation(
        config=config, budgets=budgets, held_out=held_out, data=data, folder=folder, known=known
    )


# --- three ways to train --------------------------------------------------------------------


def train_together(
    federation: Federation, *, on_round: Callable[[RoundReport], None] | None = None
) -> tuple[History, Quality]:
    """A federation of these clients, and what its model finds; measured each round if watched."""
    from dpacc.federated import Defence, Rollback
    from dpacc.federated.server.run_results import write_results

    config, held_out = federation.config, federation.held_out
    clients = make_clients(federation)
    server = make_server(federation)
    attackers, drop, despite = config.attackers, config.tolerated_drop, config.despite_noise
    defence = Defence(rule=config.defence, attackers=attackers, despite_noise=despite)
    history = server.train(
        clients=clients,
        aggregation="ffa" if config.lora_method == "ffa" else "average",
        client_sampling_rate=config.client_sampling_rate,
        local_epochs=config.local_epochs,
        defence=None if config.defence == "none" else defence,
        measure=held_out if on_round else None,
        rollback=Rollback(tolerated_drop=drop) if on_round and drop else None,
        on_round=on_round,
    )
    for client in clients:
        client.close()
    write_results(server, folder=federation.folder)
    return history, held_out(server.model)


def shared_adapter(config: FederationConfig) -> LoraSettings:
    """What all agree on: an adapter whose A is drawn from a public seed."""
    from dpacc.federated import LoraSettings

    return LoraSettings(
        rank=config.lora_rank,
        alpha=config.lora_alpha,
        method=config.lora_method,
        target_modules=config.lora_target_modules,
        top_layers=config.lora_top_layers,
        seed=config.seed,
    )


def make_clients(federation: Federation) -> list[DPLoRAClient]:
    """The clients: each with data, budget and ledger of its own."""
    from dpacc.federated import DPLoRAClient
    from dpacc.federated.benchmark.lab import LabClient

    config, known = federation.config, federation.known
    client = DPLoRAClient if known is None else partial(LabClient, public=known)
    return [
        client(
            client_id=name,
            data_path=federation.data / f"{name}.jsonl",
            model_name=config.model,
            lora_config=shared_adapter(config),
            dp_config=replace(own, most_local_epochs=config.local_epochs),
            task=config.task | {"cache_frozen_activations": True},
            folder=federation.folder / name,
        )
        for name, own in federation.budgets.items()
    ]


def make_server(federation: Federation) -> FederatedServer:
    """The server: it averages adapters and heads, and measures on examples of its own."""
    from dpacc.federated import FederatedServer, largest_budget

    config = federation.config
    return FederatedServer(
        model_name=config.model,
        num_clients=len(federation.budgets),
        rounds=config.rounds,
        privacy_budget=largest_budget(federation.budgets),
        lora_config=shared_adapter(config),
        task=config.task,
        folder=federation.folder / "server",
    )


def train_alone(federation: Federation) -> dict[str, Quality]:
    """Each client as a federation of its own, with the same ε and as many steps."""
    found, folder = {}, federation.folder / "alone"
    for name, own in federation.budgets.items():
        terminal.say(f"{name} alone")
        by_itself = replace(federation, budgets={name: own}, folder=folder / name)
        _, found[name] = train_together(by_itself)
    return found


def train_pooled(federation: Federation) -> Quality:
    """One client that holds everything, in batches as large as all others' together.

    The strictest client's ε must then hold for all.
    """
    terminal.say("everything in one place")
    owners = federation.budgets.values()
    everything = replace(
        next(iter(owners)),
        epsilon=min(own.epsilon for own in owners),
        expected_batch_size=sum(own.expected_batch_size for own in owners),
    )
    with tempfile.TemporaryDirectory() as data:
        texts = [(federation.data / f"{n}.jsonl").read_text("utf-8") for n in federation.budgets]
        (Path(data) / "everything.jsonl").write_text("\n".join(texts), "utf-8")
        pooled = replace(federation, budgets={"everything": everything}, data=Path(data))
        _, found = train_together(replace(pooled, folder=federation.folder / "pooled"))
    return found


# --- what is shown --------------------------------------------------------------------------


def show_round(report: RoundReport) -> None:
    """Who took part in a round, what each has spent, and what the average finds."""
    found = ", ".join(f"{kind} {share:.1%}" for kind, share in report.quality.items())
    title = (
        f"Round {report.number}: {len(report.asked)} clients asked, {len(report.survivors)} "
        f"survived, {len(report.filtered)} filtered\nheld-out balanced accuracy: {found}"
    )
    if report.rolled_back:
        title += f"\ngiven up, and paid for: {report.rolled_back}"
    rows = [
        [
            name,
            spent(books),
            f"{books.epsilon_budget:g}",
            str(books.steps_charged),
            f"filtered: {report.filtered[name]}" if name in report.filtered else "averaged",
        ]
        for name, books in report.books.items()
        if name in report.survivors
    ]
    rows += [[name, "", "", "", reason] for name, reason in report.failed.items()]
    columns = ["client", "ε spent", "of", "steps", "update"]
    terminal.show_table(title=title, columns=columns, rows=rows)


def spent(books: ClientBooks) -> str:
    """A client's ε so far, and whether something voids or qualifies it: what, the end tells.

    >>> from dpacc.federated.server.history import ClientBooks
    >>> books = {"delta": 1e-5, "epsilon_budget": 8.0, "noise_multiplier": 1.0, "steps_taken": 1,
    ...          "sampling_probability": 0.1, "steps_charged": 1, "qualified_by": ("whitening",)}
    >>> spent(ClientBooks(epsilon=1.5, **books))
    '1.5, qualified'
    """
    if books.void_because:
        return "NOT private"
    return rounded_up(books.epsilon, digits=4) + (", qualified" if books.qualified_by else "")


def show_comparison(comparison: Comparison) -> None:
    """Each kind's held-out balanced accuracy, by who trained on what."""
    together, pooled = comparison.together, comparison.pooled
    rows = []
    for kind in together:
        alone = [(kind_of(name), found[kind]) for name, found in comparison.alone.items()]
        own = [share for of, share in alone if of == kind]
        others = [share for of, share in alone if of != kind]
        rows.append([mean(own), mean(others), together[kind], pooled[kind]])
    rows.append([mean([row[at] for row in rows]) for at in range(4)])
    terminal.show_table(
        title="Held-out balanced accuracy (guessing finds 50%)",
        columns=["kind", "alone, this kind", "alone, other kinds", "federated", "in one place"],
        rows=[
            [name, *(f"{share:.1%}" for share in row)]
            for name, row in zip([*together, "mean"], rows, strict=True)
        ],
    )


def show_result(guarantee: FederatedGuarantee, folder: Path, *, seconds: float) -> None:
    """What is promised to whom, priced anew from what was done."""
    facts = federation_rows(guarantee, folder=folder, seconds=seconds)
    terminal.show_facts(title="Private federation", facts=facts)


def draw_figure(federation: Federation, history: History, comparison: Comparison) -> None:
    """What each client's ε bought, alone and together."""
    from dpacc.federated.server.utility_chart import draw_utility, utilities_of

    alone, together = comparison.alone, comparison.together
    errors, owners = federation.held_out.standard_errors, {n: kind_of(n) for n in alone}
    picture = draw_utility(
        history=history,
        guarantee=history.guarantee(),
        clients=utilities_of(history, alone=alone, together=together, kinds=owners, errors=errors),
        pooled=comparison.pooled,
        errors=errors,
    )
    (federation.folder / "privacy_utility.png").write_bytes(picture)


def kind_of(client: str) -> str:
    """The kind of text that a client holds, by its name.

    >>> kind_of("news-east")
    'news'
    """
    return client.partition("-")[0]


if __name__ == "__main__":
    with terminal.one_line_errors():
        main(sys.argv[1:])
