"""What the last adapter alone says of text canaries: no update in between, no other run.

Under a small learning rate an adapter is where it began, plus every step's noised sum. Along the
gradient uᵢ that canary i had at the start it moved by pᵢ, which holds the canary's own C in every
step, the noise, and whatever other canaries have in common with it: K = UUᵀ. The last is by far the
largest part, and K is public, so it can be taken out. What is left shows the noise's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dpacc.audit.verdict import Scores
from dpacc.errors import ConfigurationError
from dpacc.layers.adapters import trainable_layers
from dpacc.layers.gradient_buffer import GradientBuffer, KeptGradients
from dpacc.losses.per_example import causal_lm_losses
from dpacc.recipe.evaluation import in_batches, losses_of_texts

SOUGHT = 2.0
"""How many times the claimed leak is looked for: half the noise leaks twice as much."""

Matrix = npt.NDArray[np.float64]
Reading = Literal["weights", "losses", "fall"]


class CanaryGradients:
    """Canaries' gradients at the start of a run, along which its last adapter is read.

    Make it after `engine.prepare` and before the first step.

    Args:
        model: with fresh adapters, as `prepare` returned it.
        texts: [m] canaries, each with all that it would teach, whether it is in the data or not.
        collate: pads a list of them.
        max_tokens: padded tokens of one pass.

    Raises:
        ConfigurationError: a canary has no gradient, or one that is not finite.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        texts: Sequence[dict[str, Any]],
        collate: Callable[[list[Any]], dict[str, Tensor]],
        max_tokens: int = 2048,
    ) -> None:
        self._model = model
        self._losses = partial(
            losses_of_texts, model=model, examples=texts, collate=collate, max_tokens=max_tokens
        )
        self._start = _weights(model)
        self._losses_at_start = self._losses()
        batches = in_batches(model, texts, collate, max_tokens)
        gradients = _gradients(model, batches, canaries=len(texts), width=len(self._start))
        self._moving = gradients.any(dim=0)
        self._directions = gradients[:, self._moving]
        norms = self._directions.norm(dim=1, keepdim=True)
        if not (norms.isfinite() & (norms > 0)).all():
            raise ConfigurationError(
                "a canary teaches these adapters nothing: its gradient is zero or not finite; use "
                "lora_method=lora on a base in float32, or longer canaries"
            )
        self._directions /= norms
        self._norms = norms.squeeze(1).double().cpu().numpy()
        self._overlaps = (self._directions @ self._directions.T).double().cpu().numpy()

    def scores(self, *, read: Reading, mu: float) -> Scores:
        """[m], the higher the more a canary looks as if it had been in.

        Args:
            read: `weights`, from how far the adapter moved along each canary's gradient; `losses`,
                from how far losses fell, which to first order is pᵢ times the gradient's norm;
                `fall`, that fall as it is, with all that canaries have in common.
            mu: how large a leak is looked for, as `presence` takes it: `SOUGHT` times the claim's.
        """
        if read == "fall":
            return self._fall()
        along = self._moved() if read == "weights" else self._fall() / self._norms
        return presence(along=along, overlaps=self._overlaps, mu=mu)

    def _moved(self) -> Scores:
        """p: how far the adapter moved along each canary's gradient, downhill."""
        moved = (self._start - _weights(self._model))[self._moving]
        along: Scores = (self._directions @ moved).double().cpu().numpy()
        return along

    def _fall(self) -> Scores:
        return self._losses_at_start - self._losses()


def presence(*, along: Scores, overlaps: Matrix, mu: float) -> Scores:
    """What linear estimation makes of each canary's coin, up to a common scale.

    With coins c = ½ + e, e = ±½, and K = UUᵀ, the adapter moved by p = a·Kc + s·N(0, K) along the
    canaries, and of estimates linear in p the best has

    ``ê = (K + λI)⁻¹ (p − b·K1)``, ``λ = 4 s²/a² = 4/μ²``, b such that ``Σ ê = 0``.

    It knows no coin: whatever λ is, scores are a function of the adapter and of public canaries.

    Args:
        along: p, [m].
        overlaps: K, [m, m], products of the canaries' unit gradients.
        mu: how many standard deviations of noise a canary adds in all.

    Source: the linear detector of least mean square error, Verdú, Multiuser Detection (1998),
    chapter 6; as a prior for DP-SGD the white-box scores of Nasr et al. 2023 (arXiv 2302.07956).

    >>> presence(along=np.array([1.0, 0.0, 0.0]), overlaps=np.eye(3), mu=2.0).round(3).tolist()
    [0.333, -0.167, -0.167]
    """
    blurred = overlaps + 4 / mu**2 * np.eye(len(overlaps))
    each, all_in = np.linalg.solve(blurred, np.stack([along, overlaps.sum(axis=1)], axis=1)).T
    found: Scores = each - each.sum() / all_in.sum() * all_in
    return found


def _weights(model: nn.Module) -> Tensor:
    """All that is trained, flat, in the order of the gradient buffer."""
    parameters = {id(p): p for p in model.parameters()}
    slots = _buffer(model).layout.slots
    return torch.cat([parameters[key].detach().flatten().float() for key in slots])


def _gradients(
    model: nn.Module,
    batches: Iterator[tuple[list[int], dict[str, Tensor]]],
    *,
    canaries: int,
    width: int,
) -> Tensor:
    """[m, width]."""
    buffer, device = _buffer(model), next(model.parameters()).device
    gradients = torch.zeros(canaries, width, device=device)
    for positions, batch in batches:
        kept = KeptGradients(buffer.layout, units=len(positions), device=device)
        losses = causal_lm_losses(model, batch)
        with buffer.open(examples=len(positions), sink=kept):
            torch.autograd.backward(losses.sum())
        gradients[positions] = kept.rows()
    return gradients


def _buffer(model: nn.Module) -> GradientBuffer:
    """Where the engine's layers write to."""
    for _, layer in trainable_layers(model):
        buffer = getattr(layer, "gradient_buffer", None)
        if isinstance(buffer, GradientBuffer):
            return buffer
    raise ConfigurationError(
        "the model's adapters give no gradient of each example; hand in what engine.prepare "
        "returned"
    )
