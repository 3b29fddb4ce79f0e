"""Settings of a run that contradict each other, each with what to do."""

from __future__ import annotations

from typing import Any, get_args

from dpacc_accounting.ledger.plan_settings import require_one_way

from dpacc.errors import ConfigurationError
from dpacc.recipe.settings import Tracker


def require_consistent(*, config: Any) -> None:
    """Refuse two settings of a `TrainingConfig` that cannot both hold.

    Raises:
        ConfigurationError: one line that names them, their values and the remedy.
    """
    _check_duration(config)
    _check_correlation(config)
    _check_owners(config)
    _check_fields(config)
    _check_answers(config)
    _check_labels(config)
    _check_preferences(config)
    _check_trackers(config)
    _check_name(config.name)
    _check_whitening(config)
    _check_subspace(config)
    _check_offloading(config)
    _check_rate(config)


def _check_duration(config: Any) -> None:
    if (config.epochs is None) == (config.steps is None):
        raise ConfigurationError(
            f"epochs={config.epochs} and steps={config.steps}: give exactly one of them "
            "(--epochs null or --steps null unsets the other)"
        )
    if config.steps is not None and config.warmup_steps >= config.steps:
        raise ConfigurationError(
            f"warmup_steps={config.warmup_steps} must be below steps={config.steps}"
        )


def _check_correlation(config: Any) -> None:
    try:
        require_one_way(sampling=config.sampling, correlation=config.correlation)
    except ValueError as refusal:
        raise ConfigurationError(str(refusal)) from None
    if config.bands is not None and config.correlation == "none":
        raise ConfigurationError(
            f"bands={config.bands} are of correlated noise: set --correlation banded, or leave "
            "bands out"
        )
    if config.correlation != "none" and config.noise != "gaussian":
        raise ConfigurationError(
            f"correlation={config.correlation} with noise={config.noise}, which is drawn on a "
            "grid: set --noise gaussian, or --correlation none"
        )
    if config.correlation != "none" and config.lora_method == "dylora":
        raise ConfigurationError(
            f"correlation={config.correlation} with lora_method=dylora: a row that does not learn "
            "in a step takes no noise back, so that all but the first keep more of it: set "
            "--correlation none, or --lora_method lora"
        )


def _check_owners(config: Any) -> None:
    if config.unit_cap is not None and config.unit_field is None:
        raise ConfigurationError(
            f"unit_cap={config.unit_cap} bounds the examples of one unit: say whose each example "
            "is with --unit_field, or leave unit_cap out"
        )
    if config.sampling == "examples" and (config.unit_cap is None or config.noise != "gaussian"):
        raise ConfigurationError(
            f"sampling=examples with unit_cap={config.unit_cap}, noise={config.noise}: set "
            "--unit_cap, the most examples that are kept of a unit, and --noise gaussian"
        )


def _check_fields(config: Any) -> None:
    if config.task == "preference":
        return
    if (config.prompt_field is None) != (config.completion_field is None):
        raise ConfigurationError(
            f"prompt_field={config.prompt_field} and completion_field={config.completion_field}: "
            "give both or neither"
        )
    if config.messages_field is not None and config.prompt_field is not None:
        raise ConfigurationError(
            f"messages_field={config.messages_field} and prompt_field={config.prompt_field}: "
            "give one of them"
        )


def _check_answers(config: Any) -> None:
    if config.answers is None:
        return
    if len(set(config.answers)) < 2:
        raise ConfigurationError(
            f"answers={list(config.answers)}: name at least two different ones"
        )
    if config.completion_field is None or config.learn_end:
        raise ConfigurationError(
            f"answers={list(config.answers)} are completions that are learned without their end: "
            "set prompt_field, completion_field and --learn_end false, or leave answers out"
        )


def _check_labels(config: Any) -> None:
    if config.task in ("causal-lm", "preference"):
        if config.labels is not None:
            raise ConfigurationError(
                f"labels={','.join(config.labels)} with task={config.task}, which has no classes: "
                "set --task sequence-classification or token-classification, or leave labels out"
            )
        return
    if config.labels is None or not 2 <= len(set(config.labels)) == len(config.labels):
        raise ConfigurationError(
            f"labels={config.labels} with task={config.task}: name at least two different classes "
            "with --labels, such as --labels negative,positive"
        )
    if config.prompt_field is not None or config.messages_field is not None:
        raise ConfigurationError(
            f"task={config.task} reads text and labels: leave "
            "prompt_field, completion_field and messages_field out"
        )


def _check_preferences(config: Any) -> None:
    if config.task != "preference":
        for name, default in _OF_PAIRS.items():
            if getattr(config, name) != default:
                raise ConfigurationError(
                    f"{name}={getattr(config, name)} with task={config.task}, which compares no "
                    f"answers: set --task preference, or leave {name} out"
                )
        return
    for name in ("completion_field", "messages_field", "answers"):
        if getattr(config, name) is not None:
            raise ConfigurationError(
                f"{name}={getattr(config, name)} with task=preference, which reads the fields "
                f"`prompt`, `chosen` and `rejected`: leave {name} out"
            )
    if "," in config.pair_prompt:
        raise ConfigurationError(
            f"prompt_field={config.prompt_field} names several fields: a preference pair has one "
            "prompt"
        )
    if config.lora_method == "whitened":
        raise ConfigurationError(
            "lora_method=whitened finds its directions on texts that are learned, and task="
            "preference compares answers: choose --lora_method lora"
        )
    for name, loss, default in (("label_smoothing", "dpo", 0.0), ("simpo_gamma", "simpo", 1.0)):
        if getattr(config, name) != default and config.preference_loss != loss:
            raise ConfigurationError(
                f"{name}={getattr(config, name)} is {loss}'s, with preference_loss="
                f"{config.preference_loss}: leave it out, or set --preference_loss {loss}"
            )


_OF_PAIRS = {"preference_loss": "dpo", "beta": None, "label_smoothing": 0.0, "simpo_gamma": 1.0}


def _check_trackers(config: Any) -> None:
    known = get_args(Tracker)
    for name in config.trackers or ():
        if name not in known:
            raise ConfigurationError(f"trackers={name} must be among {', '.join(known)}")
    if config.log_non_private_metrics and not config.trackers:
        raise ConfigurationError(
            "log_non_private_metrics=true with no tracker to log to: name one with --trackers"
        )


def _check_name(name: str) -> None:
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        raise ConfigurationError(
            f"name={name!r} must be a plain folder name; output_dir says where it goes"
        )


def _check_whitening(config: Any) -> None:
    if config.lora_method == "whitened" and config.held_out_data is None:
        raise ConfigurationError(
            "lora_method=whitened finds its directions on public examples: name some with "
            "--held_out_data, or choose --lora_method lora"
        )


def _check_subspace(config: Any) -> None:
    if (config.lora_method == "subspace") != (config.subspace_rank is not None):
        raise ConfigurationError(
            f"lora_method={config.lora_method} with subspace_rank={config.subspace_rank}: "
            "lora_method subspace needs --subspace_rank, such as 8, and no other method takes one"
        )
    if config.subspace_rank is None:
        return
    if (config.sampling, config.correlation) != ("poisson", "none"):
        raise ConfigurationError(
            f"lora_method=subspace with sampling={config.sampling}, correlation="
            f"{config.correlation}: its two phases are Poisson samples under independent noise; "
            "set --sampling poisson --correlation none"
        )
    if config.clipping == "per-layer":
        raise ConfigurationError(
            "lora_method=subspace with clipping=per-layer: within the subspace no layer has a norm "
            "of its own; set --clipping flat"
        )


def _check_offloading(config: Any) -> None:
    if config.offload_activations and not config.gradient_checkpointing:
        raise ConfigurationError(
            "offload_activations=true moves what activations are recomputed from: set "
            "--gradient_checkpointing true, too"
        )
    if config.offload_activations and config.compile != "none":
        raise ConfigurationError(
            f"offload_activations=true with compile={config.compile}, whose code keeps what it "
            "recomputes from itself: set --compile none"
        )


def _check_rate(config: Any) -> None:
    if config.optimizer == "sgd" and config.learning_rate is None:
        raise ConfigurationError(
            "optimizer=sgd without learning_rate: what it bears depends on the task, so try some "
            "on public data; 0.1 to 0.6 were best where dpacc was measured"
        )
