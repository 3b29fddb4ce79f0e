"""What `dpacc federate tune --try` adds: candidates, run on public data, and what they reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dpacc.cli import terminal

if TYPE_CHECKING:
    from dpacc.federated.ranks.tuning import Proposal
    from dpacc.federated.settings import LoraSettings
    from dpacc.federated.trials.candidates import Candidate
    from dpacc.federated.trials.one_trial import Outcome, Trial
    from dpacc.federated.trials.worth_taking import Expectation, Verdict

Clients = Sequence[tuple[str, int, float]]
Ran = Sequence[tuple["Candidate", Sequence["Outcome"]]]


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What trials found, and what that says.

    Args:
        verdict: by candidate.
        ran: each candidate's trials.
        overlap: whether one public record may have been at several clients.
    """

    verdict: Verdict
    ran: Ran
    overlap: bool


class _Setting(click.ParamType):  # type: ignore[type-arg]
    name = "setting"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, str]:
        name, equals, said = str(value).partition("=")
        if not (name.strip() and equals and said.strip()):
            self.fail(f"{value!r} is no setting; write labels=bad,good.", param, ctx)
        return name.strip().replace("-", "_"), said.strip()


_OPTIONS = (
    click.option(
        "--try",
        "records",
        type=click.Path(path_type=Path, exists=True),
        help="PUBLIC records to try candidates on: a file, or a folder with <client>.jsonl and "
        "held_out_<kind>.jsonl. Never private ones: what is chosen on them must be paid for.",
    ),
    click.option(
        "--task",
        "task",
        type=_Setting(),
        multiple=True,
        metavar="NAME=VALUE",
        help="What is learned of --model, as a client is told: labels=bad,good label_field=label.",
    ),
    click.option("--top-layers", type=click.IntRange(min=1), help="Adapt the last blocks only."),
    click.option("--learning-rate", type=float, default=1e-3, show_default=True),
    click.option("--scale", type=float, default=2.0, show_default=True, help="alpha / rank."),
    click.option(
        "--held-out",
        type=click.IntRange(min=2),
        default=1000,
        show_default=True,
        help="Records of a file to measure on.",
    ),
    click.option(
        "--target",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        help="Balanced accuracy to reach; of texts, 1/perplexity.",
    ),
    click.option(
        "--candidates",
        "most",
        type=click.IntRange(min=1),
        default=7,
        show_default=True,
        help="How many around the formula's proposal are tried.",
    ),
    click.option(
        "--seeds", type=click.IntRange(min=1), default=2, show_default=True, help="Runs of each."
    ),
    click.option(
        "--folder",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("runs/tune"),
        show_default=True,
        help="Where outcomes are kept: a run that was stopped goes on.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class TrialSettings:
    """What was said of trials on the command line."""

    records: Path
    task: Mapping[str, str]
    learning_rate: float
    scale: float
    held_out: int
    target: float | None
    most: int
    seeds: int
    folder: Path


def trial_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of trials."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def task_of(words: Sequence[tuple[str, str]]) -> dict[str, str]:
    """What is learned; labels make it a classification.

    >>> task_of([("labels", "bad,good")])
    {'task': 'sequence-classification', 'labels': 'bad,good'}
    """
    said = dict(words)
    return {"task": "sequence-classification", **said} if "labels" in said else said


def run_trials(
    settings: TrialSettings,
    *,
    model: str,
    lora: LoraSettings,
    clients: Clients,
    delta: float,
    rounds: int,
    local_epochs: float,
    best: Candidate,
    least_signal: float,
    proposals: Mapping[int, Sequence[Proposal]],
) -> Tried:
    """Try candidates around the best, and judge them."""
    from dpacc.federated.benchmark.lab import FirstActivations
    from dpacc.federated.settings import Task
    from dpacc.federated.trials.candidates import around
    from dpacc.federated.trials.one_trial import Trial, run_trial
    from dpacc.federated.trials.public_shares import shares
    from dpacc.federated.trials.worth_taking import worth_taking
    from dpacc.recipe.pretrained import bases_read_once

    sizes = {name: size for name, size, _ in clients}
    by_seed = [
        shares(settings.records, sizes=sizes, held_out=settings.held_out, seed=seed)
        for seed in range(settings.seeds)
    ]
    tried = around(best, proposals=proposals, least_signal=least_signal, most=settings.most)

    def trial(candidate: Candidate, seed: int) -> Trial:
        return Trial(
            model=model,
            candidate=candidate,
            seed=seed,
            lora=lora,
            scale=settings.scale,
            budgets={name: epsilon for name, _, epsilon in clients},
            delta=delta,
            rounds=rounds,
            local_epochs=local_epochs,
            learning_rate=settings.learning_rate,
            task=Task(fields=settings.task).fields,
        )

    cells = [(at, seed) for at in range(len(tried)) for seed in range(settings.seeds)]
    outcomes: list[list[Outcome]] = [[] for _ in tried]
    known = FirstActivations()
    with terminal.counted(total=len(cells), message="trials") as show, bases_read_once():
        for done, (at, seed) in enumerate(cells, start=1):
            one, records = trial(tried[at], seed), by_seed[seed]
            ran = run_trial(one, shares=records, folder=settings.folder, known=known)
            outcomes[at].append(ran)
            show(done)
    found = list(zip(tried, outcomes, strict=True))
    qualities = [(each, [one.quality for one in ran]) for each, ran in found]
    verdict = worth_taking(qualities, target=settings.target)
    return Tried(verdict=verdict, ran=found, overlap=any(each.overlap for each in by_seed))


def document(said: Tried) -> dict[str, Any]:
    """All of it, as plain data."""
    verdict = said.verdict
    tried = [
        _plain(each) | {"trials": [one.to_json() for one in ran]}
        for each, (_, ran) in zip(verdict.expectations, said.ran, strict=True)
    ]
    return {
        "tried": tried,
        "target": verdict.target,
        "confidence_needed": verdict.needed,
        "smallest": None if verdict.smallest is None else _plain(verdict.smallest),
        "best": _plain(verdict.best),
        "records_shared_by_clients": said.overlap,
    }


def show(said: Tried) -> None:
    """What each candidate reached, and which one to take."""
    verdict = said.verdict
    terminal.show_table(
        title="Tried on public records, with each client's own ε",
        columns=["rank", "compression", "batch", "MB up", "formula", "quality", "± error", "sure"],
        rows=[_row(each) for each in verdict.expectations],
    )
    facts = [("take", _words(verdict))]
    facts.append(("error", _error(verdict)))
    if said.overlap:
        facts.append(
            ("records", "too few for clients of their own: one may be at several, so that clients "
             "differ less than in truth")
        )  # fmt: skip
    largest = max(
        (each for _, ran in said.ran for one in ran for each in one.guarantees.items()),
        key=lambda each: float(each[1]["epsilon"]),
    )
    facts.append(("largest ε", f"{largest[0]}: {largest[1]['stated']}"))
    facts.append(
        ("means", "what public records show; private ones may differ, and no ε of theirs was spent")
    )
    terminal.show_facts(title="Choice", facts=facts)


def _row(each: Expectation) -> list[str]:
    proposal = each.candidate.proposal
    return [
        str(proposal.rank),
        compression_words(proposal),
        str(each.candidate.batch_size),
        f"{proposal.upload_bytes / 1e6:.3g}",
        f"{proposal.signal_to_noise:.3g}",
        f"{each.value:.3f}",
        f"{each.error:.3f}",
        "" if each.confidence is None else f"{each.confidence:.1%}",
    ]


def _words(verdict: Verdict) -> str:
    if verdict.target is None:
        return f"{_named(verdict.best)}, which did best; --target says what is good enough"
    if verdict.smallest is None:
        best = verdict.best
        return (
            f"none: no candidate reaches {verdict.target:g} with a confidence of "
            f"{verdict.needed:.1%}; {_named(best)} did best, {best.value:.3f} ± {best.error:.3f}"
        )
    taken = verdict.smallest
    return (
        f"{_named(taken)}: the fewest megabytes that reach {verdict.target:g}, with a confidence "
        f"of {taken.confidence:.1%}, where {verdict.needed:.1%} was needed"
    )


def _named(each: Expectation) -> str:
    proposal = each.candidate.proposal
    code = proposal.compression.code if proposal.compression else "no compression"
    return f"rank {proposal.rank}, {code}, batches of {each.candidate.batch_size}"


def _error(verdict: Verdict) -> str:
    held_out = "held-out records by chance"
    if verdict.expectations[0].seeds_known:
        return f"one standard error, of seeds and of {held_out}"
    return f"one standard error, of {held_out} alone: one seed tells nothing of training's"


def _plain(each: Expectation) -> dict[str, Any]:
    return each.candidate.to_json() | {
        "upload_bytes": each.candidate.proposal.upload_bytes,
        "signal_to_noise": each.candidate.proposal.signal_to_noise,
        "quality": each.value,
        "standard_error": each.error,
        "error_holds_seeds": each.seeds_known,
        "confidence": each.confidence,
    }


def compression_words(proposal: Proposal) -> str:
    """How a proposal's updates are made smaller, for a table."""
    compression = proposal.compression
    if compression is None:
        return "none"
    part = "" if compression.keep == 1 else f", {compression.keep:.0%} {compression.selection}"
    return f"{compression.bits} bits{part}"
