"""The private step: accumulate clipped gradients, reduce, charge, noise once, update."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from dpacc_accounting import Guarantee
from torch import Tensor, nn

import dpacc
from dpacc.data.joined_texts import refuse_joined_texts
from dpacc.errors import BudgetExhausted, ConfigurationError, names_what_is_unknown
from dpacc.layers.adapters import attach_gradient_buffer
from dpacc.layers.blocks import Compile, compile_as_asked
from dpacc.layers.dynamic_rank import RankOf, dynamic_rank_of
from dpacc.layers.kernels.choice import Kernels, choose
from dpacc.layers.subspace import layout_within, subspace_of
from dpacc.plan import PrivacyPlan
from dpacc.randomness.keyed_dropout import KeyedDropout
from dpacc.randomness.sampling import sampler_for
from dpacc.ranks import collectives
from dpacc.ranks.backends import Backend, backend_for
from dpacc.ranks.backends.held_parameters import admit_optimizer
from dpacc.ranks.fingerprints import code_fingerprint
from dpacc.ranks.reduction import WireFormat, reduction_for
from dpacc.step.accumulation import ClippedSum
from dpacc.step.admission.collation import KeyedCollation
from dpacc.step.admission.coupling_probe import CouplingProbe
from dpacc.step.admission.starting_point import (
    is_trained,
    refuse_private_examples_in_the_start,
    starting_notes,
)
from dpacc.step.admission.steady_buffers import SteadyBuffers
from dpacc.step.admission.trainable import (
    admit_model,
    refuse_raw_gradients,
    refuse_replaced_adapters,
)
from dpacc.step.checkpoint import Checkpoints
from dpacc.step.logical_step import Collate, LogicalStep
from dpacc.step.micro_batches import MicroBatches
from dpacc.step.release import Release
from dpacc.step.resumption import Resumption
from dpacc.step.run_ledger import RunLedger
from dpacc.step.strategies import Materialize, PerExampleGradients, strategy_for
from dpacc.step.unit_members import members_of
from dpacc.step.update_rule import Schedule, begin_at_known_noise, update_rule, what_learns

_ALIKE = (
    *("micro_batch_tokens", "micro_batch_units", "per_example_gradients"),
    *("kernels", "wire", "compile"),
)
AnyModel = TypeVar("AnyModel", bound=nn.Module)
AnyOptimizer = TypeVar("AnyOptimizer", bound=torch.optim.Optimizer)


class PrivacyEngine:
    """Trains a model's adapters under a privacy plan, on any number of ranks.

    Args:
        accelerator: the launch's Accelerator.
        plan: what the guarantee depends on; the engine keeps no copy of any part of it.
        ledger: where releases are recorded before they happen. Must be new, or hold the same
            plan: its charges then count against the plan.
        checkpoints: a folder for checkpoints and the journal between them, which make a killed
            run resumable; without it, none are kept.
        micro_batch_tokens: the most padded tokens in one micro-batch. No effect on the result.
        micro_batch_units: the most privacy units in one micro-batch; likewise.
        per_example_gradients: "materialize" keeps them through one backward, "ghost" goes
            backward twice and keeps none, "auto" looks at the memory. The same result, exactly.
        kernels: "torch", or on a GPU "triton": fewer passes over memory. The same result but for
            rounding; see `dpacc.layers.kernels.choice`, which is the whole process's.
        fixed_seed: makes sampling and noise predictable, for tests; such a run is not private.
        wire: "fp32", or "bf16": the noised sum crosses between ranks, and reaches the optimizer,
            rounded to bf16; the sum without noise never is.
        backend: how the model is placed; by default what the launch configuration asks for.
        dynamic_rank: public: a seed that draws for each step, or what says of it, how many rows of
            A and columns of B it trains ([`DynamicRank`][dpacc.layers.dynamic_rank.DynamicRank]).
        subspace_rank: k of a plan's second phase, see [`Subspace`][dpacc.layers.subspace.Subspace].
        budget: that of the data set: a file of which the whole plan is reserved beforehand.
        compile: "blocks" has torch compile each trained block, "step" all from the words to the
            head as one. The same result, up to rounding.

    ```python
    engine = PrivacyEngine(accelerator, plan, ledger="run/ledger.jsonl")
    model, optimizer = engine.prepare(model, optimizer)
    for step in engine.steps(train, collate):
        for batch in step:
            step.backward(causal_lm_losses(model, batch))
        step.update()
    ```
    """

    @names_what_is_unknown()
    def __init__(
        self,
        accelerator: Accelerator,
        plan: PrivacyPlan,
        *,
        ledger: Path | str,
        checkpoints: Path | str | None = None,
        micro_batch_tokens: int = 4096,
        micro_batch_units: int | None = None,
        per_example_gradients: PerExampleGradients = "auto",
        kernels: Kernels = "torch",
        wire: WireFormat = "fp32",
        fixed_seed: int | None = None,
        backend: Backend | None = None,
        dynamic_rank: int | RankOf | None = None,
        subspace_rank: int | None = None,
        budget: Path | str | None = None,
        compile: Compile = "none",
    ) -> None:
        self._backend, self.compile = backend or backend_for(accelerator), compile
        self.dynamic_rank, self.subspace_rank = dynamic_rank, subspace_rank
        self.accelerator, self.plan = accelerator, plan
        self.micro_batch_tokens, self.micro_batch_units = micro_batch_tokens, micro_batch_units
        self.per_example_gradients, self.kernels, self.wire = per_example_gradients, kernels, wire
        self.run_ledger = RunLedger(accelerator=accelerator, plan=plan, path=ledger, budget=budget)
        self._checkpoints = None if checkpoints is None else Checkpoints(Path(checkpoints))
        self._secret = collectives.agree_on_secret(fixed_seed)
        self._resumed = False

    def prepare(
        self,
        model: AnyModel,
        optimizer: AnyOptimizer,
        scheduler: Schedule | None = None,
    ) -> tuple[AnyModel, AnyOptimizer]:
        """Check, place and instrument the model; every rank starts from the same adapters.

        Args:
            model: with its adapters; all else frozen.
            optimizer: of exactly the trainable parameters.
            scheduler: stepped by the caller once an update; checkpoints hold it.

        Raises:
            PrivacyError: the model or the optimizer cannot be trained privately as it is.
            ConfigurationError: nothing is trainable, or ranks disagree.
        """
        choose(self.kernels, on=self.accelerator.device)
        admit_model(model)
        admit_optimizer(optimizer, model)
        adapters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._parameters = list(adapters.values())
        rule = update_rule(optimizer=optimizer, scheduler=scheduler, adapters=adapters)
        rule |= what_learns(dynamic_rank=self.dynamic_rank, subspace_rank=self.subspace_rank)
        begin_at_known_noise(optimizer, plan=self.plan, cut=self._backend.cuts_optimizer)
        collectives.require_agreement(
            {
                "the version of dpacc": dpacc.__version__,
                "the source code of dpacc": code_fingerprint(),
                "the privacy plan": self.plan.fingerprint,
                **{name: getattr(self, name) for name in _ALIKE},
                "the number of trainable parameters": sum(p.numel() for p in self._parameters),
                **{f"the {name}": value for name, value in rule.items()},
            }
        )
        collectives.start_alike(self.accelerator, self._parameters)
        self._trained_before = is_trained(model)
        self._buffer = attach_gradient_buffer(model)
        compile_as_asked(self.compile, model=model, placement=self._backend.placement)
        self._subspace = subspace_of(
            self.subspace_rank, self.plan, layout=self._buffer.layout, accelerator=self.accelerator
        )
        self.per_example_gradients, self._most_rows, self._strategy = strategy_for(
            self.per_example_gradients,
            self._buffer,
            self._backward,
            accelerator=self.accelerator,
            subspace=self._subspace,
        )
        self._release = Release(
            accelerator=self.accelerator,
            backend=self._backend,
            plan=self.plan,
            parameters=self._parameters,
            secret=self._secret,
            charge=self.run_ledger.charge,
            journal=None if self._checkpoints is None else self._checkpoints.journal,
            reduction=reduction_for(self.accelerator, self.wire),
            dynamic_rank=dynamic_rank_of(
                model, self._buffer, ranks=self.dynamic_rank, cut=self._backend.cuts_optimizer
            ),
            subspace=self._subspace,
        )
        # Last, because placing may cut parameters over the ranks, whose shapes are then gone.
        self._model, self._optimizer = self._backend.place(model, optimizer)
        self._steady = SteadyBuffers(self._model)
        self._dropout = KeyedDropout(
            model=self._model,
            secret=self._secret,
            device=self.accelerator.device,
            tokens_may_be_flattened=self._buffer.tokens_may_be_flattened,
        )
        self._resumption = None
        if self._checkpoints is not None:
            self._resumption = Resumption(
                accelerator=self.accelerator,
                backend=self._backend,
                checkpoints=self._checkpoints,
                run_ledger=self.run_ledger,
                plan=self.plan,
                adapters=adapters,
                scheduler=scheduler,
                rule=rule,
                bound=self._release.bound,
                subspace=self._subspace,
            )
        return cast(AnyModel, self._model), cast(AnyOptimizer, self._optimizer)

    @names_what_is_unknown(of="engine.steps")
    def steps(
        self,
        dataset: Sequence[Any],
        collate: Collate,
        *,
        units: Sequence[Hashable] | None = None,
        probe_examples: Sequence[Any] | None = None,
    ) -> Iterator[LogicalStep]:
        """The plan's logical steps that are not charged yet, Poisson-sampled from `dataset`.

        Args:
            dataset: examples by index; one with an "input_ids" field is cut by its length.
            collate: makes a batch of a list of examples.
            units: whose each example is, for a privacy unit larger than one example. Units are
                sampled; the gradients of a unit's examples are averaged, then clipped.
            probe_examples: invented examples for the coupling probe, if none can be made up from
                the dataset's fields.

        Raises:
            ConfigurationError: the dataset's size is not the plan's, on any rank.
            PrivacyError: the probe finds that examples are coupled, or a step was left without
                its update.
            BudgetExhausted: the ledger already holds all the plan's steps.
        """
        if not hasattr(self, "_model"):
            raise ConfigurationError("call engine.prepare(model, optimizer) before engine.steps")
        members = members_of(dataset=dataset, units=units, plan=self.plan, secret=self._secret)
        refuse_private_examples_in_the_start(self._model, dataset)
        refuse_joined_texts(dataset=dataset, collate=collate, model=self._model)
        self.run_ledger.open(fixed_seed=self._secret.fixed_seed)
        earlier = self._trained_before and not self.run_ledger.steps_charged
        for subject, text in starting_notes(self._model, trained=earlier):
            self.run_ledger.note(subject=subject, text=text)
        if self.run_ledger.steps_charged >= self.plan.steps and not self._resumed:
            raise BudgetExhausted(
                f"{self.run_ledger.path} already holds all {self.plan.steps} steps of the plan; "
                "start a new run, whose budget adds to this one's"
            )
        if self._resumption is not None and self.run_ledger.steps_charged == 0:
            self._resumption.save(0)
        batches = MicroBatches(
            dataset=dataset,
            members=members,
            collate=KeyedCollation(
                collate,
                self._secret,
                rank=self.accelerator.process_index,
                begun=self.run_ledger.steps_charged,
            ),
            accelerator=self.accelerator,
            dropout=self._dropout,
            expect=self._buffer.expect,
            max_tokens=self.micro_batch_tokens,
            max_units=self._most_units,
        )
        coupling = CouplingProbe.before(
            dataset,
            probe_examples,
            model=self._model,
            collate=collate,
            place=batches.place_made_up,
            gradients=self._dropout.until_after(
                Materialize(self._buffer, self._backward, self.accelerator.device).first
            ),
            buffers=self._steady,
            rounds=lambda: self._buffer.in_half_precision,
            rows_limits=(self._most_rows, self.micro_batch_tokens, self.micro_batch_units),
        )
        probe: CouplingProbe | None = coupling
        sampler = sampler_for(plan=self.plan, secret=self._secret)
        try:
            for index in range(self.run_ledger.steps_charged, self.plan.steps):
                self._release.begin(index)
                drawn = batches.of_this_rank(sampler.draw(step=index), step=index)
                total = self._zero_sum()
                step = LogicalStep(
                    index=index,
                    micro_batches=drawn,
                    placeholder=coupling.watched,
                    probe=probe,
                    present=batches.presenting(index),
                    accumulate=self._dropout.until_after(partial(self._strategy.add, into=total)),
                    drop=self._dropout.until_after(self._drop),
                    release=partial(self._release_checked, index, total),
                )
                yield step
                step.require_updated()
                probe = None
        finally:
            self._release.end()
            self._dropout.rest()

    def resume(self) -> int:
        """Go back to the last checkpoint and redo the released steps after it, without data.

        Call it after `prepare` and before `steps`. A step that was charged but not released when
        the run died is lost, and stays charged.

        Returns:
            The number of the next step.

        Raises:
            ConfigurationError: there is nothing to resume, or it is another run's.
        """
        if self._resumption is None:
            raise ConfigurationError("to resume, give the engine its folder of checkpoints")
        self.run_ledger.require_started()
        self.run_ledger.open(fixed_seed=self._secret.fixed_seed)
        self._resumption.restore()
        self._resumption.save(self.run_ledger.steps_charged)
        self._resumed = True
        return self.run_ledger.steps_charged

    def checkpoint(self) -> None:
        """Keep where the run stands; call it between two steps, after the scheduler's."""
        if self._resumption is None:
            raise ConfigurationError("to keep checkpoints, give the engine a folder for them")
        self._resumption.save(self.run_ledger.steps_charged)

    def note(self, *, subject: str, text: str) -> None:
        """Write into the ledger, and so into the statement, a fact that qualifies the guarantee."""
        self.run_ledger.open(fixed_seed=self._secret.fixed_seed)
        self.run_ledger.note(subject=subject, text=text)

    def whole_adapters(self) -> AbstractContextManager[None]:
        """While it lasts, adapters are whole on every rank, to be saved; all ranks must enter."""
        self.require_steady_buffers()
        return self._backend.whole_adapters()

    def require_steady_buffers(self) -> None:
        """Refuse to go on, or to save, when a buffer of the model changed in training."""
        self._steady.require_unchanged()

    def guarantee(self, *, delta: float | None = None) -> Guarantee:
        """(ε, δ) of what was charged, at the plan's δ, with what voids or qualifies it."""
        spent = self.plan.guarantee(steps=self.steps_charged, delta=delta)
        return spent.noted(self.run_ledger.notes)

    @property
    def steps_charged(self) -> int:
        """How many logical steps the ledger holds."""
        return self.run_ledger.steps_charged

    @property
    def ledger(self) -> Path:
        """The file of what was charged."""
        return self.run_ledger.path

    def close(self) -> None:
        """Close the ledger; the next run may open it."""
        self.run_ledger.close()

    @property
    def _most_units(self) -> int | None:
        keeps_rows = self.per_example_gradients == "materialize"
        limits = [max(1, self._most_rows)] if keeps_rows else []
        limits += [self.micro_batch_units] if self.micro_batch_units is not None else []
        return min(limits, default=None)

    def _drop(self, losses: Tensor) -> None:
        """Run the backwards of a made-up micro-batch, as collectives need, for nothing."""
        self._strategy.add(losses, None, self._zero_sum())

    def _backward(self, loss: Tensor, keep_graph: bool) -> None:
        with self._dropout.backward():
            self._backend.backward(loss, keep_graph)
        refuse_raw_gradients(self._model)

    def _zero_sum(self) -> ClippedSum:
        return ClippedSum(
            plan=self.plan,
            layout=layout_within(self._subspace, whole=self._buffer.layout),
            max_grad_norm=self._release.bound.value,
            device=self.accelerator.device,
        )

    def _release_checked(self, index: int, clipped: ClippedSum) -> None:
        refuse_replaced_adapters(self._model, self._parameters)
        self.require_steady_buffers()
        self._backend.require_same_optimizer(self._model)
        self._release(index, clipped.total)
