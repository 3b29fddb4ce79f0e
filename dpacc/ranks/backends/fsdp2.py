"""The frozen base cut over the ranks by torch's FSDP2, the adapters whole on each."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard

from dpacc.errors import ConfigurationError
from dpacc.ranks.backends.cutting import refuse_bases_that_cannot_be_cut, tell_of_lost_ranks
from dpacc.ranks.backends.replicated import Replicated
from dpacc.ranks.collectives import telling_of_lost_ranks


class Fsdp2(Replicated):
    """Each block of the base is gathered for its forward and backward, and cut again after.

    FSDP ignores the adapters: it never sees a gradient, and they are updated on every rank alike.

    Args:
        accelerator: the launch's Accelerator.
        mesh: the ranks to cut over; by default all of them, on the Accelerator's device.
        reshard_after_forward: whether a block is cut again between its forward and its backward,
            which saves memory and gathers it twice.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        *,
        mesh: DeviceMesh | None = None,
        reshard_after_forward: bool = True,
    ) -> None:
        super().__init__(accelerator)
        self._mesh = mesh
        self._reshard_after_forward = reshard_after_forward

    def place(
        self, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Cut every transformer block of the base, then what is left of it."""
        refuse_bases_that_cannot_be_cut(model)
        self._optimizer = optimizer
        device = self._accelerator.device
        mesh = self._mesh or init_device_mesh(device.type, (self._accelerator.num_processes,))
        adapters = {p for p in model.parameters() if p.requires_grad}
        for adapter in adapters:
            adapter.data = adapter.data.to(device)
        for module in [*_blocks(model), model]:
            fully_shard(
                module,
                mesh=mesh,
                ignored_params=adapters,
                reshard_after_forward=self._reshard_after_forward,
            )
        tell_of_lost_ranks(model)
        return model, optimizer

    @telling_of_lost_ranks()
    def backward(self, loss: Tensor, keep_graph: bool = False) -> None:
        """Autograd's backward, which gathers the base once more."""
        super().backward(loss, keep_graph)


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The transformer blocks, by the class names that the model gives."""
    names = set(getattr(model, "_no_split_modules", None) or ())
    blocks = [module for module in model.modules() if type(module).__name__ in names]
    if not blocks:
        raise ConfigurationError(
            f"{type(model).__name__} does not name its transformer blocks in _no_split_modules, "
            "so FSDP does not know where to cut; set it, or launch with DeepSpeed ZeRO-3"
        )
    return blocks
