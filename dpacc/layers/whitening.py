"""LoRA that learns A alone, in coordinates in which public inputs are white.

A transformer's states have a few directions, and one above all, that hardly depend on the text.
Every example's gradient points along them, so clipping spends its bound on what all examples have
in common, noise is measured by it, and a step that those directions bear moves no other. Here A
sees P·x instead of x, where P makes public inputs equally large along all their main directions;
with B fixed and orthonormal the update s·B·(A·P)·x is linear in what is learned, and noise on A
never meets noise on B. What P does to the gradient happens before it is clipped, so the guarantee
does not depend on P. But P is made without noise, and what is saved is A·P: whoever stands in the
public inputs is in the released weights, which the ledger says, and none of them may be private.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dpacc.errors import ConfigurationError
from dpacc.layers.fused_lora import owned
from dpacc.layers.gradient_buffer import GradientBuffer
from dpacc.layers.operators import layer_operator

DIRECTIONS = 32
MOST_ROWS = 1024
_REACHED = 1e-10
"""Of the main direction's second moment; what is below it is public inputs' rounding."""


@dataclass(frozen=True)
class WhitenedBy:
    """What a layer's P was computed from.

    Attributes:
        source: what the examples are called, in ledger and statement.
        examples: those that were shown to the model.
    """

    source: str
    examples: tuple[Any, ...]


class WhitenedLinear(nn.Linear):
    """A LoRA layer's A, y = A·P·x, where P = gain·(I − U·diag(shrinkage)·Uᵀ).

    `weight` is A·P: what PEFT reads, merges and saves is an ordinary adapter's.

    Attributes:
        coordinates: A, [rank, in_features]; what is trained.
        directions: U, [in_features, k], orthonormal.
        shrinkage: [k], in [0, 1).
        gain: []; E‖P·x‖² is in_features.
        whitened_by: what P was computed from; None while it is the identity.
    """

    coordinates: nn.Parameter
    directions: Tensor
    shrinkage: Tensor
    gain: Tensor
    gradient_buffer: GradientBuffer | None = None
    places: Tensor
    whitened_by: WhitenedBy | None = None

    @classmethod
    def adopt(cls, layer: nn.Linear) -> None:
        """Turn a linear layer without bias into one whose P is the identity."""
        layer.__class__ = cls
        width, device = layer.in_features, layer.weight.device
        layer.coordinates = layer._parameters.pop("weight")  # type: ignore[assignment]
        for name, value in {
            "directions": torch.zeros(width, 0, device=device),
            "shrinkage": torch.zeros(0, device=device),
            "gain": torch.ones((), device=device),
        }.items():
            layer.register_buffer(name, value, persistent=False)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """A·P, [rank, in_features]."""
        return self.mapped(self.coordinates)

    def mapped(self, rows: Tensor) -> Tensor:
        """Each row times P, [..., in_features]."""
        return _mapped(rows, self.directions, self.shrinkage, self.gain)

    def whiten(self, inputs: Tensor, *, directions: int = DIRECTIONS) -> None:
        """Choose P so that the main directions of `inputs` weigh as much as the one after them.

        With λ₁ ≥ λ₂ ≥ … the second moments along their principal directions, not centred, the
        first k are scaled by √(λ_{k+1}/λⱼ).

        Args:
            inputs: [n, in_features], public.
            directions: k, fewer where `inputs` has fewer.
        """
        rows = inputs.to(self.directions)
        k = min(directions, *(side - 1 for side in rows.shape))
        # Few numbers of a public matrix: in fp64 every rank finds the same.
        wide = rows.double()
        squares, left = torch.linalg.eigh(wide @ wide.T)
        squares = squares.flip(0)
        # Tokens that repeat reach fewer directions; down to nothing none of them is scaled.
        k = max(0, min(k, int((squares > _REACHED * squares[0]).sum()) - 1))
        left = left.flip(1)[:, :k]
        floor = squares[k]
        main = wide.T @ (left / squares[:k].sqrt())
        self.directions = main.to(self.directions).contiguous()
        self.shrinkage = (1 - (floor / squares[:k]).sqrt()).clamp(min=0).to(self.shrinkage)
        self.gain = torch.ones_like(self.gain)
        size = self.mapped(rows).square().sum(dim=1).mean()
        self.gain = (self.in_features / size).sqrt()

    def forward(self, input: Tensor) -> Tensor:
        """A·P·x, [..., rank]."""
        if self.gradient_buffer is None:
            return F.linear(input, self.weight.to(input.dtype))
        projection = (self.directions, self.shrinkage, self.gain)
        return _per_example_whitened(input, self.coordinates, *projection, self.places)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}weight"] = self.weight if keep_vars else self.weight.detach()

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any
    ) -> None:
        strict, missing = arguments[1], arguments[2]
        saved = state_dict.get(f"{prefix}weight")
        if saved is None:
            if strict:
                missing.append(f"{prefix}weight")
            return
        with torch.no_grad():
            self.coordinates.copy_(self._unmapped(saved.to(self.coordinates)))

    def _unmapped(self, rows: Tensor) -> Tensor:
        """Each row times P⁻¹ = (I + U·diag(shrinkage/(1 − shrinkage))·Uᵀ)/gain."""
        stretch = self.shrinkage / (1 - self.shrinkage)
        return (rows + ((rows @ self.directions) * stretch) @ self.directions.T) / self.gain


def _mapped(rows: Tensor, directions: Tensor, shrinkage: Tensor, gain: Tensor) -> Tensor:
    return gain * (rows - ((rows @ directions) * shrinkage) @ directions.T)


def _forward(
    input: Tensor,
    coordinates: Tensor,
    directions: Tensor,
    shrinkage: Tensor,
    gain: Tensor,
    places: Tensor,
) -> tuple[Tensor, Tensor]:
    weight = _mapped(coordinates, directions, shrinkage, gain)
    return owned(F.linear(input, weight.to(input.dtype))), weight


def _backward(
    gradient: Tensor,
    wanted: bool,
    input: Tensor,
    coordinates: Tensor,
    directions: Tensor,
    shrinkage: Tensor,
    gain: Tensor,
    places: Tensor,
    weight: Tensor,
) -> Tensor:
    buffer, slots = GradientBuffer.told_by(places)
    if slots[-1] is not None:
        products = buffer.products(gradient, input).float()
        buffer.write(slots[-1], _mapped(products, directions, shrinkage, gain))
    if not wanted:
        return input.new_empty(0)
    return (gradient @ weight.to(gradient.dtype)).to(input.dtype)


def _shapes(input: Tensor, coordinates: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    output = input.new_empty(*input.shape[:-1], len(coordinates))
    return output, torch.empty_like(coordinates)


_per_example_whitened = layer_operator(
    name="per_example_whitened", forward=_forward, backward=_backward, shapes=_shapes
)


def fix_upper(model: nn.Module, *, seed: int) -> None:
    """Make every LoRA layer's B orthonormal and fixed, and its A a zero `WhitenedLinear`."""
    generator = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        for adapter, lower in dict(getattr(layer, "lora_A", {})).items():
            upper: Any = layer.lora_B[adapter]  # type: ignore[index]
            upper.weight.requires_grad_(False)
            with torch.no_grad():
                upper.weight.copy_(_orthonormal(upper.weight, generator))
                lower.weight.zero_()
            WhitenedLinear.adopt(lower)


def _orthonormal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Random orthonormal columns, or rows where there are fewer, of the shape of `like`."""
    if like.is_meta:
        return like
    rows, columns = like.shape
    drawn = torch.randn(max(rows, columns), min(rows, columns), generator=generator)
    orthonormal: Tensor = torch.linalg.qr(drawn).Q
    return orthonormal if rows >= columns else orthonormal.T


@torch.no_grad()
def whiten(
    *,
    model: nn.Module,
    public_examples: Sequence[Any],
    collate: Callable[[list[Any]], Mapping[str, Tensor]],
    directions: int = DIRECTIONS,
    source: str = "the public examples given to whiten()",
) -> int:
    """Show public examples to the model, one by one, and whiten each adapter's inputs; how many.

    Their second moments end, without noise, in the weights that are saved: the engine writes that
    into the ledger, and refuses private examples among them.

    Args:
        model: with adapters of `add_lora(method="whitened")`.
        public_examples: examples that nobody needs to be protected from.
        collate: makes a batch of a list of examples.
        directions: how many of the main directions are made equal.
        source: what the examples are called, in ledger and statement.

    Raises:
        ConfigurationError: there are no public examples, or no such adapters.
    """
    layers = [m for m in model.modules() if isinstance(m, WhitenedLinear)]
    if not layers or not public_examples:
        raise ConfigurationError(
            "whitening needs public examples (held_out_data) and adapters with lora_method=whitened"
        )
    seen: dict[WhitenedLinear, list[Tensor]] = {layer: [] for layer in layers}
    handles = [layer.register_forward_pre_hook(_keeping(seen[layer])) for layer in layers]
    was_training = model.training
    model.eval()
    shown = []
    for example in _enough(public_examples, seen[layers[0]]):
        model(**_inputs_of(collate([example]), model))
        shown.append(example)
    model.train(was_training)
    for handle in handles:
        handle.remove()
    whitened_by = WhitenedBy(source=source, examples=tuple(shown))
    for layer in layers:
        layer.whiten(torch.cat(seen[layer])[:MOST_ROWS], directions=directions)
        layer.whitened_by = whitened_by
    return len(layers)


def _keeping(rows: list[Tensor]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def keep(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        if sum(map(len, rows)) < MOST_ROWS:
            rows.append(inputs[0].detach().flatten(0, -2))

    return keep


def _enough(examples: Iterable[Any], rows: list[Tensor]) -> Iterable[Any]:
    """Examples until the first layer has seen as many inputs as are kept."""
    for example in examples:
        if sum(map(len, rows)) >= MOST_ROWS:
            return
        yield example


def _inputs_of(batch: Mapping[str, Tensor], model: nn.Module) -> dict[str, Any]:
    device = next(model.parameters()).device
    inputs = {name: value.to(device) for name, value in batch.items() if name != "labels"}
    return inputs | {"use_cache": False}
