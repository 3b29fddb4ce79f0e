"""The settings of a first run: what its data's shape, its size, the budget and the machine say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dpacc_accounting import recommend_batch_size

from dpacc.data.pairs import CHOSEN, REJECTED
from dpacc.data.privacy_units import count_units
from dpacc.data.shape import DataShape, usual_fields
from dpacc.errors import ConfigurationError
from dpacc.planning.forecast import Forecast, Machine, forecast, sequences_of
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.examples import load_units, read_training_records

USUAL_EPOCHS = 3.0
_LONGEST = {"gpu": 512, "processor": 128}
_MOST_TOKENS = {"gpu": 16_384, "processor": 2_048}
_WORDS = ("words", "tokens")
_LABELS = ("label", "labels", "class", "category", "sentiment", "tags", "ner_tags")
_PROMPTS = ("prompt", "question", "instruction")
_OF_A_TASK = (
    "task", "text_field", "prompt_field", "completion_field", "messages_field", "label_field",
    "words_field", "labels",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FirstRun:
    """What is proposed.

    Attributes:
        config: the run.
        learned: the names of the settings that say what is learned.
        forecast: what it would need, with a launch.
    """

    config: TrainingConfig
    learned: tuple[str, ...]
    forecast: Forecast

    @property
    def launch(self) -> str:
        """The line that starts it."""
        assert self.forecast.launch is not None
        return self.forecast.launch.line


def first_run(
    *,
    data: str,
    shape: DataShape,
    given: Mapping[str, Any],
    machine: Machine,
    path: str,
    progress: Callable[[str], None] = lambda _: None,
) -> FirstRun:
    """A whole configuration, of which nothing depends on what any record says.

    Args:
        data: the private examples, as `train_data` names them.
        shape: of them.
        given: settings that stand, `model`, `epsilon` and `unit_field` among them.
        machine: where it would run.
        path: of the configuration, for the launch line.
        progress: is told what is being found.

    Raises:
        ConfigurationError: nothing can be learned so, or it does not fit.
    """
    learned = what_is_learned(shape=shape, given=given)
    proposed: dict[str, Any] = {
        "train_data": data,
        "clipping": "automatic",
        "max_length": _LONGEST[_kind(machine)],
        **given,
        **learned,
    }
    not_yet = {"expected_batch_size": 1, "epochs": None, "steps": 1}
    config = TrainingConfig(**proposed | not_yet)
    progress("reading the records")
    units = units_of(config=config)
    progress("batch size and steps")
    config = replace(config, **batch_and_steps(config=config, given=given, dataset_size=units))
    progress("memory and time")
    config, found = what_fits(
        config=config, given=given, dataset_size=units, machine=machine, path=path
    )
    return FirstRun(config=config, learned=tuple(learned), forecast=found)


def what_is_learned(*, shape: DataShape, given: Mapping[str, Any]) -> dict[str, Any]:
    """The task and its fields, from the names and kinds of the fields that all records have.

    What is given stands, and the rest is completed: `labels` make a task of classification, the
    fields `chosen` and `rejected` one of preferences, a chat or a prompt with its answer is
    learned as such, and otherwise the one field of text.

    Args:
        shape: of the private data.
        given: settings that are known already.

    Raises:
        ConfigurationError: no field fits, or several do; it names them.

    >>> shape = DataShape(rows=9, fields={"review": "text", "stars": "whole number"}, others=0)
    >>> what_is_learned(shape=shape, given={})
    {'text_field': 'review'}
    >>> what_is_learned(shape=shape, given={"labels": ("bad", "good"), "label_field": "stars"})
    {'task': 'sequence-classification', 'text_field': 'review', 'label_field': 'stars', \
'labels': ('bad', 'good')}
    """
    told = {name: given[name] for name in _OF_A_TASK if given.get(name) is not None}
    if "labels" in told or str(told.get("task")).endswith("classification"):
        return _classes(shape, told, given.get("unit_field"))
    if told.get("task") == "preference" or {CHOSEN, REJECTED} <= shape.fields.keys():
        return _preferences(shape, told)
    if told.keys() & {"messages_field", "prompt_field", "text_field"}:
        return told
    usual = usual_fields(names=shape.fields)
    chats = shape.of_kind("chat")
    if usual.get("messages_field") in chats or (usual and "messages_field" not in usual):
        return told | usual
    if chats:
        return told | {"messages_field": _one_of(chats, "--messages_field", shape)}
    return told | {"text_field": _text_field(shape, given.get("unit_field"))}


def _classes(shape: DataShape, told: dict[str, Any], owner: str | None) -> dict[str, Any]:
    words = [name for name in _WORDS if shape.fields.get(name) == "list of texts"]
    of_words = told.get("task") == "token-classification" or (
        "task" not in told and (words or "words_field" in told)
    )
    label = told.get("label_field") or _one_of(
        [name for name in _LABELS if name in shape.fields], "--label_field", shape
    )
    known = {"label_field": label}
    if "labels" in told:
        known |= {"labels": told["labels"]}
    if of_words:
        lists = [name for name in shape.of_kind("list of texts") if name != label]
        field = told.get("words_field") or _one_of(words or lists, "--words_field", shape)
        return {"task": "token-classification", "words_field": field, **known}
    field = told.get("text_field") or _text_field(shape, owner, label)
    return {"task": "sequence-classification", "text_field": field, **known}


def _preferences(shape: DataShape, told: dict[str, Any]) -> dict[str, Any]:
    prompts = [name for name in _PROMPTS if name in shape.fields]
    prompt = told.get("prompt_field") or _one_of(prompts[:1], "--prompt_field", shape)
    return {"task": "preference", "prompt_field": prompt}


def _text_field(shape: DataShape, *other_fields: str | None) -> str:
    if shape.fields.get("text") == "text":
        return "text"
    texts = [name for name in shape.of_kind("text") if name not in other_fields]
    return _one_of(texts, "--text_field", shape)


def _one_of(names: list[str], option: str, shape: DataShape) -> str:
    if len(names) == 1:
        return names[0]
    found = ", ".join(f"{name} ({kind})" for name, kind in shape.fields.items()) or "none"
    which = f"{', '.join(names)} could each be meant" if names else "no field is named or made so"
    raise ConfigurationError(
        f"{which}: say which with {option}, or another way to learn with --prompt_field and "
        f"--completion_field, --messages_field, or --labels; all records have: {found}"
    )


def units_of(*, config: TrainingConfig) -> int:
    """N of a configuration whose data is at hand, after every record was found fit for it.

    Raises:
        ConfigurationError: records or owners are not as the configuration says.
    """
    records = read_training_records(config=config)
    units = load_units(config=config)
    return count_units(examples=len(records), units=units, kept_of_each=config.kept_of_each)


def batch_and_steps(
    *, config: TrainingConfig, given: Mapping[str, Any], dataset_size: int
) -> dict[str, Any]:
    """How a budget of gradient evaluations is spent: by `dpacc plan --recommend`, if not given.

    Args:
        config: has ε, δ and unit.
        given: settings that stand.
        dataset_size: N.
    """
    epochs, steps = given.get("epochs"), given.get("steps")
    batch = given.get("expected_batch_size")
    if batch is None and steps is None:
        found = recommend_batch_size(
            dataset_size=dataset_size,
            gradient_evaluations=max(1, round((epochs or USUAL_EPOCHS) * dataset_size)),
            epsilon=config.epsilon,
            delta=config.delta_for(dataset_size=dataset_size),
            unit=config.unit,
        ).uncorrelated
        return {"expected_batch_size": found.batch_size, "steps": found.steps, "epochs": None}
    if steps is not None:
        usual = min(dataset_size, max(1, round(USUAL_EPOCHS * dataset_size / steps)))
        return {"expected_batch_size": batch or usual, "steps": steps, "epochs": None}
    return {"expected_batch_size": batch, "epochs": epochs or USUAL_EPOCHS, "steps": None}


def what_fits(
    *,
    config: TrainingConfig,
    given: Mapping[str, Any],
    dataset_size: int,
    machine: Machine,
    path: str,
) -> tuple[TrainingConfig, Forecast]:
    """The first of a few ways to store base and activations whose run fits on the machine.

    Args:
        config: the run.
        given: settings that stand.
        dataset_size: N.
        machine: where it would run.
        path: of the configuration, for the launch line.

    Returns:
        The configuration, its micro-batch as large as is of use, and its forecast.

    Raises:
        ConfigurationError: none fits.
    """
    tokens = config.max_length * sequences_of(config)
    if "micro_batch_tokens" not in given:
        useful = min(_MOST_TOKENS[_kind(machine)], tokens * config.expected_batch_size)
        config = replace(config, micro_batch_tokens=max(tokens, useful))
    for changes in _ways_to_store(given, machine):
        config = replace(config, **changes)
        found = forecast(config=config, dataset_size=dataset_size, machine=machine, path=path)
        most = found.largest_micro_batch * tokens
        if found.launch is None and most and "micro_batch_tokens" not in given:
            config = replace(config, micro_batch_tokens=most)
            found = forecast(config=config, dataset_size=dataset_size, machine=machine, path=path)
        if found.launch is not None:
            return config, found
    raise ConfigurationError(
        f"model={config.model} does not fit in {machine.memory / 2**30:.1f} GiB, whatever is "
        "tried: say how much there is with --memory-per-gpu, or choose a smaller model"
    )


def _ways_to_store(given: Mapping[str, Any], machine: Machine) -> list[dict[str, Any]]:
    ways: list[dict[str, Any]] = [{}, {"gradient_checkpointing": True}]
    if machine.gpus:
        ways.append({"gradient_checkpointing": True, "quantization": "nf4"})
    tried: list[dict[str, Any]] = []
    for way in ways:
        left = {name: value for name, value in way.items() if name not in given}
        if left not in tried:
            tried.append(left)
    return tried


def _kind(machine: Machine) -> str:
    return "gpu" if machine.gpus else "processor"
