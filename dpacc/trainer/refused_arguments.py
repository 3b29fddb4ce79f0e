"""Which of transformers' and TRL's options would break the guarantee: each is refused by name.

What is not here either does no harm (`average_tokens_across_devices` and `max_grad_norm` at its
default act on a loss and on gradients that a private trainer does not have) or has its own meaning
there: `gradient_accumulation_steps` says into how many physical batches a logical one is cut.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from dpacc.errors import ConfigurationError, refuse_unknown
from dpacc.ranks.collectives import share_from_main
from dpacc.trainer.privacy_arguments import PrivacyArguments
from dpacc.trainer.refused_trackers import refuse_trackers

_Bad = Callable[[Any], bool]

_DEFAULT_MAX_GRAD_NORM = 1.0
_FUSED_WITH_THE_BACKWARD = ("lomo", "layerwise")
_FOLLOWING_A_METRIC = ("reduce_lr_on_plateau", "greedy")
_CLASSES_FOLLOWING_A_METRIC = ("reducelronplateau", "greedylr")

_OPTIONS: Mapping[str, tuple[_Bad, str]] = {
    "max_grad_norm": (
        lambda norm: norm not in (0.0, _DEFAULT_MAX_GRAD_NORM),
        "clips a batch's gradient, not an example's; set PrivacyArguments(max_grad_norm=...)",
    ),
    "auto_find_batch_size": (
        bool,
        "starts again after examples were looked at; set per_device_train_batch_size",
    ),
    "train_sampling_strategy": (
        lambda strategy: strategy not in ("random", "sequential"),
        "groups examples; a private logical batch is drawn by coins, and sorted by length after",
    ),
    "label_smoothing_factor": (bool, "is not in the loss of one example; leave it at 0"),
    "neftune_noise_alpha": (
        lambda alpha: alpha is not None,
        "scales an example's noise by its neighbours' lengths; leave it out",
    ),
    "use_liger_kernel": (bool, "replaces the layers whose gradients are clipped; leave it out"),
    "torch_compile": (bool, "compiles the loss, too; set PrivacyArguments(compile='blocks')"),
    "include_num_input_tokens_seen": (
        lambda choice: choice not in (False, "no"),
        "logs how many tokens were drawn; set it to 'no'",
    ),
    "skip_memory_metrics": (
        lambda skip: not skip,
        "reports memory, which grows with the private batch; leave it at True",
    ),
    "debug": (bool, "prints activations and gradients of private examples; leave it out"),
    "deepspeed": (bool, "cuts the model over ranks; use recipes/train.py"),
    "fsdp": (bool, "cuts the model over ranks; use recipes/train.py"),
    "parallelism_config": (
        lambda config: config is not None,
        "cuts examples or the model over ranks; use data parallel ranks",
    ),
    "optim": (
        lambda name: _is_one_of(name, _FUSED_WITH_THE_BACKWARD),
        "updates within the backward, before clipping and noise; use adamw_torch",
    ),
    "lr_scheduler_type": (
        lambda kind: _is_one_of(kind, _FOLLOWING_A_METRIC),
        "follows a metric, which a resume cannot replay; use one that follows steps",
    ),
    "trackio_space_id": (
        lambda space: space is not None,
        "dates rows by when they arrive; leave it out, and send the run with trackio sync",
    ),
    # TRL's
    "packing": (bool, "joins examples in one sequence, so none has a gradient; set it to False"),
    "padding_free": (bool, "joins examples in one row, so none has a gradient; set it to False"),
    "loss_type": (
        lambda kind: kind not in ("nll", "chunked_nll", ["nll"], ["chunked_nll"]),
        "is not the loss of one example; set it to 'nll', and give losses= for another",
    ),
    "activation_offloading": (bool, "is not supported; use activation_checkpointing"),
}

_ROLLOUTS = ("GRPO", "RLOO", "PPO", "OnlineDPO", "NashMD", "XPO", "Distillation")
"""In the names of TRL's trainers whose models answer while they train."""

_ARGUMENTS: Mapping[str, str] = {
    "compute_loss_func": "may mix examples; give losses=, which returns one loss per example",
    "model_init": "makes a new model for each run on the same data; give model=",
}


def _is_one_of(choice: Any, parts: Sequence[str]) -> bool:
    """Whether an option, a string or an enumeration of strings, has one of `parts` in it."""
    return any(part in str(getattr(choice, "value", choice)).lower() for part in parts)


def refuse_options(
    *,
    args: TrainingArguments,
    privacy: PrivacyArguments,
    units: Sequence[Hashable] | None,
    given: Mapping[str, Any],
    own_losses: bool = False,
) -> None:
    """Refuse what would break the guarantee, before any data is read.

    Args:
        args: transformers' arguments, or TRL's.
        privacy: the private ones.
        units: whose each example is.
        given: the trainer's other arguments, by name.
        own_losses: whether `losses` are given, so that no option chooses the loss.

    Raises:
        ConfigurationError: an option is refused, with what to do instead.
    """
    for name, (is_bad, remedy) in _OPTIONS.items():
        value = getattr(args, name, None)
        if name == "loss_type" and own_losses:
            continue
        if hasattr(args, name) and is_bad(value):
            raise ConfigurationError(f"{name}={value!r} {remedy}")
    for name, remedy in _ARGUMENTS.items():
        if given.get(name) is not None:
            raise ConfigurationError(f"{name} {remedy}")
    if args.n_gpu > 1:
        raise ConfigurationError(
            f"one process drives {args.n_gpu} GPUs; start one process a GPU with accelerate launch"
        )
    _refuse_other_data(privacy, units, given)
    refuse_private_steering(
        args=args,
        privacy=privacy,
        callbacks=given.get("callbacks") or [],
        scheduler=(given.get("optimizers") or (None, None))[1],
    )


def refuse_own_losses(trainer: type) -> None:
    """Refuse a trainer with a loss of its own, which the private step would not use.

    Raises:
        ConfigurationError: it overrides compute_loss.
    """
    owner = next(cls for cls in trainer.__mro__ if "compute_loss" in vars(cls))
    if owner.__module__.partition(".")[0] not in ("transformers", "trl"):
        raise ConfigurationError(
            f"{owner.__name__}.compute_loss may mix examples and is not used for training; give "
            "losses=, which returns one loss per example"
        )


def refuse_pairs(trainer: type, losses: object) -> None:
    """Refuse TRL's trainers whose examples are not texts to learn, unless their loss is given.

    Raises:
        ConfigurationError: such a trainer, without `losses`.
    """
    theirs = next((cls for cls in trainer.__mro__ if cls.__module__.startswith("trl.")), None)
    if theirs is not None and any(name in theirs.__name__ for name in _ROLLOUTS):
        raise ConfigurationError(
            f"{theirs.__name__} samples answers to private prompts, whose weights follow other "
            "prompts' rewards and earlier steps: another accounting (docs/preference.md); learn "
            "from pairs with DPOTrainer and PrivatePreferenceTrainer"
        )
    if theirs is not None and theirs.__name__ == "KTOTrainer":
        raise ConfigurationError(
            "KTOTrainer estimates its reference point from the other examples of a batch; use "
            "DPOTrainer and PrivatePreferenceTrainer with loss_type='apo_zero', which is KTO's "
            "loss with 0 for it"
        )
    if theirs is None or losses is not None or theirs.__name__ == "SFTTrainer":
        return
    raise ConfigurationError(
        f"{theirs.__name__} learns from preferences, rewards or samples, of which the private step "
        "knows no loss for one example; give losses=, which returns one per example, or use "
        "SFTTrainer, or PrivatePreferenceTrainer before DPOTrainer"
    )


def refuse_unknown_arguments(trainer: type, given: Mapping[str, Any]) -> None:
    """Refuse a keyword that neither the private trainer nor any parent of it has.

    Raises:
        ConfigurationError: there is one; with the nearest that there is.
    """
    makers = [vars(cls)["__init__"] for cls in trainer.__mro__[:-1] if "__init__" in vars(cls)]
    known = [name for maker in makers for name in inspect.signature(maker).parameters]
    refuse_unknown(given, known=dict.fromkeys(known), of=trainer.__name__)


def require_fresh_or_resumed(asked: str | bool | None, ledger: Path, output_dir: str) -> None:
    """Refuse to begin anew where a run was begun, or to resume where it does not stand.

    Raises:
        ConfigurationError: the ledger is there and no resume was asked for, or of elsewhere.
    """
    if asked:
        refuse_other_checkpoints(asked, output_dir)
    elif share_from_main(ledger.exists()):
        raise ConfigurationError(
            f"{ledger} holds a run that was begun; go on with "
            "trainer.train(resume_from_checkpoint=True), or choose a new output_dir"
        )


def refuse_other_checkpoints(asked: str | bool, output_dir: str) -> None:
    """Refuse to resume from anything else than where the ledger ends.

    Raises:
        ConfigurationError: `asked` is not the last checkpoint of `output_dir`.
    """
    last = get_last_checkpoint(output_dir) if Path(output_dir).is_dir() else None
    if last is None or (asked is not True and Path(str(asked)).resolve() != Path(last).resolve()):
        raise ConfigurationError(
            f"resume_from_checkpoint={asked!r} is not the last checkpoint of {output_dir} ({last})"
            "; released steps cannot be taken back, so give resume_from_checkpoint=True"
        )


def _refuse_other_data(
    privacy: PrivacyArguments, units: Sequence[Hashable] | None, given: Mapping[str, Any]
) -> None:
    train = given.get("train_dataset")
    if train is None or not hasattr(train, "__len__"):
        raise ConfigurationError(
            f"train_dataset={type(train).__name__} has no length, and every example must have the "
            "same chance in every step; give a dataset with a length"
        )
    evaluated = given.get("eval_dataset")
    parts = list(evaluated.values()) if isinstance(evaluated, Mapping) else [evaluated]
    if any(part is train for part in parts):
        raise ConfigurationError(
            "eval_dataset is the private train_dataset, whose metrics are not private; evaluate "
            "on other data"
        )
    if (units is None) != (privacy.unit == "example"):
        raise ConfigurationError(
            f"unit={privacy.unit!r} names what the guarantee is for: give units= (whose each "
            "example is) and PrivacyArguments(unit=...) together, or neither"
        )


def refuse_private_steering(
    *,
    args: TrainingArguments,
    privacy: PrivacyArguments,
    callbacks: Sequence[Any],
    scheduler: Any,
) -> None:
    """Refuse a training that follows metrics of data nobody called public, or tells its times.

    Args:
        args: transformers' arguments.
        privacy: the private ones.
        callbacks: all of the trainer's, or their classes.
        scheduler: of the learning rate, if there is one already.

    Raises:
        ConfigurationError: it does, or a learning rate follows any metric, or a tracker time.
    """
    refuse_trackers(
        report_to=args.report_to,
        callbacks=callbacks,
        log_non_private_metrics=privacy.log_non_private_metrics,
    )
    if _is_one_of(type(scheduler).__name__, _CLASSES_FOLLOWING_A_METRIC):
        raise ConfigurationError(
            f"{type(scheduler).__name__} follows a metric, which a resume cannot replay; give "
            "optimizers= a scheduler that follows steps"
        )
    steering = {
        "load_best_model_at_end=True": args.load_best_model_at_end,
        "save_strategy='best'": _is_one_of(args.save_strategy, ["best"]),
        "EarlyStoppingCallback": any(_stops_early(callback) for callback in callbacks),
    }
    for name, steers in steering.items():
        if steers and not privacy.eval_data_is_public:
            raise ConfigurationError(
                f"{name} steers the training by evaluation metrics, which is free only where that "
                "data is public: say so with PrivacyArguments(eval_data_is_public=True), or leave "
                "it out"
            )


def _stops_early(callback: Any) -> bool:
    kind = callback if isinstance(callback, type) else type(callback)
    return issubclass(kind, EarlyStoppingCallback)
