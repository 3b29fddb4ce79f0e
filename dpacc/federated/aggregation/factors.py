"""The places in a model where LoRA's factors stand, and what of a base a correction may change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from dpacc.errors import ConfigurationError
from dpacc.federated.updates.layout import Arrays
from dpacc.recipe.pretrained import quiet_loading

with quiet_loading():  # PEFT imports bitsandbytes, which advertises a kernel
    from peft.tuners.lora import LoraLayer

CORRECTION = "correction/"
"""How the names of arrays begin that are added to a base's weights."""

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Factors:
    """One adapted layer: its weight becomes W + s·B·A.

    Args:
        name: the layer's.
        lower: the name of A, [rank, inputs].
        upper: the name of B, [outputs, rank].
        scale: s.
        outputs: how many.
        inputs: how many.
    """

    name: str
    lower: str
    upper: str
    scale: float
    outputs: int
    inputs: int

    @property
    def correction(self) -> str:
        """The name of what is added to W."""
        return CORRECTION + self.name

    def product(self, arrays: Mapping[str, npt.NDArray[np.float32]]) -> Matrix:
        """s·B·A in float64, [outputs, inputs]."""
        upper = arrays[self.upper].astype(np.float64)
        return self.scale * (upper @ arrays[self.lower].astype(np.float64))


def factors_of(model: nn.Module) -> tuple[Factors, ...]:
    """Every layer that PEFT adapted with LoRA, in the model's order."""
    found = []
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer) and len(layer.lora_A):
            (adapter,) = layer.lora_A
            found.append(
                Factors(
                    name=name,
                    lower=f"{name}.lora_A.{adapter}.weight",
                    upper=f"{name}.lora_B.{adapter}.weight",
                    scale=float(layer.scaling[adapter]),
                    outputs=layer.lora_B[adapter].weight.shape[0],
                    inputs=layer.lora_A[adapter].weight.shape[1],
                )
            )
    return tuple(found)


def no_corrections(model: nn.Module) -> Arrays:
    """A zero correction for each adapted layer.

    Raises:
        ConfigurationError: the base cannot hold one exactly.
    """
    _require_float_base(model)
    return {
        each.correction: np.zeros((each.outputs, each.inputs), np.float32)
        for each in factors_of(model)
    }


class CorrectedBase:
    """Adds corrections to a model's frozen weights, always to what they were at first."""

    def __init__(self, model: nn.Module) -> None:
        self._weights = {
            CORRECTION + name: layer.get_base_layer().weight
            for name, layer in model.named_modules()
            if isinstance(layer, LoraLayer)
        }
        self._turned = {
            CORRECTION + name: bool(getattr(layer, "fan_in_fan_out", False))
            for name, layer in model.named_modules()
            if isinstance(layer, LoraLayer)
        }
        self._first: dict[str, torch.Tensor] = {}

    def apply(self, arrays: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """W ← W₀ + correction, for each correction among `arrays`."""
        with torch.no_grad():
            for name, values in arrays.items():
                if not name.startswith(CORRECTION):
                    continue
                weight = self._weights[name]
                first = self._first.setdefault(name, weight.detach().clone())
                change = torch.from_numpy(values).to(first.device)
                weight.copy_(first + (change.T if self._turned[name] else change))


def _require_float_base(model: nn.Module) -> None:
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer) and layer.get_base_layer().weight.dtype != torch.float32:
            raise ConfigurationError(
                f"{name} is stored as {layer.get_base_layer().weight.dtype}, which cannot hold the "
                "correction of an exact average; load the base in float32, or take "
                "aggregation='ffa', which needs none"
            )
