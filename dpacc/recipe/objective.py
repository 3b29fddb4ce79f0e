"""What a configuration teaches: one loss per example, by its task and its answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dpacc.errors import ConfigurationError
from dpacc.losses.decoupled_losses import BatchLosses, batch_losses_of
from dpacc.losses.per_example import causal_lm_losses
from dpacc.losses.preferences import USUAL_BETA, PairLoss, pair_loss, preference_losses
from dpacc.recipe.config import TrainingConfig
from dpacc.step.admission.invented_examples import made_up_examples
from dpacc.step.admission.positions import require_positions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def losses_for(
    *, config: TrainingConfig, model: nn.Module, tokenizer: PreTrainedTokenizerBase
) -> BatchLosses:
    """The losses, [examples] fp32, of a model and a micro-batch with `labels`.

    Args:
        config: names the answers, if only some completions are possible.
        model: with the head of the configuration's task.
        tokenizer: the model's.

    Raises:
        ConfigurationError: an answer is not one token, two are the same, or the model has fewer
            positions than examples may have tokens.
    """
    require_positions(model=model, max_length=config.max_length)
    if config.task == "preference":
        return partial(preference_losses, loss=pair_loss_for(config=config))
    if config.answers is None:
        return batch_losses_of(model)
    tokens = answer_tokens(answers=config.answers, tokenizer=tokenizer)
    return partial(causal_lm_losses, among=tokens)


def pair_loss_for(*, config: TrainingConfig) -> PairLoss:
    """What is learned of a preference pair, with the settings of its loss."""
    settings = {
        "dpo": {"label_smoothing": config.label_smoothing},
        "simpo": {"gamma": config.simpo_gamma},
    }
    name = config.preference_loss
    return pair_loss(name, beta=beta_for(config=config), **settings.get(name, {}))


def beta_for(*, config: TrainingConfig) -> float:
    """The β of a preference pair's loss and margin: the usual one of that loss, if none is named.

    >>> config = TrainingConfig(model="m", train_data="t", epsilon=8.0, expected_batch_size=8,
    ...                         steps=2, task="preference", preference_loss="simpo")
    >>> beta_for(config=config)
    2.0
    """
    return config.beta or USUAL_BETA[config.preference_loss]


def probe_examples_for(*, config: TrainingConfig, model: nn.Module, like: Any) -> list[Any] | None:
    """Invented examples whose labels are places among the answers; none where words are learned.

    Args:
        config: names the answers.
        model: tells the vocabulary.
        like: an example, of which types, names and shapes are read.
    """
    if config.answers is None:
        return None
    return made_up_examples(model=model, like=like, classes=len(config.answers))


def answer_tokens(*, answers: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """The one token of each answer, [answers], as a completion is tokenized.

    Raises:
        ConfigurationError: an answer is not one token, or two are the same.
    """
    found: dict[int, str] = {}
    for answer in answers:
        tokens: list[int] = tokenizer(answer, add_special_tokens=False)["input_ids"]
        if len(tokens) != 1:
            raise ConfigurationError(
                f"the answer {answer!r} is {len(tokens)} tokens of this model: choose answers of "
                "one token each, or leave answers out to learn whole completions"
            )
        if tokens[0] in found:
            raise ConfigurationError(
                f"the answers {found[tokens[0]]!r} and {answer!r} are one token of this model"
            )
        found[tokens[0]] = answer
    return torch.tensor(list(found))
