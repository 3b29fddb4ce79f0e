"""Canaries in gradient space: examples whose clipped gradient is C times one coordinate.

A LoRA factor is a linear layer y = Wx. The loss s·y_b at x = e_a has the gradient s·e_b·e_aᵀ: a
single element of W, whose norm s the clip brings down to C. Canaries on different elements are
orthogonal, nothing else in the step depends on them, and what the optimizer is given shows each
one beside the noise of its own element. They go through the user's loop and loss, and through all
of the engine, like any other example.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dpacc.audit.verdict import Coins, Scores
from dpacc.errors import ConfigurationError
from dpacc.layers.adapters import trainable_layers
from dpacc.plan import PrivacyPlan
from dpacc.step.logical_step import Collate

Losses = Callable[[nn.Module, Any], Tensor]

_LOUDNESS = 1e4
_NOBODY = -1
_INDEX, _WEIGHT = "canary", "canary_weight"


class Places(NamedTuple):
    """The canaries on one layer: which they are, and the row and column of each one's element."""

    layer: nn.Linear
    canaries: Tensor
    rows: Tensor
    columns: Tensor


class DiracCanaries:
    """m canaries on m different elements of a model's trainable linear layers.

    Build it before `engine.prepare`, then train with `examples` among the data, the wrapped
    `collate` and `losses`, and read `scores` when done.

    Args:
        model: with its LoRA adapters.
        optimizer: of those adapters; what it is given in each step is added up.
        canaries: m.
        loudness: s, the gradient's norm before the clip; far above C.
        seed: chooses the elements.

    Raises:
        ConfigurationError: fewer elements than canaries.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        canaries: int,
        loudness: float = _LOUDNESS,
        seed: int = 0,
    ) -> None:
        self._loudness = loudness
        self._weights = torch.ones(1, 1, dtype=torch.float64)
        self._groups = torch.zeros(canaries, dtype=torch.long)
        self._steps = 0
        self._places = _choose_elements(model, canaries, seed)
        self._received = torch.zeros(canaries, dtype=torch.float64)
        self._nested = 0
        optimizer.register_step_pre_hook(self._observe)
        optimizer.register_step_post_hook(self._leave)

    def weigh(self, *, weights: npt.NDArray[np.float64], groups: npt.NDArray[np.intp]) -> None:
        """Count what is given in each step by weights of each canary's group; call it before.

        Args:
            weights: [groups, steps].
            groups: [m], each canary's.
        """
        self._weights, self._groups = torch.from_numpy(weights), torch.from_numpy(groups)

    def examples(
        self, *, included: Coins, like: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """One example a canary; one that is left out stays, with loss zero, so that N is the same.

        Args:
            included: [m], who is in.
            like: an example whose other fields canaries get too, invented for the purpose.
        """
        return [
            {**(like or {}), _INDEX: index, _WEIGHT: float(present)}
            for index, present in enumerate(included.tolist())
        ]

    def beside(self, dataset: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Ordinary examples, marked as such."""
        return [{**example, _INDEX: _NOBODY, _WEIGHT: 0.0} for example in dataset]

    def collate(self, collate: Collate | None = None) -> Collate:
        """A collate function that also carries who is which canary."""

        def with_canaries(examples: list[Any]) -> dict[str, Any]:
            ordinary = [
                {key: value for key, value in each.items() if key not in (_INDEX, _WEIGHT)}
                for each in examples
            ]
            return {
                "examples": None if collate is None else collate(ordinary),
                _INDEX: torch.tensor([each[_INDEX] for each in examples]),
                _WEIGHT: torch.tensor([each[_WEIGHT] for each in examples]),
            }

        return with_canaries

    def losses(self, losses: Losses | None = None) -> Losses:
        """Per-example losses: the canaries' own, and for all others what `losses` gives."""

        def with_canaries(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
            own = self._own_losses(batch[_INDEX], batch[_WEIGHT])
            if losses is None:
                return own
            ordinary = losses(model, batch["examples"])
            return torch.where(batch[_INDEX] == _NOBODY, ordinary, own)

        return with_canaries

    def scores(self, *, expected_batch_size: int, max_grad_norm: float) -> Scores:
        """[m], the weighted Σ over steps of the noised sum at each canary's element, over C."""
        return (self._received * expected_batch_size / max_grad_norm).numpy().copy()

    def _own_losses(self, indices: Tensor, weights: Tensor) -> Tensor:
        """s·weight·(W e_a)_b for each canary; zero for other examples."""
        total = torch.zeros(len(indices), device=indices.device)
        for places in self._places:
            at = torch.isin(indices, places.canaries.to(indices.device)).nonzero().flatten()
            if len(at):
                which = torch.searchsorted(places.canaries, indices[at].cpu())
                total = total + _elements(places, at, which, examples=len(indices))
        return total * weights * self._loudness

    def _observe(self, *_: Any) -> None:
        """Add what the optimizer is about to step with.

        Torch calls this anew where an optimizer's `step` calls that of the class it extends.
        """
        self._nested += 1
        if self._nested > 1:
            return
        weights = self._weights[:, min(self._steps, self._weights.shape[1] - 1)][self._groups]
        self._steps += 1
        for places in self._places:
            gradient = places.layer.weight.grad
            if gradient is not None:
                elements = gradient.detach().cpu()[places.rows, places.columns]
                self._received[places.canaries] += weights[places.canaries] * elements.double()

    def _leave(self, *_: Any) -> None:
        self._nested -= 1


def turn_weights(*, plan: PrivacyPlan) -> npt.NDArray[np.float64]:
    """[groups, steps]: the weights under which noise hides a canary of each group least.

    What is released is G + C⁻¹z, and C times it is C·G in independent noise; so it is looked for
    along C's columns of the group's turns: 1ᵀCᵀC, 1 being the group's steps. ε holds against
    whoever knows the groups. Of allocated units nobody knows the steps: all steps are summed.

    Raises:
        ConfigurationError: the plan has several phases, whose steps would weigh differently.

    >>> plan = PrivacyPlan(dataset_size=100, expected_batch_size=10, steps=3, noise_multiplier=1.0,
    ...                    max_grad_norm=1.0, target_delta=1e-3)
    >>> turn_weights(plan=plan).tolist()
    [[1.0, 1.0, 1.0]]
    """
    if plan.phases:
        raise ConfigurationError(
            f"a plan of {len(plan.phases)} phases is not audited as a whole; audit the plan of "
            "each phase, plan.at(step)"
        )
    taken = (np.arange(plan.steps) % plan.bands == np.arange(plan.bands)[:, None]).astype(float)
    column = np.array(plan.noise_coefficients)
    images = [np.convolve(row, column)[: plan.steps] for row in taken]
    return np.array([np.convolve(row[::-1], column)[: plan.steps][::-1] for row in images])


def _elements(places: Places, at: Tensor, which: Tensor, *, examples: int) -> Tensor:
    """(W e_a)_b for the examples at `at`, which are the layer's canaries `which`; else zero."""
    layer = places.layer
    device = layer.weight.device
    inputs = torch.zeros(examples, 1, layer.in_features, device=device)
    inputs[at, 0, places.columns[which].to(device)] = 1.0
    chosen = torch.zeros(examples, layer.out_features, device=device)
    chosen[at, places.rows[which].to(device)] = 1.0
    outputs: Tensor = layer(inputs).squeeze(1)
    return (outputs * chosen).sum(dim=1)


def _choose_elements(model: nn.Module, canaries: int, seed: int) -> list[Places]:
    layers = [
        layer
        for _, layer in trainable_layers(model)
        if isinstance(layer, nn.Linear) and layer.weight.requires_grad
    ]
    ends = np.cumsum([layer.weight.numel() for layer in layers])
    available = int(ends[-1]) if layers else 0
    if canaries > available:
        raise ConfigurationError(
            f"{canaries} canaries need as many elements of trainable linear layers, and there are "
            f"{available}; use fewer canaries, or a higher LoRA rank"
        )
    chosen = np.random.default_rng(seed).choice(available, size=canaries, replace=False)
    homes = np.searchsorted(ends, chosen, side="right")
    places = []
    for at, layer in enumerate(layers):
        mine = np.flatnonzero(homes == at)
        rows, columns = np.divmod(chosen[mine] - ends[at] + layer.weight.numel(), layer.in_features)
        places.append(Places(layer, *map(torch.from_numpy, (mine, rows, columns))))
    return places
