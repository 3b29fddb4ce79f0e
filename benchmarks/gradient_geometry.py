"""Coordinates in which a run of the frontier clips and noises gradients, and filters after it.

`Run.geometry` names one. Scales are made of public texts, or of what was noised before, so that
clipping in them has the plan's guarantee; what is done after the noise costs nothing. None is in
the product: `docs/frontier.md` says what each was worth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from cached_states import CachedTexts
from torch import Tensor, nn

from dpacc.layers.gradient_buffer import KeptGradients, Slot
from dpacc.step.strategies import Materialize

_DIRECTIONS = 32
_PUBLIC_STEPS, _PUBLIC_RATE = 20, 3e-3
_SMALLEST = 1e-6
"""Added to what is divided by."""


class Geometry:
    """The adapters' own coordinates; others change what they name.

    Args:
        model: with adapters, before it is prepared.
        public: texts that the base wrote itself.
    """

    def __init__(self, *, model: nn.Module, public: CachedTexts) -> None:
        self.model, self.public = model, public
        self.learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._observe()
        model.zero_grad(set_to_none=True)

    def _observe(self) -> None:
        """Look at the public texts."""

    def _before_clipping(self, name: str, rows: Tensor) -> Tensor:
        """Per-example gradients of a parameter in these coordinates, [examples, *shape]."""
        return rows

    def _after_noise(self, name: str, gradient: Tensor) -> Tensor:
        """What the optimizer gets for the noised mean in these coordinates, [*shape]."""
        return gradient

    def restore(self) -> None:
        """Undo what was done to the frozen weights."""

    @contextmanager
    def point(self) -> Iterator[None]:
        """While it lasts, the parameters are where a step's gradients are wanted."""
        self._go()
        yield
        self._return()

    def _go(self) -> None:
        """Before a step's gradients."""

    def _return(self) -> None:
        """After them, before the release."""

    def begin(self, *, engine: Any, optimizer: torch.optim.Optimizer) -> None:
        """Let a prepared engine clip and noise in these coordinates."""
        geometry = self

        class Kept(KeptGradients):
            def take(self, slot: Slot, block: Tensor) -> None:
                rows = geometry._before_clipping(slot.name, block.view(-1, *slot.shape))
                super().take(slot, rows.reshape(len(block), -1))

        device = engine.accelerator.device
        engine._strategy = Materialize(engine._buffer, engine._backward, device, keep=Kept)
        optimizer.register_step_pre_hook(self._before_update)

    @torch.no_grad()
    def _before_update(self, *_: Any) -> None:
        for name, p in self.learned.items():
            if p.grad is not None:
                p.grad = self._after_noise(name, p.grad)


# --- a diagonal before clipping (arXiv 2507.01129) ----------------------------------------


class PublicDiagonal(Geometry):
    """s = 1/√(v + mean v), v = E g² over public texts; the update is the noised mean of s·g."""

    def _observe(self) -> None:
        self.scales = scales_of(self._moments())

    def _before_clipping(self, name: str, rows: Tensor) -> Tensor:
        return rows * self.scales[name]

    def _moments(self) -> dict[str, Tensor]:
        """Where a few public steps lead: at B = 0 the gradient of A is zero."""
        begun = {name: p.detach().clone() for name, p in self.learned.items()}
        optimizer = torch.optim.Adam(self.learned.values(), lr=_PUBLIC_RATE)
        for _ in range(_PUBLIC_STEPS):
            self._backward(self.public.rows)
            optimizer.step()
        moments = {name: torch.zeros_like(p) for name, p in self.learned.items()}
        for row in self.public.rows:
            self._backward([row])
            for name, p in self.learned.items():
                assert p.grad is not None
                moments[name] += p.grad.square() / len(self.public.rows)
        with torch.no_grad():
            for name, p in self.learned.items():
                p.copy_(begun[name])
        return moments

    def _backward(self, rows: list[dict[str, Any]]) -> None:
        self.model.zero_grad(set_to_none=True)
        self.public.losses(self.model, self.public.collate(rows)).mean().backward()


def scales_of(moments: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """s ∝ 1/√(v + mean v), such that Σ s²v = Σ v."""
    total = sum(float(v.sum()) for v in moments.values())
    level = total / sum(v.numel() for v in moments.values())
    scales = {name: (v + level).rsqrt() for name, v in moments.items()}
    scaled = sum(float((s.square() * moments[name]).sum()) for name, s in scales.items())
    return {name: s * (total / scaled) ** 0.5 for name, s in scales.items()}


# --- what B·A does, whatever the factors --------------------------------------------------


class Tangent(Geometry):
    """G·Aᵀ(AAᵀ)^-½ and (BᵀB)^-½Bᵀ·G, clipped and noised, then times the same roots again.

    A step does the same to B·A whatever A and B it is the product of, noise included, as in PRISM
    (arXiv 2606.00944), whose projection and retraction are left out. No root is of zero, so it
    begins at the main singular directions of each frozen weight, which are taken off it.
    """

    def _before_clipping(self, name: str, rows: Tensor) -> Tensor:
        root = self._roots[name]
        return root @ rows if "lora_A" in name else rows @ root

    def _after_noise(self, name: str, gradient: Tensor) -> Tensor:
        return self._before_clipping(name, gradient)

    def _go(self) -> None:
        self._roots = {name: self._root(name) for name in self.learned}

    @torch.no_grad()
    def _root(self, name: str) -> Tensor:
        swapped = ("lora_A", "lora_B") if "lora_A" in name else ("lora_B", "lora_A")
        other = self.learned[name.replace(*swapped)]
        values, vectors = torch.linalg.eigh(
            other.T @ other if "lora_A" in name else other @ other.T
        )
        return (vectors * (values.clamp(min=0) + _SMALLEST).rsqrt()) @ vectors.T

    @torch.no_grad()
    def _observe(self) -> None:
        self._whole = []
        for _, layer in _adapted(self.model):
            lower, upper = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            frozen, scale = layer.base_layer.weight, layer.scaling["default"]
            self._whole.append((frozen, frozen.clone()))
            left, values, right = torch.linalg.svd(frozen, full_matrices=False)
            root = (values[: len(lower)] / scale).sqrt()
            lower.copy_(root[:, None] * right[: len(lower)])
            upper.copy_(left[:, : len(lower)] * root)
            frozen.sub_(scale * upper @ lower)

    @torch.no_grad()
    def restore(self) -> None:
        """Give each frozen weight its main directions back."""
        for frozen, whole in self._whole:
            frozen.copy_(whole)


# --- what public examples are where they enter and leave a layer --------------------------


class OutputsWhitened(Geometry):
    """B = P·B', where P makes public gradients of the layer's outputs white; B' learns."""

    def _observe(self) -> None:
        self.by = {
            f"{name}.lora_B.default.weight": whitener(gradients)
            for name, gradients in _output_gradients(self.model, self.public).items()
        }

    def _before_clipping(self, name: str, rows: Tensor) -> Tensor:
        return self.by[name] @ rows if name in self.by else rows

    def _after_noise(self, name: str, gradient: Tensor) -> Tensor:
        """P times it, such that the noise of all of B is as large as without."""
        if name not in self.by:
            return gradient
        whitens = self.by[name]
        return whitens @ gradient * (len(whitens) ** 0.5 / whitens.norm())


class InputsWhitened(Geometry):
    """A ← A·P, where P makes public inputs of the layer white; for `ffa`, whose A stays so."""

    @torch.no_grad()
    def _observe(self) -> None:
        for name, inputs in _inputs(self.model, self.public).items():
            lower = self.model.get_submodule(name).lora_A["default"].weight
            lower.copy_(self._aimed(lower, inputs))

    def _aimed(self, lower: Tensor, inputs: Tensor) -> Tensor:
        return lower @ whitener(inputs)


class MainInputs(InputsWhitened):
    """A's rows are public inputs' main directions, and as large an A·x as that of a drawn A."""

    def _aimed(self, lower: Tensor, inputs: Tensor) -> Tensor:
        _, vectors = torch.linalg.eigh((inputs.T @ inputs).double())
        main = vectors.flip(1)[:, : len(lower)].T.float()
        return main * ((inputs @ lower.T).norm() / (inputs @ main.T).norm())


def whitener(rows: Tensor, *, directions: int = _DIRECTIONS) -> Tensor:
    """P = gain·(I − U·diag(shrinkage)·Uᵀ), as in `dpacc.layers.whitening`, with E‖Px‖² = E‖x‖².

    Args:
        rows: [n, features], of which the main `directions` become as large as the next.
    """
    wide = rows.double()
    values, left = torch.linalg.eigh(wide @ wide.T)
    values, left = values.flip(0), left.flip(1)[:, :directions]
    main = wide.T @ (left / values[:directions].sqrt())
    shrinkage = 1 - (values[directions] / values[:directions]).sqrt()
    whole = torch.eye(rows.shape[1], dtype=torch.float64) - (main * shrinkage) @ main.T
    return (whole * (wide.norm() / (wide @ whole).norm())).float()


def _output_gradients(model: nn.Module, public: CachedTexts) -> dict[str, Tensor]:
    """Of each adapted layer's outputs, [tokens, out_features]."""
    found: dict[str, Tensor] = {}
    handles = [
        layer.base_layer.register_forward_hook(_keeping(found, name))
        for name, layer in _adapted(model)
    ]
    batch = public.collate(public.rows)
    public.losses(model, batch).sum().backward()
    for handle in handles:
        handle.remove()
    real = batch["attention_mask"].bool()
    return {name: gradient[real] for name, gradient in found.items()}


def _inputs(model: nn.Module, public: CachedTexts) -> dict[str, Tensor]:
    """Of each adapted layer, [tokens, in_features]."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, inputs, _output: found.update({name: inputs[0].detach()})

    handles = [
        layer.base_layer.register_forward_hook(keep(name)) for name, layer in _adapted(model)
    ]
    batch = public.collate(public.rows)
    public.losses(model, batch)
    for handle in handles:
        handle.remove()
    real = batch["attention_mask"].bool()
    return {name: inputs[real] for name, inputs in found.items()}


def _keeping(found: dict[str, Tensor], name: str) -> Callable[..., None]:
    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        whole = output if output.requires_grad else output.requires_grad_()
        whole.register_hook(lambda gradient: found.update({name: gradient.detach()}))

    return keep


def _adapted(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, layer in model.named_modules():
        if hasattr(layer, "lora_A"):
            yield name, layer


# --- a filter after the noise -------------------------------------------------------------


class Kalman(Geometry):
    """DiSK (arXiv 2410.03883) with γ = (1−κ)/κ, where one gradient a step is enough.

    It is taken at x + γ(x − x before), and filtered: (1−κ) of the last one and κ of the new.
    """

    _kappa = 0.5

    def _observe(self) -> None:
        self._before = {name: p.detach().clone() for name, p in self.learned.items()}
        self._filtered: dict[str, Tensor] = {}

    def _go(self) -> None:
        self._here = {name: p.detach().clone() for name, p in self.learned.items()}
        ahead = (1 - self._kappa) / self._kappa
        self._move({n: p + ahead * (p - self._before[n]) for n, p in self._here.items()})

    def _return(self) -> None:
        self._move(self._here)
        self._before = self._here

    def _after_noise(self, name: str, gradient: Tensor) -> Tensor:
        last = self._filtered.get(name, gradient)
        self._filtered[name] = (1 - self._kappa) * last + self._kappa * gradient
        return self._filtered[name].clone()

    @torch.no_grad()
    def _move(self, to: Mapping[str, Tensor]) -> None:
        for name, p in self.learned.items():
            p.copy_(to[name])


GEOMETRIES: dict[str, type[Geometry]] = {
    "public diagonal": PublicDiagonal,
    "tangent of the spectrum": Tangent,
    "outputs whitened": OutputsWhitened,
    "inputs whitened": InputsWhitened,
    "main inputs": MainInputs,
    "kalman": Kalman,
}
"""By name, as `Run.geometry` says it."""
