"""The private step: accumulate clipped gradients, reduce, charge, noise once, update."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from dpacc_accounting import Guarantee, Ledger
from torch import Tensor, nn

import dpacc
from dpacc import ranks
from dpacc.adapters import attach_gradient_buffer
from dpacc.admission import (
    admit_model,
    admit_optimizer,
    refuse_raw_gradients,
    refuse_replaced_adapters,
)
from dpacc.backends import backend_for
from dpacc.batching import cut_into_micro_batches
from dpacc.errors import BudgetExhausted, ConfigurationError, PrivacyError
from dpacc.logical_step import Collate, LogicalStep
from dpacc.noise import standard_normals
from dpacc.plan import PrivacyPlan
from dpacc.probe import CouplingProbe, made_up_examples
from dpacc.randomness import SECRET_BYTES, RunSecret
from dpacc.sampling import PoissonSampler

AnyModel = TypeVar("AnyModel", bound=nn.Module)
AnyOptimizer = TypeVar("AnyOptimizer", bound=torch.optim.Optimizer)


class PrivacyEngine:
    """Trains a model's adapters under a privacy plan, on any number of ranks.

    Args:
        accelerator: the launch's Accelerator.
        plan: what the guarantee depends on; the engine keeps no copy of any part of it.
        ledger: where releases are recorded before they happen. Must be new, or hold the same
            plan: its charges then count against the plan.
        micro_batch_tokens: the most padded tokens in one micro-batch. No effect on the result.
        fixed_seed: makes sampling and noise predictable, for tests; noted in the ledger, and
            the run is not private.

    ```python
    engine = PrivacyEngine(accelerator, plan, ledger="run/ledger.jsonl")
    model, optimizer = engine.prepare(model, optimizer)
    for step in engine.steps(train, collate):
        for batch in step:
            step.backward(causal_lm_losses(model, batch))
        step.update()
    ```
    """

    def __init__(
        self,
        accelerator: Accelerator,
        plan: PrivacyPlan,
        *,
        ledger: Path | str,
        micro_batch_tokens: int = 4096,
        fixed_seed: int | None = None,
    ) -> None:
        self._backend = backend_for(accelerator)
        self.accelerator = accelerator
        self.plan = plan
        self.micro_batch_tokens = micro_batch_tokens
        self._ledger_path = Path(ledger)
        self._ledger: Ledger | None = None
        self._steps_charged = 0
        self._secret = _agree_on_secret(fixed_seed)

    def prepare(self, model: AnyModel, optimizer: AnyOptimizer) -> tuple[AnyModel, AnyOptimizer]:
        """Check, place and instrument the model; every rank starts from the same adapters.

        Raises:
            PrivacyError: the model or the optimizer cannot be trained privately as it is.
            ConfigurationError: nothing is trainable, or ranks disagree on the plan.
        """
        admit_model(model)
        admit_optimizer(optimizer, model)
        self._model, self._optimizer = self._backend.place(model, optimizer)
        self._parameters = [p for p in self._model.parameters() if p.requires_grad]
        ranks.require_agreement(
            {
                "the version of dpacc": dpacc.__version__,
                "the privacy plan": self.plan.fingerprint,
                "the number of trainable parameters": sum(p.numel() for p in self._parameters),
            }
        )
        ranks.start_alike(self._parameters)
        self._buffer = attach_gradient_buffer(self._model)
        return cast(AnyModel, self._model), cast(AnyOptimizer, self._optimizer)

    def steps(
        self,
        dataset: Sequence[Any],
        collate: Collate,
        *,
        probe_examples: Sequence[Any] | None = None,
    ) -> Iterator[LogicalStep]:
        """The plan's logical steps, Poisson-sampled from `dataset`.

        Args:
            dataset: N examples by index; one with an "input_ids" field is cut by its length.
            collate: makes a batch of a list of examples.
            probe_examples: invented examples for the coupling probe, if none can be made up from
                the dataset's fields.

        Raises:
            ConfigurationError: the dataset's size is not the plan's, on any rank.
            PrivacyError: the probe finds that examples are coupled, or a step was left without
                its update.
            BudgetExhausted: the ledger already holds all the plan's steps.
        """
        self._require_dataset_of_the_plan(dataset)
        ranks.on_main_process(self.accelerator, self._open_ledger)
        self._steps_charged = ranks.share_from_main(self._steps_charged)
        if self._steps_charged >= self.plan.steps:
            raise BudgetExhausted(
                f"{self._ledger_path} already holds all {self.plan.steps} steps of the plan; "
                "start a new run, whose budget adds to this one's"
            )
        if probe_examples is None:
            probe_examples = made_up_examples(model=self._model, like=dataset[0])
        probe: CouplingProbe | None = CouplingProbe(model=self._model, examples=probe_examples)
        sampler = PoissonSampler(
            dataset_size=self.plan.dataset_size,
            expected_batch_size=self.plan.expected_batch_size,
            secret=self._secret,
        )
        for index in range(self._steps_charged, self.plan.steps):
            drawn = [dataset[int(i)] for i in sampler.draw(step=index)]
            step = LogicalStep(
                index=index,
                plan=self.plan,
                micro_batches=self._share_of_this_rank(drawn),
                placeholder=probe_examples[0],
                probe=probe,
                present=partial(self._present, collate),
                per_example_gradients=self._per_example_gradients,
                release=self._release,
                clipped=self._zero_sum(),
            )
            yield step
            step.require_updated()
            probe = None

    def guarantee(self) -> Guarantee:
        """(ε, δ) of what has been charged so far."""
        return self.plan.guarantee(steps=self._steps_charged)

    @property
    def steps_charged(self) -> int:
        """How many logical steps the ledger holds."""
        return self._steps_charged

    def close(self) -> None:
        """Close the ledger; the next run may open it."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    def _require_dataset_of_the_plan(self, dataset: Sequence[Any]) -> None:
        if not hasattr(self, "_model"):
            raise ConfigurationError("call engine.prepare(model, optimizer) before engine.steps")
        if len(dataset) != self.plan.dataset_size:
            raise ConfigurationError(
                f"the dataset has {len(dataset)} examples and the plan dataset_size="
                f"{self.plan.dataset_size}; calibrate the plan for this dataset"
            )

    def _open_ledger(self) -> None:
        if self._ledger is None:
            self._ledger = Ledger.open(path=self._ledger_path, plan=self.plan.to_json())
            self._steps_charged = self._ledger.steps_charged
        if self._secret.fixed_seed is not None:
            self._ledger.note(
                subject="fixed-seed",
                text=f"sampling and noise came from the fixed seed {self._secret.fixed_seed}",
            )

    def _share_of_this_rank(self, drawn: list[Any]) -> list[list[Any]]:
        cut = cut_into_micro_batches(
            lengths=[_length(example) for example in drawn],
            ranks=self.accelerator.num_processes,
            max_tokens=self.micro_batch_tokens,
        )
        mine = cut[self.accelerator.process_index]
        return [[drawn[position] for position in positions] for positions in mine]

    def _present(self, collate: Collate, examples: list[Any]) -> Any:
        return send_to_device(collate(examples), self.accelerator.device)

    def _zero_sum(self) -> Tensor:
        return torch.zeros(self._buffer.width, dtype=torch.float32, device=self.accelerator.device)

    def _per_example_gradients(self, losses: Tensor, examples: int) -> Tensor:
        """Run the backward and return its [examples, width] fp32 rows."""
        _require_one_loss_per_example(losses, examples)
        self._buffer.open(examples=examples)
        self._backend.backward(losses.sum())
        refuse_raw_gradients(self._model)
        if not self._buffer.touched:
            raise PrivacyError(
                "the losses depend on no adapter; enable the adapters, and compute the losses "
                "with the model that prepare() returned"
            )
        return self._buffer.close()

    def _release(self, index: int, clipped: Tensor) -> None:
        """Reduce, charge, noise once, update: the only way anything leaves a step."""
        refuse_replaced_adapters(self._model, self._parameters)
        admit_optimizer(self._optimizer, self._model)
        total = ranks.sum_over_ranks(self.accelerator, clipped)
        ranks.on_main_process(self.accelerator, lambda: self._charge(index))
        self._steps_charged = index + 1
        private = (total + self._noise(index)) / self.plan.expected_batch_size
        self._backend.update(self._parameters, private)

    def _charge(self, index: int) -> None:
        assert self._ledger is not None
        self._ledger.charge(step=index, event=self.plan.step_event)

    def _noise(self, index: int) -> Tensor:
        normals = standard_normals(secret=self._secret, step=index, count=self._buffer.width)
        noise = torch.from_numpy(normals).to(self.accelerator.device)
        return noise.mul_(self.plan.noise_standard_deviation)


def _agree_on_secret(fixed_seed: int | None) -> RunSecret:
    if fixed_seed is not None:
        return RunSecret.from_fixed_seed(fixed_seed)
    return RunSecret(ranks.share_from_main(secrets.token_bytes(SECRET_BYTES)))


def _length(example: Any) -> int:
    try:
        return len(example["input_ids"])
    except (KeyError, TypeError, IndexError):
        return 1


def _require_one_loss_per_example(losses: Tensor, examples: int) -> None:
    if losses.ndim != 1 or len(losses) != examples:
        raise PrivacyError(
            f"losses have shape {tuple(losses.shape)} for a micro-batch of {examples} examples; "
            "give one loss per example, as dpacc.causal_lm_losses does (model(...).loss is a mean "
            "over the batch)"
        )
    if not losses.requires_grad:
        raise PrivacyError(
            "the losses have no gradient; compute them outside torch.no_grad, with the model "
            "that prepare() returned"
        )
