"""The private engine for a plain training loop: wrap model, optimizer and loader, no more."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, TypedDict, TypeVar, Unpack

import torch
from accelerate import Accelerator
from peft import PeftModel
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from dpacc.artifacts.run_folder import save_adapter, state_privacy
from dpacc.errors import ConfigurationError, names_what_is_unknown
from dpacc.layers.blocks import Compile
from dpacc.layers.dynamic_rank import RankOf
from dpacc.layers.kernels.choice import Kernels
from dpacc.layers.lora_methods import Method, apply_method
from dpacc.loops.plain_loader import require_a_name, require_the_loaders, sizes_of, steps_of
from dpacc.loops.private_loss import PrivateLoss
from dpacc.loops.private_optimizer import PlainLoopOptimizer, UpdateSchedule
from dpacc.loops.restarts import refuse_fresh_start
from dpacc.loops.virtual_batches import Turns, VirtualBatches
from dpacc.losses.decoupled_losses import LogitLosses, logit_losses_of
from dpacc.plan import Clipping, Correlation, Drawing, Noise, PrivacyPlan
from dpacc.ranks import collectives
from dpacc.ranks.backends import Backend, refuse_cut_models
from dpacc.ranks.reduction import WireFormat
from dpacc.step import engine
from dpacc.step.averaging import IterateAverage, average_of, require_share
from dpacc.step.strategies import PerExampleGradients

AnyModel = TypeVar("AnyModel", bound=nn.Module)
Private = tuple[AnyModel, PlainLoopOptimizer, VirtualBatches]

_ANY_NUMBER_OF_TOKENS = 1 << 40


class EngineSettings(TypedDict, total=False):
    """What [`dpacc.step.engine.PrivacyEngine`][] takes beside its ledger; none but the seed matters
    to the guarantee, and the data set's budget may refuse the run."""

    checkpoints: Path | str | None
    micro_batch_tokens: int
    micro_batch_units: int | None
    per_example_gradients: PerExampleGradients
    kernels: Kernels
    wire: WireFormat
    fixed_seed: int | None
    backend: Backend | None
    dynamic_rank: int | RankOf | None
    subspace_rank: int | None
    budget: Path | str | None
    compile: Compile


class PlainLoop(TypedDict, total=False):
    """What a plain loop may choose beside its plan.

    Keys:
        method: "lora" trains both matrices of each adapter; "ffa" freezes A.
        average_iterates: share of the plan's steps, the last ones, whose adapters are averaged
            after the last of them; free of privacy, and best under a constant learning rate.
        max_physical_batch_size: the most examples (or units) in one batch that the loader yields;
            by default what 4,096 padded tokens hold. No effect on the result.
        scheduler: of `optimizer`; stepped once an update, whatever the loop calls.
        losses: one loss per example, [examples], from logits and labels; by default that of the
            model's head.
        units: whose each example is, for a privacy unit larger than one example.
        probe_examples: invented examples for the coupling probe, where none can be made up from
            the dataset's fields.
    """

    method: Method
    average_iterates: float
    max_physical_batch_size: int | None
    scheduler: LRScheduler | None
    losses: LogitLosses | None
    units: Sequence[Hashable] | None
    probe_examples: Sequence[Any] | None


class PrivacyEngine(engine.PrivacyEngine):
    """The private step, for a plain loop or an open one.

    ```python
    engine = PrivacyEngine(ledger="run/ledger.jsonl")
    model, optimizer, loader = engine.make_private_with_epsilon(
        model=model, optimizer=optimizer, data_loader=loader, epochs=3,
        target_epsilon=8.0, target_delta=1e-5, max_grad_norm=1.0,
    )
    for epoch in range(3):
        for batch in loader:
            optimizer.zero_grad()
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
    print(engine.get_epsilon(1e-5))
    ```

    `loss` is the mean of its examples' own losses. It is computed from private data without noise:
    whoever prints or logs it tells what the guarantee does not cover, as does whoever counts the
    batches. Gradients are not found in `.grad`. Calls out of order are refused, with what to call
    instead.

    With a plan it is the [open engine][dpacc.step.engine.PrivacyEngine]: `prepare`, then `steps`.

    Args:
        accelerator: the launch's; by default a new one.
        plan: what the guarantee depends on; left out where `make_private` makes it.
        ledger: where releases are recorded before they happen; new, or the same plan's.
        **settings: the open engine's.
    """

    @names_what_is_unknown(EngineSettings, of="PrivacyEngine")
    def __init__(
        self,
        accelerator: Accelerator | None = None,
        plan: PrivacyPlan | None = None,
        *,
        ledger: Path | str,
        **settings: Unpack[EngineSettings],
    ) -> None:
        self._begin_with = (accelerator, ledger, settings)
        self._average: IterateAverage | None = None
        if plan is not None:
            super().__init__(accelerator or Accelerator(), plan, ledger=ledger, **settings)

    def __getattr__(self, name: str) -> Any:
        if "plan" not in vars(self):
            raise ConfigurationError(
                "the engine has no plan yet; call make_private or make_private_with_epsilon first"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @names_what_is_unknown(PlainLoop)
    def make_private_with_epsilon(
        self,
        *,
        model: AnyModel,
        optimizer: torch.optim.Optimizer,
        data_loader: DataLoader[Any],
        target_epsilon: float,
        target_delta: float,
        max_grad_norm: float,
        epochs: float | None = None,
        steps: int | None = None,
        clipping: Clipping = "flat",
        noise: Noise = "gaussian",
        sampling: Drawing = "poisson",
        unit_cap: int | None = None,
        correlation: Correlation = "none",
        bands: int | None = None,
        unit: str = "example",
        **loop: Unpack[PlainLoop],
    ) -> Private[AnyModel]:
        """Model, optimizer and loader for at most `target_epsilon`, by the least noise that does.

        Args:
            model: a Hugging Face model whose trainable layers have a per-example rule, such as
                PEFT's LoRA.
            optimizer: of the trainable parameters.
            data_loader: its dataset, `collate_fn` and `batch_size` are used; the batch size is
                that of an expected logical batch over all ranks, which may exceed the memory.
                Its shuffling is replaced by Poisson sampling, or random allocation.
            target_epsilon: ε after all epochs.
            target_delta: its δ.
            max_grad_norm: C, the clipping norm of one example's gradient.
            epochs: how many passes over the loader; or give `steps`.
            steps: how many updates.
            clipping: see [`PrivacyPlan`][dpacc.plan.PrivacyPlan].
            noise: likewise.
            sampling: likewise; "allocated" takes each example once an epoch, with less noise, and
                "examples" draws the examples of `units` one by one.
            unit_cap: the most examples of one unit, in a step, or in the run for "examples".
            correlation: likewise; "banded" takes back in later steps what earlier ones added.
            bands: of how many steps; left out, the best number for momentum 0.9.
            unit: what the privacy unit is called; to be said where `units` are given.
            **loop: see [`PlainLoop`][dpacc.loops.drop_in.PlainLoop].

        Raises:
            ConfigurationError: an argument is out of range; no data was read.
            PrivacyError: the model cannot be trained privately as it is.
        """
        plan = PrivacyPlan.calibrate(
            **sizes_of(data_loader, loop.get("units"), sampling=sampling, unit_cap=unit_cap),
            epochs=epochs,
            steps=steps,
            target_epsilon=target_epsilon,
            target_delta=target_delta,
            max_grad_norm=max_grad_norm,
            clipping=clipping,
            noise=noise,
            sampling=sampling,
            unit_cap=unit_cap,
            correlation=correlation,
            bands=bands,
            unit=unit,
        )
        return self.make_private_with_plan(
            model=model, optimizer=optimizer, data_loader=data_loader, plan=plan, **loop
        )

    @names_what_is_unknown(PlainLoop)
    def make_private(
        self,
        *,
        model: AnyModel,
        optimizer: torch.optim.Optimizer,
        data_loader: DataLoader[Any],
        noise_multiplier: float,
        target_delta: float,
        max_grad_norm: float,
        epochs: int,
        clipping: Clipping = "flat",
        noise: Noise = "gaussian",
        sampling: Drawing = "poisson",
        unit_cap: int | None = None,
        unit: str = "example",
        **loop: Unpack[PlainLoop],
    ) -> Private[AnyModel]:
        """The same for a noise of your own: σ = noise_multiplier, on the sum, divided by C.

        Args:
            model: as in `make_private_with_epsilon`, like all that is not named here.
            optimizer: of the trainable parameters.
            data_loader: the private examples.
            noise_multiplier: σ.
            target_delta: δ at which ε is stated.
            max_grad_norm: C.
            epochs: how many passes over the loader there may be.
            clipping: see [`PrivacyPlan`][dpacc.plan.PrivacyPlan].
            noise: likewise.
            sampling: likewise.
            unit_cap: likewise.
            unit: what the privacy unit is called; to be said where `units` are given.
            **loop: see [`PlainLoop`][dpacc.loops.drop_in.PlainLoop].
        """
        sizes = sizes_of(data_loader, loop.get("units"), sampling=sampling, unit_cap=unit_cap)
        plan = PrivacyPlan(
            **sizes,
            steps=steps_of(sizes, epochs=epochs, sampling=sampling),
            noise_multiplier=noise_multiplier,
            target_delta=target_delta,
            max_grad_norm=max_grad_norm,
            clipping=clipping,
            noise=noise,
            sampling=sampling,
            unit_cap=unit_cap,
            unit=unit,
        )
        return self.make_private_with_plan(
            model=model, optimizer=optimizer, data_loader=data_loader, plan=plan, **loop
        )

    @names_what_is_unknown(PlainLoop)
    def make_private_with_plan(
        self,
        *,
        model: AnyModel,
        optimizer: torch.optim.Optimizer,
        data_loader: DataLoader[Any],
        plan: PrivacyPlan,
        **loop: Unpack[PlainLoop],
    ) -> Private[AnyModel]:
        """The same for a plan of your own.

        Args:
            model: as in `make_private_with_epsilon`.
            optimizer: of the trainable parameters.
            data_loader: as many examples, and as large batches, as the plan says.
            plan: what the guarantee depends on.
            **loop: see [`PlainLoop`][dpacc.loops.drop_in.PlainLoop].
        """
        self._require_unused()
        require_a_name(plan, loop.get("units"))
        require_the_loaders(plan, data_loader, loop.get("units"))
        share = loop.get("average_iterates", 0.0)
        require_share(share)
        scheduler = loop.get("scheduler")
        schedule = None if scheduler is None else UpdateSchedule(scheduler)
        losses = loop.get("losses") or logit_losses_of(model)
        apply_method(model, optimizer, loop.get("method", "lora"))
        self._begin(plan, loop.get("max_physical_batch_size"))
        self._average = average_of(
            optimizer, steps=plan.steps, share=share, accelerator=self.accelerator
        )
        placed, inner = self.prepare(model, optimizer, schedule)
        turns = Turns()
        PrivateLoss(placed, losses, turns)
        steps = self.steps(
            data_loader.dataset,  # type: ignore[arg-type]
            data_loader.collate_fn,
            units=loop.get("units"),
            probe_examples=loop.get("probe_examples"),
        )
        loader = VirtualBatches(
            engine=self,
            dataset=data_loader.dataset,
            steps=steps,
            turns=turns,
            begins=self._require_remembered,
        )
        private_optimizer = PlainLoopOptimizer(inner, turns, schedule, self._put_average_in_place)
        return placed.train(), private_optimizer, loader

    def resume(self) -> int:
        """As the [open engine's][dpacc.step.engine.PrivacyEngine.resume], with the average in place
        where all steps are taken."""
        step = super().resume()
        self._put_average_in_place()
        return step

    def save_pretrained(self, folder: Path | str) -> None:
        """Save the adapters, with `privacy.json` and the privacy statement in the model card.

        Both speak of the steps that were released up to now. Every rank must call it.

        Args:
            folder: for `PeftModel.from_pretrained(base, folder)`; made if it is not there.

        Raises:
            ConfigurationError: no step was released yet, or the model is not PEFT's.
        """
        if self.steps_charged == 0:
            raise ConfigurationError(
                "no step was released yet, so there is no guarantee to state; train first"
            )
        model = self.accelerator.unwrap_model(self._model)
        if not isinstance(model, PeftModel):
            raise ConfigurationError(
                f"the model is a {type(model).__name__} without PEFT's adapters; save it by its "
                "own save_pretrained, and keep the ledger with it"
            )
        folder = Path(folder).expanduser()
        with self.whole_adapters():
            collectives.on_main_process(self.accelerator, lambda: self._save(model, folder))

    def get_epsilon(self, delta: float) -> float:
        """ε at `delta` of the steps that the ledger holds, 0 before the first.

        Infinite where the ledger voids it; `guarantee()` says why, and what else qualifies it.

        Warns:
            UserWarning: a note in the ledger voids or qualifies this ε.
        """
        if self.steps_charged == 0:
            return 0.0
        found = self.guarantee(delta=delta)
        if found.notes:
            warnings.warn(str(found), stacklevel=2)
        return found.epsilon

    def _save(self, model: PeftModel, folder: Path) -> None:
        save_adapter(model=model, folder=folder)
        state_privacy(folder=folder, run_ledger=self.run_ledger)

    def _put_average_in_place(self) -> None:
        if self._average is not None and self.steps_charged == self.plan.steps:
            self._average.put_in_place()

    def _require_remembered(self, step: int) -> None:
        refuse_fresh_start(
            charged=step,
            ledger=self.ledger,
            model=self._model,
            resumed=self._resumed,
            checkpoints=self._checkpoints is not None,
        )

    def _require_unused(self) -> None:
        if "plan" in vars(self):
            raise ConfigurationError(
                "this engine has a plan already, from its constructor or an earlier make_private; "
                "make a new PrivacyEngine(ledger=...) for each run"
            )

    def _begin(self, plan: PrivacyPlan, max_physical_batch_size: int | None) -> None:
        accelerator, ledger, settings = self._begin_with
        accelerator = accelerator or Accelerator()
        refuse_cut_models(accelerator)
        if max_physical_batch_size is not None:
            settings = settings | _at_most(max_physical_batch_size)
        super().__init__(accelerator, plan, ledger=ledger, **settings)


def _at_most(max_physical_batch_size: int) -> EngineSettings:
    if max_physical_batch_size < 1:
        raise ConfigurationError(
            f"max_physical_batch_size={max_physical_batch_size} must be at least 1"
        )
    return {
        "micro_batch_units": max_physical_batch_size,
        "micro_batch_tokens": _ANY_NUMBER_OF_TOKENS,
    }
