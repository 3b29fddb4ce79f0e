"""What a federation agrees on, and what each client decides for itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from dpacc.errors import ConfigurationError, nearest
from dpacc.federated.setting_limits import (
    require_count,
    require_positive,
    require_words,
    settings_of,
)
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.settings import typed_settings

SharedMethod = Literal["lora", "rslora", "ffa", "dylora"]
"""Methods under which clients' adapters can be averaged: they have the same coordinates."""

AggregationName = Literal["ffa", "fedex", "stacking", "fedask", "average"]
"""How adapters become one."""

_OF_A_TASK = (
    "task", "labels", "label_field", "words_field", "text_field", "prompt_field",
    "completion_field", "messages_field", "answers", "learn_end", "max_length", "data_subset",
    "train_split", "held_out_data", "held_out_examples", "held_out_split",
    "cache_frozen_activations",
)  # fmt: skip
"""Settings of a run that a federation takes as they are; others would have no effect there."""

_OF_PEFT = {"r": "rank", "lora_alpha": "alpha"}
_NEVER = object()
_NOT_IN_LORA: Mapping[str, tuple[object, str]] = {
    "lora_dropout": (0, "a private adapter rarely overfits and has no dropout here; leave it out"),
    "bias": ("none", "biases are not trained; leave it out"),
    "task_type": (_NEVER, "name it in task, such as task={'task': 'causal-lm'}"),
}
_NOT_IN_DP: Mapping[str, tuple[object, str]] = {
    "noise_multiplier": (
        _NEVER,
        "σ is sized here so that epsilon holds over all rounds; give epsilon, delta and "
        "expected_batch_size (`dpacc calibrate --noise-multiplier` says which ε a σ is worth)",
    ),
    "secure_mode": (True, "noise and samples always come from a cryptographic generator"),
}


@dataclass(frozen=True, kw_only=True)
class PrivacyBudget:
    """The most that any client may spend, over all rounds.

    Args:
        epsilon: ε; a client may choose less.
        delta: δ at which every client states its ε, so that they can be compared.

    >>> PrivacyBudget(epsilon=8.0, delta=1e-5).epsilon
    8.0
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        require_positive("epsilon", self.epsilon)
        require_positive("delta", self.delta)
        if not self.delta < 1:
            raise ConfigurationError(f"delta={self.delta} must lie strictly between 0 and 1")

    def require_covered(self, client: str, *, epsilon: float, delta: float) -> None:
        """See that what a client keeps is within what the federation promises.

        Raises:
            ConfigurationError: its ε is larger, or stated at another δ.
        """
        if delta != self.delta or epsilon > self.epsilon:
            raise ConfigurationError(
                f"{client} keeps epsilon={epsilon:g} at delta={delta:g}; this federation promises "
                f"at most epsilon={self.epsilon:g} at delta={self.delta:g}"
            )


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """The adapter that all share; server and clients must be given the same one.

    Args:
        rank: r.
        alpha: the adapter is scaled by alpha / rank.
        method: "ffa" keeps A as it was drawn and trains B alone, whose average is exact; "lora"
            trains both factors; "dylora" both at one public rank a round, drawn by `seed`.
        target_modules: layers that get adapters, by the last part of their names.
        top_layers: adapt this many of the last blocks only.
        seed: seeds A, a new head's first values and a round's rank, which are public.
    """

    rank: int = 8
    alpha: float = 16.0
    method: SharedMethod = "ffa"
    target_modules: tuple[str, ...] = ("all-linear",)
    top_layers: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require_count("rank", self.rank)
        require_positive("alpha", self.alpha)
        require_count("seed", self.seed, at_least=0)
        if self.top_layers is not None:
            require_count("top_layers", self.top_layers)
        _require_names("target_modules", self.target_modules)
        object.__setattr__(self, "target_modules", tuple(self.target_modules))
        if self.method not in get_args(SharedMethod):
            raise ConfigurationError(
                f"method={self.method!r} must be one of {', '.join(get_args(SharedMethod))}: only "
                "under these do clients' adapters have the same coordinates"
            )


def _require_names(name: str, value: object) -> None:
    if isinstance(value, str):
        raise ConfigurationError(f"{name}={value!r} must be a list of names, such as ({value!r},)")
    if not isinstance(value, Sequence) or not value or not all(isinstance(e, str) for e in value):
        raise ConfigurationError(f"{name}={value!r} must be a list of names")


@dataclass(frozen=True, kw_only=True)
class DPSettings:
    """One client's own privacy and training.

    Args:
        epsilon: ε_i, all that this client will ever spend in the federation.
        delta: δ at which it is stated.
        expected_batch_size: examples that a local step holds on average (Poisson sampling).
        max_grad_norm: C, the clipping norm.
        learning_rate: AdamW's, constant; its state stays with the client between rounds.
        most_rounds: the rounds that noise is sized for; by default all of the federation's. A
            client that is asked for more stops, because its budget is spent.
        unit_field: the field that says whose an example is, for a privacy unit larger than one.
        unit_cap: the most examples of one unit that count in a step, drawn anew for each.
        most_local_epochs: the most expected passes over its data that a server may ask for in one
            round.
        budget: the file of its data's budget, if it has one: all rounds are reserved of it before
            the first step, or the client takes none.
    """

    epsilon: float
    delta: float
    expected_batch_size: int
    max_grad_norm: float = 1.0
    learning_rate: float = 1e-3
    most_rounds: int | None = None
    unit_field: str | None = None
    unit_cap: int | None = None
    most_local_epochs: float = 1.0
    budget: str | None = None

    def __post_init__(self) -> None:
        for name in ("epsilon", "delta", "max_grad_norm", "learning_rate", "most_local_epochs"):
            require_positive(name, getattr(self, name))
        require_count("expected_batch_size", self.expected_batch_size)
        for name in ("most_rounds", "unit_cap"):
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name))
        require_words("unit_field", self.unit_field)
        require_words("budget", self.budget)
        if not self.delta < 1:
            raise ConfigurationError(f"delta={self.delta} must lie strictly between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is learned: fields of [`TrainingConfig`][dpacc.recipe.config.TrainingConfig] about data.

    >>> Task(fields={"task": "sequence-classification", "labels": ("bad", "good")}).labels
    ('bad', 'good')
    """

    fields: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.fields, Mapping):
            raise ConfigurationError(f"task={self.fields!r} must be a mapping of settings' names")
        for name in self.fields:
            if name == "sampling":
                raise ConfigurationError(
                    "a task with sampling: clients draw privacy units by coins (poisson), for the "
                    "server prices them anew by σ, q and steps, which do not say what several "
                    "examples of one unit cost; leave it out, and set unit_cap in dp_config"
                )
            if name not in _OF_A_TASK:
                meant = nearest(name, _OF_A_TASK)
                raise ConfigurationError(
                    f"a task with {name}, which is not about data and would have no effect in a "
                    "federation: leave it out, or set it in dp_config or lora_config"
                    + ("" if meant is None else f"; do you mean {meant!r}?")
                )
        if self.kind == "preference":
            raise ConfigurationError(
                "task=preference: a federation learns texts or classes, and compares no answers; "
                "choose another task, or train each client's pairs with recipes/train.py"
            )
        typed = typed_settings(kind=TrainingConfig, values=self.fields)
        object.__setattr__(self, "fields", typed)
        # What contradicts itself, such as classes without names, is said at the server, too.
        TrainingConfig(model="", train_data="", epsilon=1, expected_batch_size=1, steps=1, **typed)

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The names of the classes, if there are any."""
        return self.fields.get("labels")

    @property
    def kind(self) -> Any:
        """ "causal-lm" or a classification."""
        return self.fields.get("task", "causal-lm")


def lora_settings(value: LoraSettings | Mapping[str, Any]) -> LoraSettings:
    """The shared adapter; a mapping may use PEFT's words.

    >>> lora_settings({"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}).rank
    4
    >>> lora_settings({"rang": 4})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    dpacc.errors.ConfigurationError: lora_config has no entry 'rang'; it has ... 'rank'?
    """
    return settings_of("lora_config", value, LoraSettings, renamed=_OF_PEFT, elsewhere=_NOT_IN_LORA)


def dp_settings(value: DPSettings | Mapping[str, Any]) -> DPSettings:
    """One client's privacy and training.

    >>> dp_settings({"epsilon": 8.0, "delta": 1e-5, "expected_batch_size": 16}).epsilon
    8.0
    """
    return settings_of("dp_config", value, DPSettings, elsewhere=_NOT_IN_DP)


def privacy_budget(value: PrivacyBudget | Mapping[str, Any]) -> PrivacyBudget:
    """The most that any client may spend.

    >>> privacy_budget({"epsilon": 8.0, "delta": 1e-5})
    PrivacyBudget(epsilon=8.0, delta=1e-05)
    """
    return settings_of("privacy_budget", value, PrivacyBudget)


def training_config(
    *, model: str, data_path: str, lora: LoraSettings, dp: DPSettings, task: Task
) -> TrainingConfig:
    """The same choices in the words of a run alone, by which data and adapters are made."""
    return TrainingConfig(
        model=model,
        train_data=data_path,
        epsilon=dp.epsilon,
        delta=dp.delta,
        expected_batch_size=dp.expected_batch_size,
        steps=1,
        warmup_steps=0,
        max_grad_norm=dp.max_grad_norm,
        learning_rate=dp.learning_rate,
        unit_field=dp.unit_field,
        unit_cap=dp.unit_cap,
        budget=dp.budget,
        lora_rank=lora.rank,
        lora_alpha=lora.alpha,
        lora_method=lora.method,
        lora_target_modules=lora.target_modules,
        lora_top_layers=lora.top_layers,
        seed=lora.seed,
        **task.fields,
    )
