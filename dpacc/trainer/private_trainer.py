"""transformers' Trainer, and its descendants, with a private step in place of their own.

One of the Trainer's steps is one logical step of the engine: its loader yields them, its training
step runs their micro-batches, its optimizer ends them. Evaluation, callbacks, reports, schedules
and saving stay as they are.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import TrainingArguments
from transformers.trainer_utils import TrainOutput

from dpacc.artifacts.run_folder import own_folder, state_privacy
from dpacc.errors import ConfigurationError
from dpacc.layers.lora_methods import apply_method
from dpacc.loops.private_optimizer import PrivateOptimizer
from dpacc.losses.decoupled_losses import BatchLosses, batch_losses_of
from dpacc.plan import PrivacyPlan
from dpacc.ranks.backends import refuse_cut_models
from dpacc.ranks.collectives import on_main_process
from dpacc.recipe.public_times import COMPUTED_WITHOUT_NOISE, date_reports, quiet_reports
from dpacc.step.averaging import IterateAverage, average_of
from dpacc.step.engine import PrivacyEngine
from dpacc.step.logical_step import LogicalStep
from dpacc.trainer.evaluated_data import EvaluatesApart, rows_untold
from dpacc.trainer.privacy_arguments import PrivacyArguments
from dpacc.trainer.refused_arguments import (
    refuse_options,
    refuse_own_losses,
    refuse_pairs,
    refuse_private_steering,
    refuse_unknown_arguments,
    require_fresh_or_resumed,
)
from dpacc.trainer.required_hooks import (
    hold_in_full_precision,
    require_all_charged,
    require_overridden,
)
from dpacc.trainer.steps_as_data import EpochOfSteps, only

_ANY_NUMBER_OF_TOKENS = 1 << 40


class PrivateTrainer(EvaluatesApart):
    """A Trainer whose training is private.

    It also makes TRL's private, mixed in before it:

    ```python
    class PrivateSFTTrainer(PrivateTrainer, SFTTrainer):
        pass
    ```

    The expected logical batch is per_device_train_batch_size × gradient_accumulation_steps × ranks,
    as without privacy; per_device_train_batch_size bounds how much of it is in memory at once. The
    training loss is not logged, for it is computed without noise; ε is, in its place.

    Args:
        args: transformers' arguments; options that would break the guarantee are refused by name.
        privacy: the guarantee that is wanted.
        units: whose each training example is, for a privacy unit larger than one example.
        losses: one loss per example, [examples], from the model and a micro-batch; by default
            that of the model's head.
        probe_examples: invented examples for the coupling probe, as the collator takes them, where
            none can be made up from the dataset's fields.
        **given: the trainer's own arguments, by name.

    Attributes:
        plan: what the guarantee depends on.

    Raises:
        ConfigurationError: an option would break the guarantee.
        ValueError: a privacy argument is out of range.
    """

    args: Any
    model: Any
    optimizer: Any
    plan: PrivacyPlan
    _losses: BatchLosses
    _average: IterateAverage | None

    def __init__(
        self,
        *,
        args: TrainingArguments,
        privacy: PrivacyArguments,
        units: Sequence[Hashable] | None = None,
        losses: BatchLosses | None = None,
        probe_examples: Sequence[Any] | None = None,
        **given: Any,
    ) -> None:
        require_overridden(type(self), PrivateTrainer)
        refuse_unknown_arguments(type(self), given)
        refuse_pairs(type(self), losses)
        refuse_options(
            args=args, privacy=privacy, units=units, given=given, own_losses=losses is not None
        )
        refuse_own_losses(type(self))
        self.privacy = privacy
        self._units, self._given_losses = units, losses
        self._probe_examples = probe_examples
        self._engine = None
        self._cut_into = args.gradient_accumulation_steps
        args = copy.copy(args)
        # To the Trainer a logical step is one batch; a resume goes on where the ledger ends.
        args.gradient_accumulation_steps = 1
        args.ignore_data_skip = False
        with rows_untold(asked=units is not None):
            own_folder(args.output_dir)
            super().__init__(args=args, **given)
        refuse_cut_models(self.accelerator)
        hold_in_full_precision(self.model)
        self.plan = self._plan()

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: None = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train privately; a resume goes on after the last step that was released.

        Args:
            resume_from_checkpoint: True, or the output folder's last checkpoint.
            trial: none.
            ignore_keys_for_eval: see transformers' Trainer.

        Raises:
            ConfigurationError: the run was begun before and is not resumed, or was trained.
            BudgetExhausted: the ledger already holds all the plan's steps.
            PrivacyError: the steps that were taken are not those that were charged.
        """
        if self._engine is not None:
            raise ConfigurationError(
                "this trainer has trained, and its budget is spent; make a new one, with a new "
                "output_dir, whose budget adds to this one's"
            )
        refuse_private_steering(
            args=self.args,
            privacy=self.privacy,
            callbacks=self.callback_handler.callbacks,
            scheduler=self.lr_scheduler,
        )
        require_fresh_or_resumed(resume_from_checkpoint, self._ledger, self.args.output_dir)
        quiet_reports(self.callback_handler.callbacks)
        self.admit_evaluated(self.eval_dataset)
        try:
            done = super().train(
                resume_from_checkpoint=resume_from_checkpoint,
                trial=trial,
                ignore_keys_for_eval=ignore_keys_for_eval,
            )
            self._require_all_charged()
            return done
        finally:
            self._close_ledger()

    def hyperparameter_search(self, *arguments: Any, **options: Any) -> Any:
        """Refused: each run spends, and choosing among them spends more.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            "hyperparameter_search trains many times on the private data, and each run's budget "
            "adds up; search on public data, or make one trainer for each run and merge ledgers"
        )

    def get_train_dataloader(self) -> DataLoader[LogicalStep]:
        """An epoch of logical steps."""
        self._epoch = EpochOfSteps(self._steps_in_an_epoch)
        return DataLoader(self._epoch, batch_size=1, collate_fn=only)

    def num_examples(self, dataloader: DataLoader[Any]) -> int:
        """How many examples there are, for a loader of logical steps too."""
        if isinstance(dataloader.dataset, EpochOfSteps):
            return self.plan.dataset_size
        return int(super().num_examples(dataloader))

    def get_batch_samples(
        self, epoch_iterator: Iterator[LogicalStep], num_batches: int, device: torch.device
    ) -> tuple[list[LogicalStep], None]:
        """The next logical step; how many tokens it holds is private."""
        step = next(epoch_iterator, None)
        return ([] if step is None else [step]), None

    def training_step(
        self, model: nn.Module, inputs: LogicalStep, num_items_in_batch: None = None
    ) -> Tensor:
        """Run all micro-batches of a logical step; the optimizer's step ends it.

        Returns:
            0, or the mean loss of the examples that this rank drew if it is to be logged.
        """
        model.train()
        self._step = inputs
        kept = []
        for batch in inputs:
            with self.compute_loss_context_manager():
                losses = self._losses(model, batch)
            inputs.backward(losses)
            if self.privacy.log_non_private_metrics and not inputs.made_up:
                kept.append(losses.detach())
        return torch.cat(kept).mean() if kept else torch.zeros((), device=self.args.device)

    def floating_point_ops(self, inputs: Any) -> int:
        """0: they would tell how many tokens were drawn."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log what is private or public, and ε so far with what voids or qualifies it.

        Losses are logged only if that was asked for.
        """
        if not self.privacy.log_non_private_metrics:
            logs = {k: v for k, v in logs.items() if k not in COMPUTED_WITHOUT_NOISE}
            date_reports(self.callback_handler.callbacks)
        if self._engine is not None and self._engine.steps_charged:
            logs = logs | self._engine.guarantee().figures()
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the adapters, with `privacy.json` and the privacy statement in the model card."""
        if self._engine is not None:
            self._engine.require_steady_buffers()
        super().save_model(output_dir, _internal_call=_internal_call)
        folder = output_dir or self.args.output_dir
        on_main_process(self.accelerator, lambda: self._state_privacy(folder))

    def create_model_card(self, *arguments: Any, **options: Any) -> None:
        """The trainer's own, with the privacy statement; some callers are on one rank alone."""
        super().create_model_card(*arguments, **options)
        self._state_privacy(self.args.output_dir)

    # --- what the Trainer's loop asks for, in its order ---------------------------------------

    def _init_training_state(
        self,
        max_steps: int,
        num_update_steps_per_epoch: int,
        num_train_epochs: int,
        resume_from_checkpoint: str | None,
        trial: None,
    ) -> tuple[int, int]:
        begun: tuple[int, int] = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        engine = self._begin(max_steps)
        if resume_from_checkpoint is not None:
            # The journal goes further than the Trainer's checkpoint.
            self.state.global_step = engine.resume()
            self._put_average_in_place()
            begun = divmod(self.state.global_step, num_update_steps_per_epoch)
        if self.privacy.log_non_private_metrics:
            engine.note(
                subject="non-private-metrics",
                text="private losses, without noise, were logged, and when each step ended",
            )
        self.note_evaluated()
        return begun

    def _begin(self, max_steps: int) -> PrivacyEngine:
        """Make the engine, and hand it model, optimizer and schedule."""
        keeps = self.args.save_strategy != "no" and not self.args.save_only_model
        engine = self._engine = PrivacyEngine(
            self.accelerator,
            self.plan,
            ledger=self._ledger,
            checkpoints=Path(self.args.output_dir) / "_private_steps" if keeps else None,
            micro_batch_tokens=_ANY_NUMBER_OF_TOKENS,
            micro_batch_units=self.args.per_device_train_batch_size,
            per_example_gradients=self.privacy.per_example_gradients,
            kernels=self.privacy.kernels,
            compile=self.privacy.compile,
            fixed_seed=self.privacy.fixed_seed,
            budget=self.privacy.budget,
        )
        apply_method(self.model, self.create_optimizer(), self.privacy.method)
        self._average = average_of(
            self.optimizer,
            steps=self.plan.steps,
            share=self.privacy.average_iterates,
            accelerator=self.accelerator,
        )
        self.create_scheduler(num_training_steps=max_steps)
        self.model, optimizer = engine.prepare(self.model, self.optimizer, self.lr_scheduler)
        self.model_wrapped = self.model
        self.optimizer = PrivateOptimizer(optimizer, self._end_step)
        self._losses = self._given_losses or batch_losses_of(self.model)
        self._epoch.source = engine.steps(
            *self._examples(), units=self._units, probe_examples=self._probe_examples
        )
        return engine

    def _prepare_for_training(
        self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None
    ) -> tuple[nn.Module, Any]:
        for name in ("model", "optimizer", "lr_scheduler"):
            setattr(self.callback_handler, name, getattr(self, name))
        self.callback_handler.train_dataloader = train_dataloader
        return self.model, train_dataloader

    def _require_all_charged(self) -> None:
        engine = self._engine
        require_all_charged(
            charged=0 if engine is None else engine.steps_charged,
            taken=self.state.global_step,
            ledger=engine.ledger if engine and self.is_world_process_zero() else None,
            plan=self.plan,
        )

    def _close_ledger(self) -> None:
        if self._engine is not None:
            self._epoch.close()
            self._engine.close()

    def _end_step(self) -> None:
        self._step.update()
        self._put_average_in_place()

    def _put_average_in_place(self) -> None:
        """After the plan's last step, before anything is evaluated or saved."""
        assert self._engine is not None
        if self._average is not None and self._engine.steps_charged == self.plan.steps:
            self._average.put_in_place()

    def _clip_grad_norm(self, model: nn.Module) -> None:
        """Every example's gradient was clipped; there is no other."""

    def _get_grad_norm(self, model: nn.Module, grad_norm: None = None) -> None:
        """Of the sum without noise it would be private."""

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """With all else that a resume needs, in the engine's checkpoint."""
        assert self._engine is not None
        self._engine.checkpoint()

    def _save_rng_state(self, output_dir: str) -> None:
        """None: a resume draws from a new secret, and nothing private from these generators."""

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """The adapters in the output folder will be this checkpoint's."""
        self._state_privacy(self.args.output_dir)
        super()._push_from_checkpoint(checkpoint_folder)

    def _load_from_checkpoint(self, *arguments: Any, **options: Any) -> None:
        """The engine's checkpoint holds the adapters, and its journal what came after."""

    def _finalize_training(self, *arguments: Any) -> TrainOutput:
        done = super()._finalize_training(*arguments)
        if self.privacy.log_non_private_metrics:
            return done
        public = {k: v for k, v in done.metrics.items() if k not in COMPUTED_WITHOUT_NOISE}
        return TrainOutput(done.global_step, math.nan, public)

    # --- what the run is about ------------------------------------------------------------------

    def _plan(self) -> PrivacyPlan:
        size = self.privacy.dataset_size(examples=len(self.train_dataset), units=self._units)
        self._steps_in_an_epoch = -(-size // self._expected_batch_size)
        epochs, asked = self.args.num_train_epochs, self.args.max_steps
        return self.privacy.plan(
            dataset_size=size,
            expected_batch_size=self._expected_batch_size,
            steps=asked if asked > 0 else math.ceil(epochs * self._steps_in_an_epoch),
        )

    @property
    def _expected_batch_size(self) -> int:
        here: int = self.args.per_device_train_batch_size * self._cut_into
        return here * int(self.accelerator.num_processes)

    @property
    def _ledger(self) -> Path:
        return Path(self.privacy.ledger or Path(self.args.output_dir) / "ledger.jsonl")

    def _examples(self) -> tuple[Any, Callable[[list[Any]], Any]]:
        """The training examples and their collator, without columns that the model ignores."""
        if isinstance(self.train_dataset, datasets.Dataset):
            return self._remove_unused_columns(self.train_dataset), self.data_collator
        collate = self._get_collator_with_removed_columns(self.data_collator)
        return self.train_dataset, collate

    def _state_privacy(self, folder: str) -> None:
        """On the main process, without waiting for others."""
        engine = self._engine
        if engine is not None and engine.steps_charged and self.is_world_process_zero():
            state_privacy(folder=Path(folder), run_ledger=engine.run_ledger)
