"""`dpacc federate tune`: rank, compression and noise for a target ε and megabytes a round."""

from __future__ import annotations

import math
import re
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from dpacc_accounting.guarantee import rounded_up

from dpacc.cli import options, terminal
from dpacc.cli.subcommands import tune_trials
from dpacc.cli.subcommands.tune_trials import TrialSettings, compression_words, trial_options

if TYPE_CHECKING:
    from dpacc.federated.ranks.tuning import AdapterShape, Participant, Proposal


class _Layer(click.ParamType):  # type: ignore[type-arg]
    name = "layer"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int, int]:
        found = re.fullmatch(r"(\d{1,9})x(\d{1,9})(?:x(\d{1,9}))?", str(value))
        sizes = tuple(int(each or 1) for each in found.groups()) if found else (0,)
        if len(sizes) != 3 or 0 in sizes:
            self.fail(f"{value!r} is no layer; write OUTPUTSxINPUTS or 576x576x30.", param, ctx)
        return sizes


class _Client(click.ParamType):  # type: ignore[type-arg]
    name = "client"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, int, float | None]:
        found = re.fullmatch(r"([^=]+)=(\d{1,12})(?::([0-9.e+-]+))?", str(value))
        try:
            assert found is not None
            return found[1], int(found[2]), None if found[3] is None else float(found[3])
        except (AssertionError, ValueError):
            self.fail(f"{value!r} is no client; write NAME=N, or NAME=N:EPSILON.", param, ctx)


class _Ranks(click.ParamType):  # type: ignore[type-arg]
    name = "ranks"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        if not re.fullmatch(r"[1-9]\d{0,5}(,[1-9]\d{0,5})*", str(value)):
            self.fail(f"{value!r} are no ranks; write 4,8,16.", param, ctx)
        return tuple(int(each) for each in str(value).split(","))


@click.command(short_help="Propose rank, compression and noise for a budget and a line.")
@click.option("--epsilon", type=float, required=True, help="ε of each client, over all rounds.")
@click.option("--delta", type=float, required=True, help="δ that all share.")
@click.option(
    "--client",
    "clients",
    type=_Client(),
    multiple=True,
    required=True,
    metavar="NAME=N[:ε]",
    help="A client's examples, and its own ε; once for each.",
)
@click.option("--batch-size", type=click.IntRange(min=1), required=True, help="Expected.")
@click.option("--rounds", type=click.IntRange(min=1), required=True)
@click.option("--local-epochs", type=float, default=1.0, show_default=True)
@click.option(
    "--megabytes",
    type=click.FloatRange(min=0, min_open=True),
    required=True,
    help="10⁶ bytes that a client may send in a round.",
)
@click.option(
    "--download-megabytes",
    type=click.FloatRange(min=0, min_open=True),
    help="And receive.  [default: any number]",
)
@click.option(
    "--layer",
    "layers",
    type=_Layer(),
    multiple=True,
    metavar="OUTxIN[xCOUNT]",
    help="An adapted layer's sizes, and how many there are; instead of --model.",
)
@click.option("--head", type=click.IntRange(min=0), default=0, help="Numbers of a trained head.")
@click.option("--model", help="A folder with config.json, a known model, or an id on the hub.")
@click.option(
    "--target-modules",
    default="all-linear",
    show_default=True,
    help="Layers of --model that get adapters, with commas.",
)
@click.option(
    "--method",
    type=click.Choice(["ffa", "lora"]),
    default="ffa",
    show_default=True,
    help="ffa trains and sends B, lora A too.",
)
@click.option("--ranks", type=_Ranks(), default="1,2,4,8,16,32,64", show_default=True)
@click.option(
    "--least-signal",
    type=click.FloatRange(min=0),
    default=1.5,
    show_default=True,
    help="Signal-to-noise that a recommended rank must reach; the README's run has 1.64.",
)
@trial_options
@options.as_json
def tune(
    *,
    epsilon: float,
    delta: float,
    clients: tuple[tuple[str, int, float | None], ...],
    batch_size: int,
    rounds: int,
    local_epochs: float,
    megabytes: float,
    download_megabytes: float | None,
    ranks: tuple[int, ...],
    least_signal: float,
    as_json: bool,
    layers: tuple[tuple[int, int, int], ...],
    head: int,
    model: str | None,
    target_modules: str,
    method: Any,
    top_layers: int | None,
    task: tuple[tuple[str, str], ...],
    records: Path | None,
    **trial_settings: Any,
) -> None:
    """Propose rank, compression and noise for a federation, from sizes alone or by trying.

    Each client's σ is the least that keeps its ε. Signal to noise is Σ B·T / √(d·(1+ω)·Σ σ²T), the
    most that all clipped gradients together can be of all noise; ω is what compression adds. The
    table has each rank's best compression that fits; --json has all.

    \b
      dpacc federate tune --epsilon 8 --delta 1e-5 --client north=9603 --client south=3708:2 \\
        --batch-size 96 --rounds 10 --megabytes 0.1 --layer 576x576x30 --layer 192x576x30

    With --try, candidates around the proposal (fewer bytes by rank or by compression; larger and
    smaller batches) train in this process on PUBLIC records, with each client's own ε; the fewest
    megabytes that reach --target are named, with a confidence, or it is said that none do.
    """
    from dpacc.federated.ranks.tuning import participant, proposals, recommended

    if records is not None and model is None:
        raise click.UsageError("--try needs --model, which it trains.")
    if not (math.isfinite(local_epochs) and local_epochs > 0):
        raise click.UsageError(f"--local-epochs={local_epochs} must be a finite number above 0.")
    names = [name for name, _, _ in clients]
    if len(set(names)) < len(names):
        raise click.UsageError("--client names one client twice.")
    modules = tuple(each.strip() for each in target_modules.split(","))
    said = {"method": method, "target_modules": modules, "top_layers": top_layers}
    learned = tune_trials.task_of(task)
    shape = _shape(layers=layers, head=head, model=model, lora=said, task=learned)
    own = tuple((name, size, epsilon if e is None else e) for name, size, e in clients)

    def fitting(batch: int) -> tuple[list[Participant], tuple[Proposal, ...]]:
        taking_part = [
            participant(
                name=name,
                dataset_size=size,
                batch_size=batch,
                rounds=rounds,
                local_epochs=local_epochs,
                epsilon=most,
                delta=delta,
            )
            for name, size, most in terminal.tracked(own, message="calibrating")
        ]
        return taking_part, proposals(
            shape=shape,
            clients=taking_part,
            upload_bytes=megabytes * 1e6,
            download_bytes=math.inf if download_megabytes is None else download_megabytes * 1e6,
            ranks=ranks,
        )

    taking_part, found = fitting(batch_size)
    best = recommended(found, least_signal=least_signal)
    document = _document(taking_part, found, best, least_signal)
    if not as_json:
        _show(taking_part, found, best, least_signal)
    if records is not None and model is not None:
        with options.training_stack(), terminal.others_on_stderr():
            from dpacc.federated.settings import LoraSettings
            from dpacc.federated.trials.candidates import Candidate, batches_around

            batches = batches_around(batch_size, sizes=[size for _, size, _ in own])
            tried = tune_trials.run_trials(
                TrialSettings(records=records, task=learned, **trial_settings),
                model=model,
                lora=LoraSettings(**said),
                clients=own,
                delta=delta,
                rounds=rounds,
                local_epochs=local_epochs,
                best=Candidate(proposal=best, batch_size=batch_size),
                least_signal=least_signal,
                proposals={
                    batch: found if batch == batch_size else fitting(batch)[1] for batch in batches
                },
            )
        document["trials"] = tune_trials.document(tried)
        if not as_json:
            tune_trials.show(tried)
    if as_json:
        terminal.show_json(document)


def _shape(
    *,
    layers: tuple[tuple[int, int, int], ...],
    head: int,
    model: str | None,
    lora: dict[str, Any],
    task: dict[str, str],
) -> AdapterShape:
    from dpacc.federated.ranks.tuning import AdapterShape

    if (model is None) == (not layers):
        raise click.UsageError("Give either --model or --layer.")
    if model is None:
        if task or lora["top_layers"] is not None:
            raise click.UsageError("--task and --top-layers go with --model.")
        return AdapterShape(layers=layers, both=lora["method"] == "lora", others=head)
    if head:
        raise click.UsageError("--head goes with --layer.")
    reading = terminal.at_work("reading the model's shape")
    with options.training_stack(), terminal.others_on_stderr(), reading:
        from dpacc.federated.ranks.model_shape import shape_of
        from dpacc.federated.settings import LoraSettings, Task

        return shape_of(model=model, lora=LoraSettings(**lora), task=Task(fields=task))


def _document(
    clients: list[Participant],
    found: tuple[Proposal, ...],
    best: Proposal,
    least_signal: float,
) -> dict[str, Any]:
    return {
        "clients": [
            {
                "name": each.name,
                "noise_multiplier": each.noise.noise_multiplier,
                "noise_per_coordinate": each.noise.noise_multiplier / each.batch_size,
                "sampling_probability": each.noise.sample_rate,
                "steps_per_round": each.steps_per_round,
                "steps": each.noise.steps,
                "guarantee": each.noise.guarantee.to_json(),
            }
            for each in clients
        ],
        "proposals": [_plain(each) for each in found],
        "recommended": _plain(best),
        "least_signal": least_signal,
        "reached": best.signal_to_noise >= least_signal,
    }


def _plain(proposal: Proposal) -> dict[str, Any]:
    compression = proposal.compression
    return {
        "rank": proposal.rank,
        "compression": None if compression is None else compression.to_json(),
        "trained": proposal.trained,
        "upload_bytes": proposal.upload_bytes,
        "download_bytes": proposal.download_bytes,
        "signal_to_noise": proposal.signal_to_noise,
        "update_signal": proposal.update_signal,
    }


def _show(
    clients: list[Participant],
    found: tuple[Proposal, ...],
    best: Proposal,
    least_signal: float,
) -> None:
    terminal.show_table(
        title="Noise",
        columns=["client", "σ", "σ/B, of C", "q", "steps a round", "ε reached"],
        rows=[
            [
                each.name,
                rounded_up(each.noise.noise_multiplier, digits=6),
                f"{each.noise.noise_multiplier / each.batch_size:.3g}",
                f"{each.noise.sample_rate:.4g}",
                str(each.steps_per_round),
                rounded_up(each.noise.guarantee.epsilon, digits=6),
            ]
            for each in clients
        ],
    )
    each_best = [max(same, key=_signal) for _, same in groupby(found, key=lambda each: each.rank)]
    terminal.show_table(
        title="Proposals",
        columns=["rank", "compression", "trained", "MB up", "MB down", "signal to noise"],
        rows=[
            [
                str(each.rank),
                compression_words(each),
                f"{each.trained:,}",
                f"{each.upload_bytes / 1e6:.3g}",
                f"{each.download_bytes / 1e6:.3g}",
                f"{each.signal_to_noise:.3g}" + (" <" if each == best else ""),
            ]
            for each in each_best
        ],
    )
    reached = best.signal_to_noise >= least_signal
    facts = [
        ("rank", str(best.rank)),
        ("compression", best.compression.code if best.compression else "none"),
        ("a round", f"{best.upload_bytes:,} bytes up, {best.download_bytes:,} down, a client"),
        (
            "why",
            f"the largest rank with a signal-to-noise of at least {least_signal:g}"
            if reached
            else f"none reaches a signal-to-noise of {least_signal:g}; this one has the most: "
            "more clients, larger batches or more ε would help",
        ),
        (
            "one update",
            f"a signal-to-noise of at most {best.update_signal:.3g} in a client's round, which "
            "robust rules ask for",
        ),
    ]
    terminal.show_facts(title="Recommendation", facts=facts)


def _signal(proposal: Proposal) -> float:
    return proposal.signal_to_noise
