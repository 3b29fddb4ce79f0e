"""Where per-example gradients go: kept whole, or only their norms, or straight into the sum.

Every trainable parameter has a slot in a flat row. A layer's backward hands its gradients,
[examples, *shape], to a [`GradientBuffer`][dpacc.layers.gradient_buffer.GradientBuffer], which
passes one flat block a privacy unit on to a sink.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from dpacc.errors import PrivacyError
from dpacc.layers.kernels.choice import fused_on


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Where one parameter's gradient lies in a unit's flat row, and its place among all slots."""

    name: str
    index: int
    offset: int
    shape: torch.Size

    @property
    def end(self) -> int:
        """One past the last column."""
        return self.offset + self.shape.numel()


class Layout:
    """The slots of all trainable parameters, by the parameter's identity.

    Args:
        parameters: name and parameter, in the order of the columns.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.slots: dict[int, Slot] = {}
        offset = 0
        for index, (name, parameter) in enumerate(parameters.items()):
            slot = Slot(name=name, index=index, offset=offset, shape=parameter.shape)
            self.slots[id(parameter)] = slot
            offset = slot.end
        self.width = offset


class Sink(Protocol):
    """Takes one slot's gradients, [units, slot size], of one backward."""

    def take(self, slot: Slot, block: Tensor) -> None:
        """Use the block, which is the sink's own from now on."""


class GradientBuffer:
    """What every trainable layer writes to; it is open only during the engine's own backward.

    Args:
        layout: the slots.
        tokens_may_be_flattened: whether the model is known to hand some layers its tokens as
            [examples · tokens, features], example after example.

    Attributes:
        tokens_may_be_flattened: as given.
        in_half_precision: whether gradients of the last backward came in 16 bits.
        rows_at_hand: how many rows the micro-batch at hand has, 0 between two of them.
        learning: the elements that learn in this step, of slots that do not learn whole; the
            gradients of the others are zero before anything is measured.
    """

    def __init__(self, layout: Layout, *, tokens_may_be_flattened: bool = False) -> None:
        self.layout = layout
        self.tokens_may_be_flattened = tokens_may_be_flattened
        self._places: list[_Places] = []
        self._sink: Sink | None = None
        self._examples = 0
        self._sequences = 1
        self._owners: Tensor | None = None
        self._touched = False
        self.in_half_precision = False
        self.rows_at_hand = 0
        self.learning: Mapping[Slot, Tensor] = {}

    def places_of(self, layer: nn.Module) -> Tensor:
        """Where each of a layer's own parameters writes, as a tensor that `told_by` reads."""
        slots = [self.layout.slots.get(id(p)) for p in layer._parameters.values()]
        number = next(_NUMBERS)
        _PLACES[number] = places = _Places(self, slots)
        self._places.append(places)
        # A single number has no size that a compiler might take for that of a micro-batch.
        return torch.tensor(number, device="cpu")

    @staticmethod
    def told_by(places: Tensor) -> tuple[GradientBuffer, list[Slot | None]]:
        """The buffer, and the slot of each parameter that has one."""
        told = _PLACES[int(places)]
        return told.buffer, told.slots

    def expect(self, examples: int, *, sequences: int = 1) -> None:
        """Say how many examples the next forward is of, and of how many rows each.

        An example's rows stand next to each other, and its gradient is the sum over them.

        Args:
            examples: in the micro-batch.
            sequences: of each, such as the two answers of a pair.
        """
        self._sequences = sequences
        self.rows_at_hand = examples * sequences

    @contextmanager
    def open(self, *, examples: int, sink: Sink, owners: Tensor | None = None) -> Iterator[None]:
        """While it lasts, accept the gradients of a backward over `examples` examples.

        Args:
            examples: how many losses there are.
            sink: where the gradients go.
            owners: [examples], which privacy unit each example belongs to, 0 … units−1; a unit's
                gradients are averaged. By default every example is its own unit.

        Raises:
            PrivacyError: no layer wrote anything.
        """
        self._sink, self._examples, self._owners = sink, examples, owners
        self._touched = self.in_half_precision = False
        # A recomputed forward comes within the backward.
        self.rows_at_hand = examples * self._sequences
        try:
            yield
        finally:
            self._sink = None
            self.rows_at_hand = 0
        if not self._touched:
            raise PrivacyError(
                "the losses depend on no adapter; enable the adapters, and compute the losses "
                "with the model that prepare() returned"
            )

    def by_example(self, values: Tensor) -> Tensor:
        """A layer's inputs or output gradients as [examples, tokens, features].

        The tokens of all of an example's rows follow each other.
        """
        rows = values.shape[0]
        if rows == self._examples * self._sequences:
            rows = self._examples
        if self.tokens_may_be_flattened and values.ndim == 2 and rows % max(self._examples, 1) == 0:
            rows = self._examples
        return values.reshape(rows, -1, values.shape[-1])

    def write_products(self, slot: Slot, gradient: Tensor, inputs: Tensor) -> None:
        """Pass gᵢᵀxᵢ of every example on to the sink, or where kernels are fused its factors.

        Then all of a run's products are made by one kernel, whatever becomes of them: what a second
        pass adds must be what the first one measured.

        Args:
            slot: of the weight.
            gradient: g, of the layer's output.
            inputs: x, of the layer.
        """
        if not fused_on(gradient.device):
            self.write(slot, self.products(gradient, inputs))
            return
        from dpacc.layers.kernels.outer_products import products

        gradients = self.by_example(gradient)
        factors = (gradients, self.by_example(inputs.to(gradient.dtype)))
        plain = self._owners is None and slot not in self.learning
        if plain and isinstance(self._sink, KeptGradients | SquaredNorms | ScaledSum):
            self._admit(slot, gradients)
            self._sink.take_factors(slot, *factors)
        else:
            self.write(slot, products(*factors)[0])
            self.in_half_precision |= gradient.dtype != torch.float32

    def products(self, gradient: Tensor, inputs: Tensor) -> Tensor:
        """gᵢᵀxᵢ of every example, [examples, out_features, in_features], in g's dtype."""
        tokens = self.by_example(gradient)
        return torch.bmm(tokens.transpose(1, 2), self.by_example(inputs.to(gradient.dtype)))

    def write(self, slot: Slot, gradient: Tensor) -> None:
        """Pass one layer's gradients, [examples, *slot.shape], on to the sink."""
        sink = self._admit(slot, gradient)
        if slot in self.learning:
            gradient = torch.where(self.learning[slot], gradient.view(-1, *slot.shape), 0.0)
        block = gradient.reshape(self._examples, -1)
        sink.take(slot, block if self._owners is None else _averages(block, self._owners))

    def _admit(self, slot: Slot, gradient: Tensor) -> Sink:
        """The sink, for one layer's gradients of every example."""
        if self._sink is None:
            raise PrivacyError(
                f"a backward reached {slot.name} outside step.backward(losses); call it instead of "
                "losses.backward (in a plain loop: the backward of model(**batch).loss; your own "
                "criterion is given to make_private as losses=)"
            )
        if gradient.shape[0] == 1 < self._examples:
            raise PrivacyError(
                f"{slot.name} reads one input for all examples, as relative positions are, so its "
                "gradient cannot be told apart by example; leave its layer out of target_modules "
                "(in DeBERTa-v2 take value_proj and dense), or freeze it"
            )
        if gradient.shape[0] != self._examples:
            raise PrivacyError(
                f"{slot.name} saw inputs whose first dimension is {gradient.shape[0]} while there "
                f"are {self._examples} losses; freeze it, or give it inputs [examples, ...]"
            )
        self._touched = True
        self.in_half_precision |= gradient.dtype != torch.float32
        return self._sink


@dataclass(frozen=True)
class _Places:
    """Where the parameters of one layer write."""

    buffer: GradientBuffer
    slots: list[Slot | None]


_NUMBERS = itertools.count()
_PLACES: WeakValueDictionary[int, _Places] = WeakValueDictionary()
"""Of all layers alive: an operator of a compiled block is given tensors and numbers alone."""


def _averages(block: Tensor, owners: Tensor) -> Tensor:
    """Each unit's mean over its examples, fp32 [units, n]."""
    counts = torch.bincount(owners)
    sums = torch.zeros(len(counts), block.shape[1], dtype=torch.float32, device=block.device)
    return sums.index_add_(0, owners, block.float()) / counts.unsqueeze(1)


class KeptGradients:
    """Keeps every unit's gradients, one block a slot, and measures them.

    A block comes into memory that the activations of layers above it have just left, and nothing
    is copied. A layer that is used twice in one forward writes twice, and the two add up.

    Args:
        layout: the slots.
        units: how many privacy units the backward is over.
        device: where the gradients are.

    Attributes:
        blocks: [units, slot size] fp32 of each slot; a layer that took no part has none.
        squares: [units, slots], ‖gradient‖² of exactly what is kept.
    """

    def __init__(self, layout: Layout, *, units: int, device: torch.device) -> None:
        self._layout = layout
        self.blocks: dict[Slot, Tensor] = {}
        self.squares = torch.zeros(units, len(layout.slots), device=device)

    def take(self, slot: Slot, block: Tensor) -> None:
        """Keep the block, or add it to what the same backward kept before, and measure it."""
        if slot in self.blocks:
            kept = self.blocks[slot].add_(block)
        else:
            kept = self.blocks[slot] = block.float()
        # Here and not in a second pass over all of them: the block is still in the cache.
        self.squares[:, slot.index] = kept.square().sum(dim=1)

    def take_factors(self, slot: Slot, gradients: Tensor, inputs: Tensor) -> None:
        """As `take` of gᵢᵀxᵢ, which is measured while it is made."""
        from dpacc.layers.kernels.outer_products import products

        block, squares = products(gradients, inputs)
        if slot in self.blocks:
            self.take(slot, block)
        else:
            self.blocks[slot], self.squares[:, slot.index] = block, squares

    def rows(self) -> Tensor:
        """The gradients side by side, [units, width]; zero for layers that took no part.

        The blocks are used up.
        """
        rows = self.squares.new_zeros(len(self.squares), self._layout.width)
        while self.blocks:
            slot, block = self.blocks.popitem()
            rows[:, slot.offset : slot.end] = block
        return rows


class FirstGradient:
    """Keeps the first unit's gradient, and of the others only how long they are together.

    A layer that is used twice in one forward writes twice: the two add up in the row, and of the
    others their lengths do, which is no less than the length of the sum.

    Args:
        layout: the slots.
        device: where the gradients are.

    Attributes:
        row: [width] fp32; zero for layers that took no part.
    """

    def __init__(self, layout: Layout, *, device: torch.device) -> None:
        self.row = torch.zeros(layout.width, device=device)
        self._others = torch.zeros(len(layout.slots), device=device)

    def take(self, slot: Slot, block: Tensor) -> None:
        """Copy the first row and measure the others."""
        self.row[slot.offset : slot.end] += block[0]
        self._others[slot.index] += block[1:].float().norm()

    @property
    def others(self) -> Tensor:
        """The 2-norm of all other units' gradients together, at most."""
        norm: Tensor = self._others.norm()
        return norm


class SquaredNorms:
    """Keeps only ‖gradient‖² of every unit and slot: [units, slots] fp32."""

    def __init__(self, layout: Layout, *, units: int, device: torch.device) -> None:
        self.squares = torch.zeros(units, len(layout.slots), device=device)
        self._written: set[int] = set()

    def take(self, slot: Slot, block: Tensor) -> None:
        """Measure the block.

        Raises:
            PrivacyError: the slot was written before: the norm of a sum is not known from parts.
        """
        self._write_once(slot)
        self.squares[:, slot.index] = block.float().square().sum(dim=1)

    def take_factors(self, slot: Slot, gradients: Tensor, inputs: Tensor) -> None:
        """As `take` of gᵢᵀxᵢ, which is nowhere written."""
        from dpacc.layers.kernels.outer_products import squared_norms

        self._write_once(slot)
        self.squares[:, slot.index] = squared_norms(gradients, inputs)

    def _write_once(self, slot: Slot) -> None:
        if slot.index in self._written:
            raise PrivacyError(
                f"{slot.name} is used more than once in a forward, so two passes cannot measure "
                "its gradient; choose per_example_gradients='materialize'"
            )
        self._written.add(slot.index)


class ScaledSum:
    """Adds Σ scale·gradient to a flat sum as the gradients come by, and keeps none of them.

    Args:
        total: [width] fp32, added to in place.
        scales: [units, slots] fp32; where it is zero the gradient is left out, even if NaN.

    Attributes:
        squares: [units], ‖scale·gradient‖² of what was really added.
    """

    def __init__(self, total: Tensor, *, scales: Tensor) -> None:
        self._total = total
        self._scales = scales
        self.squares = torch.zeros(len(scales), device=total.device)

    def take(self, slot: Slot, block: Tensor) -> None:
        """Add the scaled block."""
        scales = self._scales[:, slot.index : slot.index + 1]
        kept = torch.where(scales > 0, block.float(), 0.0).mul_(scales)
        self.squares += kept.square().sum(dim=1)
        self._total[slot.offset : slot.end] += kept.sum(dim=0)

    def take_factors(self, slot: Slot, gradients: Tensor, inputs: Tensor) -> None:
        """As `take` of gᵢᵀxᵢ, which is nowhere written."""
        from dpacc.layers.kernels.outer_products import add_scaled_products

        self.squares += add_scaled_products(
            self._total[slot.offset : slot.end],
            gradients,
            inputs,
            scales=self._scales[:, slot.index],
        )
