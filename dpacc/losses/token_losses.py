"""Cross-entropy of tokens in little memory: fp32 logits of a whole micro-batch never exist.

Each is an operator, as layers are, so that a compiler sees it whole.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dpacc.layers.kernels.choice import fused_on
from dpacc.layers.operators import layer_operator

_TOKENS_PER_PRODUCT = 256
_TOKENS_IN_CACHE = 8
_TILE_OF_TOKENS, _TILE_OF_WORDS = 512, 2048


def token_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """−log softmax(logits)[target] for every token, [n] fp32, from [n, vocabulary] logits.

    Equals `F.cross_entropy(logits.float(), targets, reduction="none")` without ever holding
    fp32 logits of more than a few tokens: one small scratch buffer stays in the cache.
    """
    return _token_cross_entropy(logits, targets)


def projected_cross_entropy(
    states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
) -> Tensor:
    """`token_cross_entropy(F.linear(states, weight, bias), targets)` for a frozen projection.

    Logits exist for a few hundred tokens at a time, on a processor in fp32 for a few hundred tokens
    and some words. The gradient of the states, ∂ℓ/∂h = (softmax − onehot)·W, is made while the
    logits are at hand and scaled in the backward, so nothing is computed twice.

    Args:
        states: [n, hidden].
        weight: [vocabulary, hidden], frozen.
        bias: [vocabulary], frozen, or none.
        targets: [n].
    """
    wanted = states.requires_grad and torch.is_grad_enabled()
    return _projected_cross_entropy(states, weight, bias, targets, wanted)


def _token_forward(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    normalisers = torch.empty(len(targets), dtype=torch.float32, device=logits.device)
    for rows, scratch in _chunks(logits):
        scratch.copy_(logits[rows])
        largest = scratch.amax(dim=1, keepdim=True)
        sums = scratch.sub_(largest).exp_().sum(dim=1)
        normalisers[rows] = sums.log_().add_(largest.squeeze(1))
    at_targets = logits.gather(1, targets.unsqueeze(1)).squeeze(1).float()
    return normalisers - at_targets, normalisers


def _token_backward(
    gradient: Tensor, wanted: bool, logits: Tensor, targets: Tensor, normalisers: Tensor
) -> Tensor:
    result = torch.empty_like(logits if wanted else logits[:0])
    for rows, scratch in _chunks(result):
        probabilities = scratch.copy_(logits[rows]).sub_(normalisers[rows, None]).exp_()
        one = torch.ones_like(probabilities[:, :1])
        probabilities.scatter_add_(1, targets[rows, None], -one)
        result[rows] = probabilities.mul_(gradient[rows, None])
    return result


def _token_shapes(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    each = logits.new_empty(len(targets), dtype=torch.float32)
    return each, torch.empty_like(each)


_token_cross_entropy = layer_operator(
    name="token_cross_entropy",
    forward=_token_forward,
    backward=_token_backward,
    shapes=_token_shapes,
)


def _projected_forward(
    states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, wanted: bool
) -> tuple[Tensor, Tensor]:
    losses = torch.empty(len(targets), dtype=torch.float32, device=states.device)
    gradients = torch.empty_like(states if wanted else states[:0])
    # Low precision cannot hold the difference of two sums made in tiles.
    tiled = weight.device.type in ("cpu", "meta") and weight.dtype == torch.float32
    together = _TILE_OF_TOKENS if tiled else _TOKENS_PER_PRODUCT
    project = _project_in_tiles if tiled else _project_at_once
    for rows in runs(total=len(targets), most=together):
        into = gradients[rows] if wanted else None
        losses[rows] = project(states[rows], weight, bias, targets[rows], into)
    return losses, gradients


def _projected_backward(gradient: Tensor, wanted: bool, gradients: Tensor) -> Tensor:
    return (gradients * gradient.unsqueeze(1)).to(gradients.dtype)


def _projected_shapes(
    states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, wanted: bool
) -> tuple[Tensor, Tensor]:
    losses = states.new_empty(len(targets), dtype=torch.float32)
    return losses, torch.empty_like(states if wanted else states[:0])


_projected_cross_entropy = layer_operator(
    name="projected_cross_entropy",
    forward=_projected_forward,
    backward=_projected_backward,
    shapes=_projected_shapes,
    keeps_arguments=False,
)


def _project_at_once(
    states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, gradients: Tensor | None
) -> Tensor:
    """The tokens' losses, by one product with all words; `gradients` becomes ∂ℓ/∂h on request."""
    logits = states.new_empty(len(targets), len(weight))
    torch.mm(states, weight.t(), out=logits)
    if bias is not None:
        logits += bias
    losses = _losses_in_place(logits, targets, want_gradients=gradients is not None)
    if gradients is not None:
        torch.mm(logits, weight, out=gradients)
    return losses


def _project_in_tiles(
    states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, gradients: Tensor | None
) -> Tensor:
    """As `_project_at_once`, by products with a few thousand words, whose logits stay in the cache.

    With Z_b = Σ exp(z) over the words of tile b and Z over all of them so far, softmax(z)·W is
    Σ_b (Z_b / Z) softmax_b(z_b)·W_b, so each tile is done with before the next one is made.
    """
    normalisers = states.new_full((len(targets),), -torch.inf)
    expected = torch.zeros_like(states)
    part = torch.empty_like(states)
    room = states.new_empty(len(targets) * min(len(weight), _TILE_OF_WORDS))
    for tile in runs(total=len(weight), most=_TILE_OF_WORDS):
        words = weight[tile]
        logits = room[: len(targets) * len(words)].view(len(targets), len(words))
        torch.mm(states, words.t(), out=logits)
        if bias is not None:
            logits += bias[tile]
        largest = logits.amax(dim=1)
        torch.softmax(logits, dim=1, out=logits)
        of_tile = largest - logits.amax(dim=1).log()
        of_all = torch.logaddexp(normalisers, of_tile)
        if gradients is not None:
            expected *= (normalisers - of_all).exp_().unsqueeze(1)
            torch.mm(logits, words, out=part)
            expected.addcmul_(part, (of_tile - of_all).exp_().unsqueeze(1))
        normalisers = of_all
    chosen = weight[targets]
    at_targets = (states * chosen).sum(dim=1)
    if bias is not None:
        at_targets += bias[targets]
    if gradients is not None:
        torch.sub(expected, chosen, out=gradients)
    return normalisers - at_targets


def _losses_in_place(logits: Tensor, targets: Tensor, *, want_gradients: bool) -> Tensor:
    """The tokens' losses; on request `logits` becomes softmax(logits) − onehot(targets).

    log Σ exp(z) is max z − log max softmax(z), whose logarithm is never of a small number.
    """
    if fused_on(logits.device):
        from dpacc.layers.kernels.cross_entropy import losses_in_place

        return losses_in_place(logits, targets, want_gradients=want_gradients)
    losses = torch.empty(len(targets), dtype=torch.float32, device=logits.device)
    for rows, scratch in _chunks(logits):
        chosen = targets[rows, None]
        largest = logits[rows].amax(dim=1, keepdim=True).float()
        at_target = logits[rows].gather(1, chosen).float()
        torch.softmax(logits[rows], dim=1, dtype=torch.float32, out=scratch)
        normalisers = largest - scratch.amax(dim=1, keepdim=True).log()
        losses[rows] = (normalisers - at_target).squeeze(1)
        if want_gradients:
            logits[rows] = scratch.scatter_add_(1, chosen, scratch.new_full(chosen.shape, -1.0))
    return losses


def _chunks(logits: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Runs of rows, each with the same fp32 scratch buffer of their shape."""
    tokens, vocabulary = logits.shape
    most = _TOKENS_IN_CACHE if logits.device.type == "cpu" else _TOKENS_PER_PRODUCT
    scratch = logits.new_empty(min(tokens, most), vocabulary, dtype=torch.float32)
    for rows in runs(total=tokens, most=most):
        yield rows, scratch[: rows.stop - rows.start]


def runs(*, total: int, most: int) -> Iterator[slice]:
    """Slices that cover 0 … total−1 in order, each `most` long but the last, which may be shorter.

    >>> [*runs(total=5, most=2)]
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    for start in range(0, total, most):
        yield slice(start, min(start + most, total))
