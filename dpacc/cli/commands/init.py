"""`dpacc init`: from a file of private data to a configuration, and the line that starts it."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from dpacc_accounting.guarantee import rounded_up

from dpacc.cli import options, terminal
from dpacc.cli.guarantee_table import guarantee_rows
from dpacc.data.shape import DataShape, shape_of
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.settings import given_settings

if TYPE_CHECKING:
    from dpacc.planning.first_settings import FirstRun

_NEEDED = {
    "model": "Model to adapt: a folder, or an id on the hub",
    "epsilon": "ε, the privacy budget of the whole run (1 is strong, 8 is usual)",
    "unit_field": "Field that says whose a record is, or null if each is somebody else's",
}
_OWNERS = ("user", "author", "patient", "sender", "owner", "customer", "client", "speaker")
_SHOWN = (
    "name", "delta", "unit_field", "expected_batch_size", "clipping", "max_grad_norm",
    "lora_rank", "lora_alpha", "quantization", "dtype", "max_length",
    "micro_batch_tokens",
)  # fmt: skip
_OTHERS = """\
Worth a look (recipes/train.py --help lists all):
  held_out_data: public examples, on which quality is measured
  correlation: banded, for less noise in the end; `dpacc plan` says how much less
  checkpoint_every: steps between checkpoints, from which --resume goes on"""


@click.command(
    short_help="Write a first configuration for a file of private data.",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("data")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
@options.gpus(default=0)
@options.memory_per_gpu
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration to write.  [default: named after DATA, here]",
)
@options.as_json
def init(
    data: str,
    overrides: tuple[str, ...],
    gpus: int,
    memory_per_gpu: int,
    output: Path | None,
    as_json: bool,
) -> None:
    """Look at the fields of DATA and propose a whole configuration for recipes/train.py.

    Of the records nothing is shown but how many there are, and which fields all of them have.
    --model, --epsilon and --unit_field are needed (null where each record is somebody else's), and
    asked for on a terminal; any other setting of a configuration may be given too, and stands.

    \b
      dpacc init notes.jsonl --model data/smollm2-135m-instruct --epsilon 8 --unit_field patient
      dpacc init mails.csv --model gpt2 --epsilon 4 --unit_field sender --labels ham,spam --gpus 1
    """
    name = Path(data).name.split(".")[0] or "run"
    target = output or Path(f"{name}.yaml")
    if target.exists():
        raise ConfigurationError(f"{target} is there already: name another file with --output")
    if not target.absolute().parent.is_dir():
        raise ConfigurationError(f"there is no folder {target.parent} for {target.name}")
    given = given_settings(kind=TrainingConfig, arguments=overrides)
    shape = shape_of(source=data, split=given.get("train_split", "train"))
    given |= _asked(given, shape)
    with options.training_stack(), terminal.at_work("proposing") as doing:
        from dpacc.artifacts.kept.configuration_text import configuration_text
        from dpacc.planning.first_settings import first_run
        from dpacc.planning.forecast import Machine
        from dpacc.planning.traffic import Rates

        rates = Rates(operations=options.sustained_tflops(gpus=gpus) * 1e12, network=25e9)
        first = first_run(
            data=data,
            shape=shape,
            given={"name": name, **given},
            machine=Machine(gpus=gpus, memory=memory_per_gpu, rates=rates),
            path=shlex.quote(str(target)),
            progress=doing,
        )
        shown = (*_SHOWN, *given, *first.learned)
        text = configuration_text(
            config=first.config, head=_head(first), shown=shown, others=_OTHERS
        )
    target.write_text(text, encoding="utf-8")
    if as_json:
        terminal.show_json(_document(target, shape, first))
        return
    facts = [*_shape_in_words(shape, first.config), *_run_in_words(first)]
    terminal.show_facts(title=str(target), facts=facts)


def _document(target: Path, shape: DataShape, first: FirstRun) -> dict[str, Any]:
    values = dataclasses.asdict(first.config).items()
    return {
        "configuration": str(target),
        "rows": shape.rows,
        "fields": dict(shape.fields),
        "dataset_size": first.forecast.plan.dataset_size,
        "settings": {n: list(v) if isinstance(v, tuple) else v for n, v in values},
        "guarantee": first.forecast.plan.guarantee().to_json(),
        "noise_over_signal": first.forecast.noise_over_signal,
        "launch": first.launch,
    }


def on_a_terminal() -> bool:
    """Whether somebody is there to answer."""
    return sys.stdin.isatty()


def _asked(given: dict[str, Any], shape: DataShape) -> dict[str, Any]:
    """What only a person knows, from a terminal."""
    missing = [name for name in _NEEDED if name not in given]
    if missing and not on_a_terminal():
        wanted = " ".join(f"--{name} {name.upper()}" for name in missing)
        hint = _likely_owners(shape)
        also = f"; {', '.join(hint)} may say whose a record is" if hint else ""
        raise ConfigurationError(
            f"give {wanted} (unit_field null where each record is somebody else's){also}"
        )
    words = [word for name in missing for word in (f"--{name}", _ask(name, shape))]
    return given_settings(kind=TrainingConfig, arguments=words)


def _ask(name: str, shape: DataShape) -> str:
    if name == "unit_field":
        known = ", ".join(f"{field} ({kind})" for field, kind in shape.fields.items())
        terminal.say(f"all {shape.rows} records have: {known}")
    default = "8" if name == "epsilon" else None
    answer: str = click.prompt(_NEEDED[name], default=default, err=True)
    return answer


def _likely_owners(shape: DataShape) -> list[str]:
    """Fields whose names are usual for owners."""
    return [
        name
        for name in shape.fields
        if name.lower().endswith("_id") or any(word in name.lower() for word in _OWNERS)
    ]


def _head(first: FirstRun) -> str:
    config, found = first.config, first.forecast
    delta = "N^-1.1, at most 0.001" if config.delta is None else f"{config.delta:g}"
    of_whom = f"all records of one {config.unit}" if config.unit_field else f"one {config.unit}"
    return (
        f"({config.epsilon:g}, {delta})-DP for adding or removing {of_whom}; "
        f"N = {found.plan.dataset_size}.\n\n  {first.launch}\n\n"
        f"Expected with every example {config.max_length} tokens long: {found.in_one_line()}"
    )


def _shape_in_words(shape: DataShape, config: TrainingConfig) -> list[tuple[str, str]]:
    fields = ", ".join(f"{name} ({kind})" for name, kind in shape.fields.items())
    others = f", and {shape.others} more that not all have" if shape.others else ""
    owners = [name for name in _likely_owners(shape) if name != config.unit_field]
    warned = (
        [("whose", f"each record is taken for somebody else's; {', '.join(owners)} may say whose")]
        if owners and config.unit_field is None
        else []
    )
    return [("records", f"{shape.rows}: {fields}{others}"), *warned]


def _run_in_words(first: FirstRun) -> list[tuple[str, str]]:
    from dpacc.planning.noise_over_signal import in_words

    found, plan = first.forecast, first.forecast.plan
    return [
        ("learns", _learned(first.config)),
        (
            "steps",
            f"{plan.steps} of expected batch {plan.batch_in_words}, N = {plan.dataset_size}",
        ),
        ("noise multiplier σ", rounded_up(plan.noise_multiplier, digits=6)),
        *guarantee_rows(plan.guarantee()),
        ("noise", in_words(ratio=found.noise_over_signal)),
        ("expected", found.in_one_line()),
        ("start", first.launch),
    ]


def _learned(config: TrainingConfig) -> str:
    if config.task == "sequence-classification":
        return f"the class of {config.text_field} that {config.label_field} names"
    if config.task == "token-classification":
        return f"the classes of {config.words_field} that {config.label_field} names"
    if config.task == "preference":
        return f"which of two answers to {config.pair_prompt} was chosen"
    if config.messages_field:
        return f"what the assistant says in {config.messages_field}"
    if config.completion_field:
        return f"{config.completion_field}, after {config.prompt_field}"
    return f"the text of {config.text_field}"
