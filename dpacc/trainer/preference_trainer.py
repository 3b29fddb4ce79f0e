"""TRL's DPOTrainer, with a private step in place of its own: a pair of answers is one example.

TRL prepares the pairs, and evaluates with its own loss and metrics. What trains is this library's
loss of one pair, beside a reference that is asked once and kept in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dpacc.data.sequences import joined, parted
from dpacc.data.supervision import IGNORED, Example
from dpacc.errors import ConfigurationError
from dpacc.losses.decoupled_losses import BatchLosses
from dpacc.losses.preferences import PairLoss, PairScores, kto_losses, pair_loss, preference_losses
from dpacc.recipe.examples import pad_examples
from dpacc.recipe.preferences import with_reference
from dpacc.trainer.privacy_arguments import PrivacyArguments
from dpacc.trainer.private_trainer import PrivateTrainer

_READ_OTHER_PAIRS = {
    "aot": "sorts log-ratios over the batch, so that each pair is compared with others",
    "aot_unpaired": "sorts log-ratios over the batch, so that each answer is compared with others'",
    "sft": "divides by how many tokens all answers of the batch have",
}
"""TRL's losses that are not a function of one pair."""

_OPTIONS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "precompute_ref_log_probs": (
        bool,
        "writes what the reference makes of private pairs into a cache file; leave it out: it is "
        "asked once in any case, and the answers stay in memory",
    ),
    "sync_ref_model": (
        bool,
        "moves the reference, whose log-probabilities are asked once; leave it out",
    ),
    "router_aux_loss_coef": (bool, "adds a balance loss that mixes examples; set it to 0"),
}
_OPTIONS_OF_THE_LOSS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "loss_weights": (lambda weights: weights is not None, "adds up losses; choose one loss_type"),
    "ld_alpha": (lambda alpha: alpha is not None, "is in no loss of one pair here; leave it out"),
    "f_divergence_type": (
        lambda kind: getattr(kind, "value", kind) != "reverse_kl",
        "is in no loss of one pair here; leave it at reverse_kl",
    ),
    "use_weighting": (bool, "is in no loss of one pair here; leave it out"),
}


class PrivatePreferenceTrainer(PrivateTrainer):
    """A private trainer of preferences, mixed in before TRL's.

    ```python
    class PrivateDPOTrainer(PrivatePreferenceTrainer, DPOTrainer):
        pass
    ```

    `loss_type` may be sigmoid, robust, ipo or apo_zero, which is KTO's loss with 0 for its
    reference point; others are refused by name, or given as `losses=`. The reference is the base
    with its adapters switched off.

    Args:
        args: TRL's DPOConfig; options that couple pairs are refused by name.
        privacy: the guarantee that is wanted, for one pair, or all pairs of one owner of `units`.
        losses: one loss per pair, [pairs], from the model and a micro-batch
            ([`preference_losses`][dpacc.losses.preferences.preference_losses]); by default that of
            `loss_type`.
        **given: see [`PrivateTrainer`][dpacc.trainer.private_trainer.PrivateTrainer].

    Raises:
        ConfigurationError: an option would break the guarantee.
    """

    processing_class: Any
    accelerator: Any

    def __init__(
        self,
        *,
        args: Any,
        privacy: PrivacyArguments,
        losses: BatchLosses | None = None,
        **given: Any,
    ) -> None:
        _refuse(_OPTIONS, args)
        if given.get("ref_model") is not None:
            raise ConfigurationError(
                "ref_model is a second model, and the reference is the base with its adapters "
                "switched off; leave it out"
            )
        chosen = losses or partial(preference_losses, loss=loss_of(args))
        super().__init__(args=args, privacy=privacy, losses=chosen, **given)
        _refuse_trained_start(self.model)

    def _examples(self) -> tuple[Any, Callable[[list[Any]], Any]]:
        """TRL's prepared pairs as examples of two sequences, each with its reference."""
        collate = partial(pad_examples, pad_token_id=int(self.processing_class.pad_token_id))
        pairs = with_reference(
            model=self.model,
            examples=self._pairs(self.train_dataset),
            collate=collate,
            accelerator=self.accelerator,
        )
        return pairs, collate

    def _told_apart(self, dataset: Any) -> Iterable[Any]:
        """The answers of pairs each by itself: none may be private and evaluated in another."""
        return [part for pair in self._pairs(dataset) for part in parted(pair)]

    def _pairs(self, dataset: Any) -> list[Example]:
        cut = self.args.max_length, self.args.truncation_mode
        return [as_pair(each, max_length=cut[0], truncation_mode=cut[1]) for each in dataset]


def as_pair(example: Mapping[str, Any], *, max_length: int | None, truncation_mode: str) -> Example:
    """One of TRL's prepared pairs as an example of two sequences, cut as its collator cuts.

    >>> pair = {"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4, 5]}
    >>> as_pair(pair, max_length=3, truncation_mode="keep_start")["labels"]
    [-100, -100, 3, -100, -100, 4]
    """
    prompt = [*example["prompt_ids"]]
    kept = slice(max_length) if truncation_mode == "keep_start" else slice(-(max_length or 0), None)
    answers = []
    for name in ("chosen_ids", "rejected_ids"):
        answer = [*example[name]]
        ids, labels = prompt + answer, [IGNORED] * len(prompt) + answer
        answers.append({"input_ids": ids[kept], "labels": labels[kept]})
    return joined(answers)


def loss_of(args: Any) -> PairLoss:
    """The loss of one pair that TRL's `loss_type` names, with its settings.

    Raises:
        ConfigurationError: it reads other pairs, or is not here.
    """
    _refuse(_OPTIONS_OF_THE_LOSS, args)
    named = args.loss_type if isinstance(args.loss_type, list) else [args.loss_type]
    kind = named[0] if len(named) == 1 else "+".join(named)
    smoothing = args.label_smoothing
    if kind == "sigmoid" and smoothing:
        raise ConfigurationError(
            f"label_smoothing={smoothing} with loss_type='sigmoid', of which TRL reads none; set "
            "loss_type='robust'"
        )
    losses: dict[str, PairLoss] = {
        "sigmoid": pair_loss("dpo", beta=args.beta),
        "robust": pair_loss("dpo", beta=args.beta, label_smoothing=smoothing, robust=True),
        "ipo": pair_loss("ipo", beta=args.beta),
        "apo_zero": partial(_apo_zero, beta=args.beta),
    }
    if kind not in losses:
        why = _READ_OTHER_PAIRS.get(kind, "is no loss of one pair here")
        raise ConfigurationError(
            f"loss_type={kind!r} {why}; choose one of {', '.join(losses)}, or give losses=, which "
            "returns one per pair"
        )
    return losses[kind]


def _apo_zero(scores: PairScores, *, beta: float) -> Tensor:
    return 2 * kto_losses(scores, beta=beta)


def _refuse(options: Mapping[str, tuple[Callable[[Any], bool], str]], args: Any) -> None:
    for name, (is_bad, remedy) in options.items():
        value = getattr(args, name, None)
        if hasattr(args, name) and is_bad(value):
            raise ConfigurationError(f"{name}={value!r} {remedy}")


def _refuse_trained_start(model: torch.nn.Module) -> None:
    """TRL copies an adapter that comes with the model, to compare with that."""
    if any(
        ".ref." in name and "lora_B" in name and p.any() for name, p in model.named_parameters()
    ):
        raise ConfigurationError(
            "model= comes with a trained adapter, with a copy of which TRL would compare, and the "
            "reference here is the base with its adapters switched off; merge it first "
            "(recipes/merge.py), and give peft_config="
        )
