"""Losses of preference pairs: one number a pair, which owes nothing to another pair.

A pair is a prompt with a chosen and a rejected answer: one example of two sequences
([`dpacc.data.sequences`][]). Each loss here is a function of that pair's own log-probabilities
under the model and under a frozen reference. What reads other pairs is not here: KTO's reference
point is a public number instead of a batch's mean, and nothing is sorted, averaged or kept running.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpacc.data.sequences import as_rows
from dpacc.errors import ConfigurationError
from dpacc.losses.per_example import summed_losses

REFERENCE = ("reference_chosen", "reference_rejected")
"""Fields of a pair that hold the reference's log-probabilities of its two answers."""

_NO_REFERENCE = (
    "this loss compares with a reference, and the batch holds none of its log-probabilities: take "
    "the examples that dpacc.recipe.preferences.with_reference returns"
)


@dataclass(frozen=True, kw_only=True)
class PairScores:
    """What a model, and its reference, make of the answers of some pairs; all [pairs] fp32.

    Attributes:
        chosen: log π(y_w | x), the sum over the chosen answer's tokens.
        rejected: log π(y_l | x), likewise.
        chosen_tokens: |y_w|, how many they are.
        rejected_tokens: |y_l|.
        reference_chosen: log π_ref(y_w | x); none where there is no reference.
        reference_rejected: log π_ref(y_l | x).
    """

    chosen: Tensor
    rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    reference_chosen: Tensor | None = None
    reference_rejected: Tensor | None = None

    @property
    def log_ratios(self) -> tuple[Tensor, Tensor]:
        """log π/π_ref of the chosen and of the rejected answers.

        Raises:
            ConfigurationError: there is no reference.
        """
        if self.reference_chosen is None or self.reference_rejected is None:
            raise ConfigurationError(_NO_REFERENCE)
        return self.chosen - self.reference_chosen, self.rejected - self.reference_rejected

    @property
    def averages(self) -> tuple[Tensor, Tensor]:
        """log π of the chosen and of the rejected answers, a token."""
        return self.chosen / self.chosen_tokens, self.rejected / self.rejected_tokens


PairLoss = Callable[[PairScores], Tensor]
"""From the scores of some pairs to their losses, [pairs] fp32."""


def preference_losses(
    model: nn.Module, batch: Mapping[str, Tensor], *, loss: PairLoss | None = None
) -> Tensor:
    """The loss of each pair of a micro-batch, [pairs] fp32; both answers go through one forward.

    A pair of which an answer has no token to learn, as when it was cut off, has loss 0.

    Args:
        model: a Hugging Face causal LM, plain or wrapped by PEFT.
        batch: `input_ids`, `attention_mask` and `labels` [pairs, 2, tokens], the chosen answer
            first, and for losses that ask for it `reference_chosen` and `reference_rejected`
            [pairs], which [`with_reference`][dpacc.recipe.preferences.with_reference] computes.
        loss: one of this file, with its settings; by default `dpo_losses`.

    Raises:
        ConfigurationError: the batch is none of pairs, or lacks the reference that `loss` asks for.
    """
    scores, learned = pair_scores(model, batch)
    return torch.where(learned, (loss or dpo_losses)(scores), 0.0)


def pair_scores(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[PairScores, Tensor]:
    """The scores of a micro-batch of pairs, and of which of them both answers hold a token.

    Raises:
        ConfigurationError: the batch is none of pairs.
    """
    labels = batch["labels"]
    if labels.ndim != 3 or labels.shape[1] != 2:
        raise ConfigurationError(
            f"labels have shape {tuple(labels.shape)}, and pairs make [pairs, 2, tokens]: collate "
            "with dpacc.recipe.examples.pad_examples what dpacc.data.sequences.joined made of a "
            "chosen and a rejected answer"
        )
    inputs = {name: value for name, value in as_rows(batch).items() if name not in REFERENCE}
    losses, tokens = (each.view(-1, 2) for each in summed_losses(model, inputs))
    learned = (tokens > 0).all(dim=1)
    # What stands in for an answer without tokens is finite, so that it has no gradient of NaN.
    sums = torch.where(learned.unsqueeze(1), -losses, -1.0)
    counts = tokens.clamp(min=1).float()
    given = {name: batch[name].float() for name in REFERENCE if name in batch}
    scores = PairScores(
        chosen=sums[:, 0],
        rejected=sums[:, 1],
        chosen_tokens=counts[:, 0],
        rejected_tokens=counts[:, 1],
        **given,
    )
    return scores, learned


# --- one loss each ------------------------------------------------------------------------


def dpo_losses(
    scores: PairScores, *, beta: float = 0.1, label_smoothing: float = 0.0, robust: bool = False
) -> Tensor:
    """DPO (arXiv 2305.18290): −log σ(βh), h = log π/π_ref(y_w) − log π/π_ref(y_l).

    Args:
        scores: of some pairs.
        beta: β, how much leaving the reference costs.
        label_smoothing: ε, the share of pairs that are taken to be labelled the wrong way round:
            (1 − ε)·ℓ(h) + ε·ℓ(−h), which DPO's authors call conservative.
        robust: divide ((1 − ε)·ℓ(h) − ε·ℓ(−h)) by 1 − 2ε instead, which is unbiased under such
            labels (arXiv 2403.00409).

    Raises:
        ConfigurationError: a label smoothing outside [0, ½), or no reference.

    >>> scores = PairScores(
    ...     chosen=torch.tensor([-2.0]), rejected=torch.tensor([-3.0]),
    ...     chosen_tokens=torch.tensor([2.0]), rejected_tokens=torch.tensor([4.0]),
    ...     reference_chosen=torch.tensor([-2.5]), reference_rejected=torch.tensor([-2.5]))
    >>> [round(x, 4) for x in dpo_losses(scores, beta=0.1).tolist()]
    [0.6444]
    """
    if not 0 <= label_smoothing < 0.5:
        raise ConfigurationError(f"label_smoothing={label_smoothing} must be in [0, 0.5)")
    chosen, rejected = scores.log_ratios
    logits = beta * (chosen - rejected)
    as_labelled, flipped = -F.logsigmoid(logits), -F.logsigmoid(-logits)
    if robust:
        unbiased = (1 - label_smoothing) * as_labelled - label_smoothing * flipped
        return unbiased / (1 - 2 * label_smoothing)
    return (1 - label_smoothing) * as_labelled + label_smoothing * flipped


def ipo_losses(scores: PairScores, *, beta: float = 0.1) -> Tensor:
    """IPO (arXiv 2310.12036): (h − 1/(2τ))², with log-ratios a token.

    The paper's h has sums over tokens; TRL, whose numbers these are, divides each by its answer's
    tokens, as it says the paper's authors did.

    Args:
        scores: of some pairs.
        beta: the paper's τ.

    Raises:
        ConfigurationError: no reference.
    """
    chosen, rejected = scores.log_ratios
    difference = chosen / scores.chosen_tokens - rejected / scores.rejected_tokens
    return (difference - 1 / (2 * beta)).square()


def simpo_losses(scores: PairScores, *, beta: float = 2.0, gamma: float = 1.0) -> Tensor:
    """SimPO (arXiv 2405.14734): −log σ(β/|y_w|·log π(y_w) − β/|y_l|·log π(y_l) − γ).

    Args:
        scores: of some pairs; no reference is asked for.
        beta: β.
        gamma: γ, the margin that is aimed at.
    """
    chosen, rejected = scores.averages
    return -F.logsigmoid(beta * (chosen - rejected) - gamma)


def kto_losses(
    scores: PairScores,
    *,
    beta: float = 0.1,
    reference_point: float = 0.0,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """KTO (arXiv 2402.01306) of both answers of a pair, with a public reference point z₀.

    ½·λ_D·(1 − σ(β(r_w − z₀))) + ½·λ_U·(1 − σ(β(z₀ − r_l))), where r = log π/π_ref. The paper
    estimates z₀, the divergence from the reference, from the other examples of a batch, so that one
    example moves the gradients of all others and clipping bounds none of it. Here z₀ is a public
    number; at 0 these are half the losses of APO-zero (arXiv 2408.06266).

    Args:
        scores: of some pairs.
        beta: β.
        reference_point: z₀ ≥ 0, from public data or made up; never from private examples.
        desirable_weight: λ_D.
        undesirable_weight: λ_U.

    Raises:
        ConfigurationError: no reference.
    """
    chosen, rejected = scores.log_ratios
    return 0.5 * (
        desirable_weight * torch.sigmoid(-beta * (chosen - reference_point))
        + undesirable_weight * torch.sigmoid(beta * (rejected - reference_point))
    )


def orpo_losses(scores: PairScores, *, beta: float = 0.1) -> Tensor:
    """ORPO (arXiv 2403.07691): −log P(y_w) − λ·log σ(log odds(y_w) − log odds(y_l)).

    P is the geometric mean of a token's probability, and odds = P/(1 − P).

    Args:
        scores: of some pairs; no reference is asked for.
        beta: the paper's λ.
    """
    chosen, rejected = scores.averages
    return -chosen - beta * F.logsigmoid(_log_odds(chosen) - _log_odds(rejected))


def _log_odds(log_probability: Tensor) -> Tensor:
    return log_probability - torch.log(-torch.expm1(log_probability))


def reward_margins(scores: PairScores, *, beta: float) -> Tensor:
    """By how much a model prefers the chosen answers, [pairs]: β times the difference.

    Of log π/π_ref where there is a reference, which is DPO's implicit reward (arXiv 2305.18290),
    and else of log π a token, which is SimPO's (arXiv 2405.14734).
    """
    compares = scores.reference_chosen is not None
    chosen, rejected = scores.log_ratios if compares else scores.averages
    return beta * (chosen - rejected)


# --- by name ------------------------------------------------------------------------------

_BY_NAME: dict[str, Callable[..., Tensor]] = {
    "dpo": dpo_losses,
    "ipo": ipo_losses,
    "simpo": simpo_losses,
    "kto": kto_losses,
    "orpo": orpo_losses,
}
USUAL_BETA = {"dpo": 0.1, "ipo": 0.1, "simpo": 2.0, "kto": 0.1, "orpo": 0.1}
"""β of each loss, where nobody says another."""

WITHOUT_REFERENCE = frozenset({"simpo", "orpo"})
"""Losses that compare with no reference, for which none is computed."""


def pair_loss(name: str, *, beta: float | None = None, **settings: Any) -> PairLoss:
    """The loss of that name with its settings.

    Args:
        name: dpo, ipo, simpo, kto or orpo.
        beta: by default the usual one of that loss.
        **settings: others, which the loss names.

    Raises:
        ConfigurationError: there is no such loss.

    >>> pair_loss("simpo", gamma=0.5).keywords
    {'beta': 2.0, 'gamma': 0.5}
    """
    if name not in _BY_NAME:
        raise ConfigurationError(
            f"preference_loss={name!r} must be one of {', '.join(_BY_NAME)}: others read other "
            "pairs of a batch, or are not here"
        )
    if beta is not None and beta <= 0:
        raise ConfigurationError(f"beta={beta} must be above 0")
    chosen = USUAL_BETA[name] if beta is None else beta
    return partial(_BY_NAME[name], beta=chosen, **settings)
