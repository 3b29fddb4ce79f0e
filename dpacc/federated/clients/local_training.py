"""A client's share of a round: private steps of the project's own engine, on its own books."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from dpacc_accounting import Guarantee, Ledger
from dpacc_accounting.guarantee import Note

from dpacc.errors import BudgetExhausted
from dpacc.federated.aggregation.factors import CorrectedBase
from dpacc.federated.clients.client_data import ClientData
from dpacc.federated.clients.last_update import Update
from dpacc.federated.clients.local_adapter import LocalAdapter
from dpacc.federated.clients.optimizer_state import OptimizerMemory
from dpacc.federated.ranks.mixed_ranks import NestedRanks
from dpacc.federated.ranks.round_ranks import FirstRanks
from dpacc.federated.updates.layout import Arrays, load_arrays, trainable_arrays
from dpacc.layers.frozen_activations import FrozenActivations
from dpacc.plan import PrivacyPlan
from dpacc.randomness.run_secret import RunSecret
from dpacc.randomness.sampling import PoissonSampler, group_by_unit
from dpacc.ranks.collectives import join_ranks
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.objective import losses_for, probe_examples_for
from dpacc.step.engine import PrivacyEngine
from dpacc.step.logical_step import LogicalStep
from dpacc.step.unit_members import Members


class LocalTraining:
    """One client's model, plan, ledger and optimizer, over all rounds.

    The plan covers `rounds` rounds of `local_epochs` passes each, with the noise that keeps the
    client's own budget. Each round takes the next of the plan's steps from the ledger's count, so
    neither a restart nor a greedy server can make it spend more.

    Args:
        config: budget, task and optimizer.
        adapter: the model with the shared adapter; taken over.
        data: what it learns from.
        rounds: the most rounds that this client will join.
        local_epochs: expected passes over its data in one round.
        folder: where its ledger lives, and AdamW's state between rounds.
        set_aside: ε of the client's budget that is spent elsewhere.
        fixed_seed: for tests; noted in the ledger.
    """

    def __init__(
        self,
        *,
        config: TrainingConfig,
        adapter: LocalAdapter,
        data: ClientData,
        rounds: int,
        local_epochs: float,
        folder: Path,
        set_aside: float = 0.0,
        fixed_seed: int | None = None,
    ) -> None:
        base = adapter.base
        self._examples, self._units, self._collate = data.examples, data.units, data.collate
        self._losses_of = losses_for(config=config, model=base.model, tokenizer=base.tokenizer)
        self._invented = probe_examples_for(config=config, model=base.model, like=self._examples[0])
        self.steps_per_round = math.ceil(local_epochs * data.size / config.expected_batch_size)
        self.plan = PrivacyPlan.calibrate(
            dataset_size=data.size,
            expected_batch_size=config.expected_batch_size,
            steps=rounds * self.steps_per_round,
            target_epsilon=config.epsilon - set_aside,
            target_delta=config.delta_for(dataset_size=data.size),
            max_grad_norm=config.max_grad_norm,
            unit=config.unit_field or "example",
            unit_cap=config.unit_cap,
        )
        # The engine opens it at the first step, and an update that is sent again takes none.
        books = folder / "ledger.jsonl"
        self._charged_before = 0
        self._noted_before: tuple[Note, ...] = ()
        if config.budget is None or books.exists():
            with Ledger.open(path=books, plan=self.plan.to_json()) as ledger:
                self._charged_before, self._noted_before = ledger.steps_charged, ledger.notes
        self.ranks = adapter.ranks
        adapters = [p for p in adapter.model.parameters() if p.requires_grad]
        assert config.learning_rate is not None  # A client's settings name it.
        optimizer = torch.optim.AdamW(adapters, lr=config.learning_rate, weight_decay=0.0)
        self._round_rank = config.lora_rank
        self._engine = PrivacyEngine(
            local_accelerator(),
            self.plan,
            ledger=books,
            budget=config.budget,
            fixed_seed=fixed_seed,
            dynamic_rank=(lambda _: self._round_rank) if config.lora_method == "dylora" else None,
        )
        self._model, _ = self._engine.prepare(adapter.model, optimizer)
        self._memory = OptimizerMemory(optimizer, folder / self._optimizer_file)
        self._memory.restore()
        self._frozen: FrozenActivations | None = None
        if config.cache_frozen_activations:
            self._skip_frozen_layers(folder, data.public)
        self._base = CorrectedBase(self._model)
        self._steps: Iterator[LogicalStep] | None = None

    def run_round(self, start: Arrays, *, rank: int | None = None) -> Update:
        """Train from `start` for one round; every step is charged before it is taken.

        Args:
            start: the shared adapter.
            rank: how many first rows and columns learn in this round; by default all do.

        Raises:
            BudgetExhausted: the plan holds no step any more.
            LedgerError: a charge could not be written; nothing of the round may leave.
        """
        if self._steps is None:
            self._steps = self._engine.steps(
                self._examples,
                self._collate,
                units=self._units,
                probe_examples=self._invented,
            )
        load_arrays(self._model, self.ranks.narrow(start))
        self._base.apply(start)
        self._model.train()
        self._round_rank = self.ranks.shared if rank is None else rank
        taken = 0
        try:
            for step in itertools.islice(self._steps, self.steps_per_round):
                for batch in step:
                    step.backward(self._losses_of(self._model, batch))
                step.update()
                taken += 1
        except BaseException:
            # The next request goes on where the ledger stands, from an adapter that is whole.
            cast("Generator[LogicalStep]", self._steps).close()
            self._steps = None
            raise
        if taken == 0:
            raise BudgetExhausted(
                f"all {self.plan.steps} steps of the plan are spent; nothing more is given"
            )
        self._memory.keep()
        trained = self.ranks.widen(trainable_arrays(self._model))
        if rank is not None:  # what AdamW made of zeros is not of this round
            trained = FirstRanks(rank=rank, whole=start).kept(trained)
        return Update(arrays=trained, steps=taken)

    def unit_losses(
        self, start: Arrays, *, ranks: Sequence[int], voters: int, secret: RunSecret
    ) -> dict[int, npt.NDArray[np.float64]]:
        """Each drawn unit's mean loss with the first columns of B alone, for each of the ranks.

        Every example is computed alone, so that no other changes a digit of it. Private: nothing
        of this may leave the client.

        Args:
            start: the adapter.
            ranks: how many columns; 0 for none.
            voters: how many units are drawn, on average.
            secret: keys the draw.
        """
        members = Members(
            of_units=group_by_unit(units=self._units or range(len(self._examples))),
            cap=self.plan.unit_cap,
            singly=False,
            secret=secret,
        )
        expected = min(voters, len(members))
        sampler = PoissonSampler(
            dataset_size=len(members), expected_batch_size=expected, secret=secret
        )
        drawn = [members.in_step(int(unit), step=0) for unit in sampler.draw(step=0)]
        self._base.apply(start)
        self._model.eval()
        found = {}
        for rank in ranks:
            columns = NestedRanks(rank=rank, shared=self.ranks.rank)
            load_arrays(self._model, columns.widen(columns.narrow(start)))
            means = [np.mean([self._loss(at) for at in unit]) for unit in drawn]
            found[rank] = np.array(means, dtype=np.float64)
        return found

    def _loss(self, at: int) -> float:
        batch = send_to_device(self._collate([self._examples[at]]), self._engine.accelerator.device)
        with torch.no_grad():
            return float(self._losses_of(self._model, batch)[0])

    def note(self, *, subject: str, text: str) -> None:
        """Write into the ledger what qualifies its guarantee."""
        self._engine.note(subject=subject, text=text)

    @property
    def _optimizer_file(self) -> str:
        """One for each rank: a client that changes its own starts AdamW anew."""
        own = self.ranks.rank < self.ranks.shared
        return f"optimizer_rank_{self.ranks.rank}.safetensors" if own else "optimizer.safetensors"

    def _skip_frozen_layers(
        self, folder: Path, public: MutableMapping[str, torch.Tensor] | None
    ) -> None:
        """Compute once what the layers beneath the adapters make of this client's examples."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._frozen = FrozenActivations(
            model=self._model,
            examples=self._examples,
            collate=self._collate,
            accelerator=local_accelerator(),
            folder=folder,
            public=public,
        )
        self._examples, self._collate = self._frozen.examples, self._frozen.collate

    @property
    def steps_charged(self) -> int:
        """How many local steps the ledger holds."""
        return max(self._engine.steps_charged, self._charged_before)

    @property
    def spent(self) -> Guarantee:
        """What all charged steps promise, with what voids or qualifies it."""
        notes = (*self._noted_before, *self._engine.run_ledger.notes)
        return self.plan.guarantee(steps=self.steps_charged).noted(notes)

    def close(self) -> None:
        """Let go of the ledger, and of the activations that were kept."""
        self._engine.close()
        if self._frozen is not None:
            self._frozen.close()


def local_accelerator() -> Accelerator:
    """A client is one process; several in one process share what Accelerate keeps of it."""
    return join_ranks()
