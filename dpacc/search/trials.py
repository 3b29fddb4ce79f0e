"""Private runs one after the other on one base and one set of examples, an adapter each."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dpacc.errors import ConfigurationError
from dpacc.layers.blocks import first_trained_block
from dpacc.layers.frozen_activations import FrozenActivations
from dpacc.layers.whitening import whiten
from dpacc.plan import PrivacyPlan
from dpacc.ranks.collectives import join_ranks
from dpacc.recipe.assembly import (
    adapters_for,
    base_for,
    plan_for,
    rates_for,
    scheduler_for,
)
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.objective import losses_for, probe_examples_for
from dpacc.recipe.optimizers import optimizer_for
from dpacc.recipe.predictions import held_out_figures
from dpacc.recipe.training_data import read_training_data
from dpacc.step.averaging import average_of, share_for
from dpacc.step.engine import PrivacyEngine

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

Adapter = dict[str, Tensor]


class Bench:
    """The base and the data, read once.

    Args:
        config: model, data and task, which all trials share.
        data_is_public: whether the examples to learn from need no protection.

    Raises:
        ConfigurationError: one of them cannot be read, private examples are held out as well, or
            there are several ranks.
    """

    def __init__(self, config: TrainingConfig, *, data_is_public: bool = False) -> None:
        self._accelerator = join_ranks()
        if self._accelerator.num_processes > 1:
            raise ConfigurationError("trials run in one process; launch this without ranks")
        data = read_training_data(config=config, data_is_public=data_is_public)
        self.tokenizer, self._collate = data.tokenizer, data.collate
        self._private, self._held_out = data.private, data.held_out
        self._base, _ = base_for(config=config, device=self._accelerator.device)
        self._losses_of = losses_for(config=config, model=self._base, tokenizer=self.tokenizer)
        self._frozen: FrozenActivations | None = None
        self._model: PeftModel | None = None

    def require_adapters(self, configs: Sequence[TrainingConfig]) -> None:
        """See that every trial can have its adapter; nothing is trained, or read of the examples.

        Args:
            configs: all that may be run.

        Raises:
            ConfigurationError: an adapter that the base cannot have, or activations to be kept
                beneath different layers.
        """
        beneath = set()
        for config in configs:
            model = self._freshly_adapted(config)
            if config.cache_frozen_activations:
                beneath.add(first_trained_block(model))
        if len(beneath) > 1:
            raise ConfigurationError(
                "cache_frozen_activations keeps what one layer is given, and these trials begin to "
                f"learn in layers {', '.join(map(str, sorted(beneath)))}: leave it out, or run a "
                "sweep for each"
            )

    def plan_of(self, *, config: TrainingConfig) -> PrivacyPlan:
        """The plan of one run, with just enough noise for its own ε."""
        return plan_for(config=config, dataset_size=len(self._private))

    def run(self, *, config: TrainingConfig, plan: PrivacyPlan) -> tuple[dict[str, float], Adapter]:
        """Train a fresh adapter under `plan`; its figures on held-out data, and its weights.

        The run's ledger ends with it: who releases anything of it charges that beforehand.

        Args:
            config: how to train.
            plan: what one run releases.
        """
        model = self.adapted(config=config)
        learned = [p for p in model.parameters() if p.requires_grad]
        _, rate = rates_for(model, config=config, plan=plan)
        optimizer = optimizer_for(learned, config=config, rate=rate)
        share = share_for(config.average_iterates, accelerator=self._accelerator)
        average = average_of(
            optimizer, steps=plan.steps, share=share, accelerator=self._accelerator
        )
        schedule = scheduler_for(
            config=config, optimizer=optimizer, steps=plan.steps, holds=share > 0
        )
        with tempfile.TemporaryDirectory() as folder:
            engine = PrivacyEngine(
                self._accelerator,
                plan,
                ledger=Path(folder) / "ledger.jsonl",
                micro_batch_tokens=config.micro_batch_tokens,
                per_example_gradients=config.per_example_gradients,
                kernels=config.kernels,
                compile=config.compile,
                dynamic_rank=config.dynamic_rank,
                subspace_rank=config.subspace_rank,
            )
            prepared, optimizer = engine.prepare(model, optimizer, schedule)
            examples, collate = self._examples_for(prepared, config)
            prepared.train()
            invented = probe_examples_for(config=config, model=self._base, like=examples[0])
            for step in engine.steps(examples, collate, probe_examples=invented):
                for batch in step:
                    step.backward(self._losses_of(prepared, batch))
                step.update()
                schedule.step()
            engine.close()
        if average is not None:
            average.put_in_place()
        figures = held_out_figures(
            config=config,
            model=prepared,
            tokenizer=self.tokenizer,
            examples=self._held_out,
            collate=self._collate,
        )
        return figures, _saved(model)

    def adapted(self, *, config: TrainingConfig, adapter: Adapter | None = None) -> PeftModel:
        """The base with a fresh adapter, or with the weights of one; the last one is taken off.

        A fresh whitened adapter is whitened with the held-out examples, which are public.

        Args:
            config: what kind of adapter.
            adapter: what `run` returned.

        Raises:
            ConfigurationError: the base cannot have such an adapter.
        """
        model = self._freshly_adapted(config)
        if adapter is not None:
            _load(model, adapter)
        elif config.lora_method == "whitened":
            whiten(
                model=model,
                public_examples=self._held_out,
                collate=self._collate,
                source="the held-out data",
            )
        return model

    def _freshly_adapted(self, config: TrainingConfig) -> PeftModel:
        if self._model is not None:
            self._base = _taken_off(self._model)
            self._model = None
        base = self._base
        base.requires_grad_(False)
        self._model = adapters_for(config=config, base=base)
        return self._model

    def _examples_for(self, model: torch.nn.Module, config: TrainingConfig) -> tuple[Any, Any]:
        """The private examples; with activations that are kept from trial to trial if they may."""
        if not config.cache_frozen_activations:
            return self._private, self._collate
        if self._frozen is None:
            with tempfile.TemporaryDirectory() as folder:
                self._frozen = FrozenActivations(
                    model=model,
                    examples=self._private,
                    collate=self._collate,
                    accelerator=self._accelerator,
                    folder=Path(folder),
                )
        else:
            self._frozen.move_to(model)
        return self._frozen.examples, self._frozen.collate


def _saved(model: PeftModel) -> Adapter:
    """Adapter and head as a run's folder holds them; of a whitened adapter, what P makes of it."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: weight.detach().cpu().clone() for name, weight in state.items()}


def _load(model: PeftModel, adapter: Adapter) -> None:
    from peft import set_peft_model_state_dict

    set_peft_model_state_dict(model, adapter)


def _taken_off(model: PeftModel) -> PreTrainedModel:
    """The base as it was: PEFT would leave a trained head on it, for the next trial to go on from.

    A search is priced for trials that are independent of each other.
    """
    from peft.utils.other import ModulesToSaveWrapper

    heads = {
        name: each.original_module
        for name, each in model.get_base_model().named_modules()
        if isinstance(each, ModulesToSaveWrapper)
    }
    base: PreTrainedModel = model.unload()
    for name, head in heads.items():
        base.set_submodule(name, head)
    return base
