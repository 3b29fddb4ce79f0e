"""Write synthetic text by a privately trained adapter, as much as you like, at no further ε.

    python recipes/synthesize.py --run runs/smollm2-reviews --output synthetic.jsonl --records 1000

The configuration is that of the run, which its folder holds: records get the fields of its data.
Plain text is written from nothing; completions and answers of chats need public `--prompts`, or
`--labels_from` where the prompt is a label. A call that was stopped goes on when it is repeated. A
card beside the file says what it is, and what it cost.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from dpacc_accounting.guarantee import rounded_up

from dpacc.artifacts.kept.run_settings import (
    differences_from_training,
    require_storage_of_training,
    tokenizer_source,
    with_the_runs_settings,
)
from dpacc.cli import terminal
from dpacc.errors import ConfigurationError, require_local
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.settings import read_settings, setting

Engine = Literal["transformers", "vllm"]

_USAGE = "python recipes/synthesize.py --run FOLDER --output FILE.jsonl [settings]"


@dataclass(frozen=True, kw_only=True)
class SynthesisConfig(TrainingConfig):
    """The settings of a run, and of what its adapter is to write."""

    run: str = setting("Folder of the run, with its adapter and ledger.")
    output: str = setting("File of JSON lines to write; it must not exist.")
    records: int = setting("How many records.", default=1000, at_least=1)
    prompts: str | None = setting(
        "Public file of prompts, of chats that end where the assistant goes on, or of beginnings "
        "of texts, with the fields of the training data.",
        default=None,
    )
    labels_from: str | None = setting(
        "JSON file with one object of labels, which are the prompts, and how often each is wanted: "
        "a public distribution; or the folder in which recipes/count_labels.py released how often "
        "each occurs, with noise.",
        default=None,
    )
    temperature: float = setting(
        "Words are drawn from softmax(logits / this).", default=1.0, above=0
    )
    top_p: float = setting(
        "Draw among the likeliest words that have this much probability together.",
        default=1.0,
        above=0,
        at_most=1,
    )
    new_tokens: int | None = setting(
        "Most tokens to write of each; null takes what max_length leaves after the prompt, and at "
        "least half of it.",
        default=None,
        at_least=1,
    )
    least_tokens: int = setting(
        "Fewest tokens of each: no end is drawn before, which counters texts that grow shorter "
        "with more noise.",
        default=0,
        at_least=0,
    )
    tries: int = setting(
        "How often a record is written before it is given up, if it is dropped.",
        default=5,
        at_least=1,
    )
    batch_size: int = setting("Records written at once.", default=32, at_least=1)
    engine: Engine = setting(
        "What computes: transformers, or vllm where that is installed.", default="transformers"
    )
    as_json: bool = setting("Print the card's figures as one JSON object.", default=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_local(self.output, name="output")
        if self.task != "causal-lm":
            raise ConfigurationError(
                f"task={self.task} trains nothing that writes records: train one with --task "
                "causal-lm"
            )
        if not (self.learn_end or self.answers or self.messages_field):
            raise ConfigurationError(
                "learn_end=false, so that the adapter never learned where a text ends, and all "
                "would be cut somewhere: train one with --learn_end true"
            )
        if self.prompts is not None and self.labels_from is not None:
            raise ConfigurationError("give --prompts or --labels_from, and not both")
        if self.new_tokens is not None and self.new_tokens >= self.max_length:
            raise ConfigurationError(
                f"new_tokens={self.new_tokens} must be below max_length={self.max_length}, the "
                "most that the adapter was trained on"
            )
        if self.least_tokens >= (self.new_tokens or self.max_length // 2):
            raise ConfigurationError(
                f"least_tokens={self.least_tokens} leaves no room for an end: it must be below "
                "new_tokens, or below half of max_length"
            )
        if Path(self.output).exists():
            raise ConfigurationError(f"{self.output} exists: choose a new file with --output")


def main(arguments: Sequence[str]) -> None:
    """Read the settings, write, and say where it is and what it cost."""
    words = with_the_runs_settings(arguments, kind=SynthesisConfig, option="run")
    config = read_settings(kind=SynthesisConfig, arguments=words, usage=_USAGE)
    require_storage_of_training(config=config, folder=Path(config.run))
    for told in differences_from_training(config=config, folder=Path(config.run)):
        terminal.say(told)
    found = synthesize(config)
    if config.as_json:
        terminal.show_json(found)
        return
    told, guarantee = found["synthetic"], found["guarantee"]
    dropped = ", ".join(f"{count} {why}" for why, count in told["dropped"].items())
    facts = [
        ("records", f"{told['records']} of {told['asked']}"),
        ("dropped on the way", dropped),
        ("further ε", "none: what the adapter cost holds for it"),
        (f"ε of the adapter{' and the label counts' * told['counts_labels']}", _stated(guarantee)),
        *(("NOT private", fact) for fact in guarantee["void_because"]),
        *(("qualified", fact) for fact in guarantee["qualified_by"]),
        ("saved in", f"{config.output}, with {Path(config.output).name}.card.md"),
    ]
    terminal.show_facts(title="Synthetic text", facts=facts)
    if told["dropped"]["truncated"] > told["records"]:
        terminal.say(
            "most texts had no end where the room was over, and those that are left are the short "
            "ones: the adapter hardly learned to end (train longer, or with a larger epsilon), or "
            "--new_tokens is too small"
        )


def synthesize(config: SynthesisConfig) -> dict[str, Any]:
    """Write the file and its card; the card for machines."""
    # Imported here, so that a mistake in the settings is told at once.
    from dpacc.artifacts.synthetic.batches import BatchFile
    from dpacc.artifacts.synthetic.card import UNTAUGHT, SyntheticFile, price_of, write_with_card
    from dpacc.artifacts.synthetic.label_counts import read_counts
    from dpacc.artifacts.synthetic.released import read_release
    from dpacc.artifacts.synthetic.requests import requests_for, untaught_start
    from dpacc.artifacts.synthetic.sources import adding_to_one, read_prompts, read_shares
    from dpacc.recipe.pretrained import load_tokenizer

    folder = Path(config.run)
    record = read_release(folder=folder)
    tokenizer = load_tokenizer(model=tokenizer_source(folder=folder, model=config.model))
    sources: dict[str, Any] = {"prompts": None, "shares": None}
    if config.prompts is not None:
        sources["prompts"] = read_prompts(source=config.prompts, config=config)
    counted = None
    if config.labels_from is not None and Path(config.labels_from).expanduser().is_dir():
        counts, counted = read_counts(folder=Path(config.labels_from).expanduser())
        sources["shares"] = adding_to_one(counts)
    elif config.labels_from is not None:
        sources["shares"] = read_shares(source=config.labels_from, config=config)
    price_of(record=record, counted=counted)  # told before hours are spent
    requests = requests_for(config=config, tokenizer=tokenizer, records=config.records, **sources)
    settings = shown_settings(config)
    if (start := untaught_start(requests=requests, tokenizer=tokenizer)) is not None:
        settings["untaught_start"] = start
        terminal.say(f"{UNTAUGHT} Give them with --prompts.")
    output = Path(config.output).expanduser()
    batches = BatchFile(
        path=output.with_name(f".{output.name}.batches"),
        made_from={
            "adapter": record.saved[-1],
            "given": [(each.fields, each.tokens) for each in requests],
            **settings,
        },
        records=config.records,
        tries=config.tries,
    )
    if batches.next_batch(1):
        write(config, tokenizer, requests, batches)
    file = SyntheticFile(
        path=output,
        records=batches.records(),
        asked=config.records,
        dropped=batches.dropped,
        base=config.model,
        settings=settings,
        counted=counted,
    )
    found = write_with_card(file=file, record=record)
    batches.path.unlink()
    return found


def write(config: SynthesisConfig, tokenizer: Any, requests: Sequence[Any], batches: Any) -> None:
    """Batch by batch, until every record is there or given up."""
    from dpacc.artifacts.synthetic.records import record_of

    writer = writer_for(config)
    sampling = sampling_for(config, tokenizer, requests)
    with terminal.counted(
        total=config.records, done=batches.kept + batches.given_up, message="records"
    ) as show:
        while places := batches.next_batch(config.batch_size):
            asked = [requests[place] for place in places]
            written = writer(
                tokenizer=tokenizer, requests=asked, sampling=sampling, number=batches.batches
            )
            batches.add(
                [
                    record_of(request=request, written=each, config=config, tokenizer=tokenizer)
                    for request, each in zip(asked, written, strict=True)
                ]
            )
            show(batches.kept + batches.given_up)


def writer_for(config: SynthesisConfig) -> Callable[..., list[Any]]:
    """What goes on from a batch of requests, with base and adapter loaded."""
    folder = Path(config.run)
    if config.engine == "vllm":
        from dpacc.artifacts.synthetic.vllm_writer import load_served, write_batch_by_vllm

        return partial(write_batch_by_vllm, served=load_served(config=config, folder=folder))
    from dpacc.artifacts.synthetic.generation import write_batch
    from dpacc.recipe.assembly import adapted_base_for

    return partial(write_batch, model=adapted_base_for(config=config, folder=folder))


def sampling_for(config: SynthesisConfig, tokenizer: Any, requests: Sequence[Any]) -> Any:
    """How tokens are drawn; prompts that are too long give way in front, as in training."""
    from dpacc.artifacts.synthetic.generation import Sampling, room_for
    from dpacc.recipe.objective import answer_tokens

    kept, room = room_for(
        requests=requests, max_length=config.max_length, new_tokens=config.new_tokens
    )
    among = None
    if config.answers is not None:
        among = tuple(answer_tokens(answers=config.answers, tokenizer=tokenizer).tolist())
    return Sampling(
        temperature=config.temperature,
        top_p=config.top_p,
        kept=kept,
        room=room,
        least=config.least_tokens,
        among=among,
        seed=config.seed,
    )


def shown_settings(config: SynthesisConfig) -> dict[str, Any]:
    """What the card says of how records were written; public files by name and checksum."""
    from dpacc.artifacts.synthetic.sources import file_hash
    from dpacc.artifacts.synthetic.vllm_writer import vllm_version

    names = "records temperature top_p new_tokens least_tokens max_length tries batch_size"
    shown = {name: getattr(config, name) for name in f"{names} seed quantization dtype".split()}
    if config.engine == "vllm":
        shown["engine"] = vllm_version()
    for name in ("prompts", "labels_from"):
        given = getattr(config, name)
        if given is None:
            continue
        path = Path(given).expanduser()
        shown[name] = f"{path.name}, SHA-256 {file_hash(path)}" if path.is_file() else given
        if name == "labels_from" and path.is_dir():
            shown[name] = f"counts of private labels, with noise, released in {path.name}"
    return shown


def _stated(guarantee: dict[str, Any]) -> str:
    if guarantee["void_because"]:
        return "none may be claimed"
    epsilon, delta = (rounded_up(float(guarantee[name])) for name in ("epsilon", "delta"))
    return f"{epsilon} at δ = {delta}, for one {guarantee['unit']}, {guarantee['adjacency']}"


if __name__ == "__main__":
    with terminal.one_line_errors():
        main(sys.argv[1:])
