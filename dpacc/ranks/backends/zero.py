"""DeepSpeed ZeRO 1, 2 and 3: its own optimizer receives the private gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from dpacc.errors import ConfigurationError, DpaccError, PrivacyError
from dpacc.ranks.backends.cutting import refuse_bases_that_cannot_be_cut, tell_of_lost_ranks
from dpacc.ranks.backends.zero_config import settle_configuration, without_auto
from dpacc.ranks.collectives import telling_of_lost_ranks


class Zero:
    """ZeRO cuts the optimizer's state (1), its gradients (2) and the parameters (3) over ranks.

    DeepSpeed learns of gradients through hooks on the parameters. They are taken off, so that no
    unclipped gradient can reach its buffers, and micro-batches need no reduction of its own. The
    private gradient, which every rank has whole, is put where `engine.step()` reads it.
    """

    cuts_optimizer = True

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._configuration: dict[str, Any] = accelerator.deepspeed_plugin.deepspeed_config
        self._stage = settle_configuration(self._configuration)
        self.placement = f"cut by ZeRO-{self._stage} over {accelerator.num_processes} ranks"
        self._verified = False

    def place(
        self, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Give DeepSpeed the adapters, and under stage 3 the base as well."""
        self._model, self._optimizer = model, optimizer
        self._adapters = [p for p in model.parameters() if p.requires_grad]
        self._shapes = [p.shape for p in self._adapters]
        _refuse_cut_adapters(self._adapters)
        if self._stage == 3:
            self._cut(model)
        else:
            model.to(self._accelerator.device)
        owned = model if self._stage == 3 else nn.ParameterList(self._adapters)
        self._engine, _ = self._accelerator.prepare(owned, optimizer)
        _take_off_gradient_hooks(self._engine.optimizer)
        self._held = self._parameters_held()
        if self._stage == 3:
            tell_of_lost_ranks(model)
        return model, optimizer

    @telling_of_lost_ranks()
    def backward(self, loss: Tensor, keep_graph: bool = False) -> None:
        """Autograd's backward, of which DeepSpeed's optimizer learns nothing."""
        counters = self._gather_counters() if keep_graph else {}
        loss.backward(retain_graph=keep_graph)  # type: ignore[no-untyped-call]
        for module, counts in counters.items():
            vars(module).update(counts)
        if self._stage == 3 and not keep_graph:
            self._engine.optimizer.backward_epilogue()  # drops what no hook of its dropped

    @telling_of_lost_ranks()
    def update(self, parameters: Sequence[nn.Parameter], gradient: Tensor) -> None:
        """Open DeepSpeed's empty gradient buffers, fill them, and step."""
        self._engine.allreduce_gradients()  # there is nothing to reduce: no rank communicates
        pieces = torch.split(gradient, [shape.numel() for shape in self._shapes])
        for parameter, shape, piece in zip(parameters, self._shapes, pieces, strict=True):
            self._deliver(parameter, piece.view(shape))
        self._verified = True
        self._engine.step()
        if not self._engine.was_step_applied():
            raise DpaccError("DeepSpeed skipped an update; the adapters would stand still")

    def require_same_optimizer(self, model: nn.Module) -> None:
        """DeepSpeed's partitions stand in the optimizer for the adapters."""
        if self._parameters_held() != self._held:
            raise PrivacyError(
                "the optimizer's parameters changed after prepare(); add parameters first, then "
                "call prepare()"
            )

    @contextmanager
    def whole_adapters(self, *, changed: bool = False) -> Iterator[None]:
        """Gathers them under stage 3."""
        import deepspeed

        rank = 0 if changed else None
        with deepspeed.zero.GatheredParameters(
            self._adapters, modifier_rank=rank, enabled=self._stage == 3
        ):
            yield

    def optimizer_state(self) -> Any:
        """This rank's partitions of the adapters, and of what the optimizer knows of each."""
        with self._partitions_in_optimizer() as partitions:
            return {"partitions": partitions, "optimizer": self._optimizer.state_dict()}

    def restore_optimizer(self, state: Any) -> None:
        """Fill the partitions, from which DeepSpeed's next step makes the adapters."""
        from deepspeed.utils import safe_get_full_fp32_param

        with self._partitions_in_optimizer() as partitions:
            saved = state["partitions"]
            if [p.shape for p in partitions] != [p.shape for p in saved]:
                raise ConfigurationError(
                    "DeepSpeed cuts the optimizer's state otherwise than when the checkpoint was "
                    "kept; resume with the settings that the run was started with"
                )
            for partition, values in zip(partitions, saved, strict=True):
                partition.data.copy_(values)
            self._optimizer.load_state_dict(state["optimizer"])
        with self.whole_adapters():
            for adapter in self._adapters:
                if not torch.equal(safe_get_full_fp32_param(adapter), adapter.data):
                    raise ConfigurationError(
                        "the checkpoint's optimizer state is not that of its adapters; restore "
                        "the folder from a copy, or start a new run"
                    )

    @contextmanager
    def _partitions_in_optimizer(self) -> Iterator[list[Tensor]]:
        """Let the optimizer hold its partitions, which stage 3 hands it only while it steps."""
        cut = self._engine.optimizer
        by_group: list[list[Tensor]] = [[] for _ in self._optimizer.param_groups]
        if self._stage == 3:
            for index, partition in enumerate(cut.fp32_partitioned_groups_flat):
                by_group[cut.sub_group_to_group_id[index]].append(partition)
        else:
            by_group = [[partition] for partition in cut.single_partition_of_fp32_groups]
        held = [group["params"] for group in self._optimizer.param_groups]
        self._hold(by_group)
        try:
            yield [partition for partitions in by_group for partition in partitions]
        finally:
            self._hold(held)

    def _hold(self, by_group: Sequence[list[Tensor]]) -> None:
        for group, parameters in zip(self._optimizer.param_groups, by_group, strict=True):
            group["params"] = parameters

    def _gather_counters(self) -> dict[nn.Module, dict[str, int]]:
        """What stage 3 counts down in a backward, to be restored for another over the graph."""
        names = ("applied_pre_backward_ref_cnt", "ds_grads_remaining")
        return {
            module: {name: vars(module)[name] for name in names if name in vars(module)}
            for module in self._model.modules()
        }

    def _cut(self, model: nn.Module) -> None:
        """Cut each parameter as it reaches the device: never is the whole model there."""
        import deepspeed

        refuse_bases_that_cannot_be_cut(model)
        deepspeed.zero.Init(module=model, config_dict_or_path=without_auto(self._configuration))
        for buffer in model.buffers():
            buffer.data = buffer.data.to(self._accelerator.device)

    def _deliver(self, parameter: nn.Parameter, gradient: Tensor) -> None:
        from deepspeed.utils import safe_get_full_grad, safe_set_full_grad

        # Stage 3 cuts the flat gradient into equal parts without padding the last one.
        padding = self._accelerator.num_processes if self._stage == 3 else 0
        given = F.pad(gradient.flatten(), (0, padding)) if padding else gradient
        safe_set_full_grad(parameter, given)
        if self._verified:
            return
        taken = safe_get_full_grad(parameter)
        if taken is None or not torch.equal(taken.view_as(gradient), gradient):
            raise ConfigurationError(
                "this version of DeepSpeed does not take gradients as dpacc gives them; "
                "install deepspeed>=0.18"
            )

    def _parameters_held(self) -> list[int]:
        return [id(p) for group in self._optimizer.param_groups for p in group["params"]]


def _refuse_cut_adapters(adapters: Sequence[nn.Parameter]) -> None:
    if any(hasattr(p, "ds_id") for p in adapters):
        raise ConfigurationError(
            "the adapters were cut by deepspeed.zero.Init before prepare(), which needs them "
            "whole; add them outside of it"
        )


def _take_off_gradient_hooks(optimizer: Any) -> None:
    """Stop DeepSpeed from watching the parameters' gradients.

    Raises:
        ConfigurationError: the hooks are not where they were known to be.
    """
    hooks = getattr(optimizer, "_grad_acc_hooks", None)
    if hooks is None:
        raise ConfigurationError(
            "this version of DeepSpeed watches gradients in an unknown way; install "
            "deepspeed>=0.18, or launch with launch_configs/ddp.yaml"
        )
    for hook in hooks:
        hook.remove()
    hooks.clear()
