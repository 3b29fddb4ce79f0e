"""A step that failed anywhere is not gone on with: no example is left out by an error."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from dpacc_accounting import LedgerError, read_ledger

from dpacc import PrivateTrainer
from dpacc.errors import PrivacyError
from dpacc.losses.per_example import causal_lm_losses
from dpacc.step.engine import PrivacyEngine
from dpacc.step.logical_step import LogicalStep
from dpacc.step.strategies import PerExampleGradients
from tests.dpacc.loops.test_drop_in import PlainRun
from tests.dpacc.step.engine_runs import LENGTHS, RecordingOptimizer, plan_for
from tests.dpacc.trainer.test_private_trainer import arguments, private
from tests.tiny_models import collate, examples, tiny_model

STRATEGIES: tuple[PerExampleGradients, ...] = ("materialize", "ghost")


class Run:
    """An open engine whose backwards, forwards or collations can be made to fail."""

    def __init__(self, ledger: Path, *, strategy: PerExampleGradients = "materialize") -> None:
        self.model = tiny_model("llama")
        self.inner = RecordingOptimizer([p for p in self.model.parameters() if p.requires_grad])
        self.engine = PrivacyEngine(
            Accelerator(cpu=True),
            plan_for(len(LENGTHS)),
            ledger=ledger,
            micro_batch_tokens=24,
            per_example_gradients=strategy,
            fixed_seed=3,
        )
        self.engine.prepare(self.model, self.inner)
        self.ledger = ledger
        self.collations = 0
        self.fails_at = -1
        self.steps = self.engine.steps(examples(LENGTHS), self._collate)
        self.step: LogicalStep = next(self.steps)

    def losses(self, batch: Any) -> torch.Tensor:
        return causal_lm_losses(self.model, batch)

    def go_on_whatever_fails(self) -> None:
        for batch in self.step:
            with suppress(torch.OutOfMemoryError):
                self.step.backward(self.losses(batch))

    def released(self) -> int:
        return len(read_ledger(path=self.ledger).releases) + len(self.inner.received)

    def _collate(self, batch: Any) -> Any:
        self.collations += 1
        if self.collations == self.fails_at:
            raise torch.OutOfMemoryError("collate")
        return collate(batch)


def out_of_memory_once(engine: PrivacyEngine, *, at: int) -> None:
    """Let the engine's backward number `at` run out of memory, as a long example may."""
    honest, calls = engine._backend.backward, [0]

    def backward(loss: torch.Tensor, keep_graph: bool) -> None:
        calls[0] += 1
        honest(loss, keep_graph)
        if calls[0] == at:
            raise torch.OutOfMemoryError("CUDA out of memory")

    engine._backend.backward = backward  # type: ignore[method-assign]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("at", [6, 7])
def test_a_step_whose_backward_ran_out_of_memory_is_not_released(
    tmp_path: Path, strategy: PerExampleGradients, at: int
) -> None:
    """A loop that catches the error and goes on would release the sum without those examples."""
    run = Run(tmp_path / "ledger.jsonl", strategy=strategy)
    out_of_memory_once(run.engine, at=at)
    with pytest.raises(PrivacyError, match="OutOfMemoryError"):
        run.go_on_whatever_fails()
    with pytest.raises(PrivacyError, match=r"would be left out.*resume"):
        run.step.update()
    with pytest.raises(PrivacyError, match="OutOfMemoryError"):
        next(run.steps)
    assert run.released() == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_failed_backward_cannot_be_tried_again(
    tmp_path: Path, strategy: PerExampleGradients
) -> None:
    """What it added before it failed is not known, so a second try could count twice."""
    run = Run(tmp_path / "ledger.jsonl", strategy=strategy)
    out_of_memory_once(run.engine, at=1)
    batch = next(iter(run.step))
    with pytest.raises(torch.OutOfMemoryError):
        run.step.backward(run.losses(batch))
    with pytest.raises(PrivacyError, match="OutOfMemoryError"):
        run.step.backward(run.losses(batch))


def test_losses_that_were_refused_are_not_a_backward(tmp_path: Path) -> None:
    """A loop that catches the refusal of a mean over the batch does not skip its examples."""
    run = Run(tmp_path / "ledger.jsonl")
    batches = iter(run.step)
    batch = next(batches)
    with pytest.raises(PrivacyError, match="shape"):
        run.step.backward(run.losses(batch).mean())
    with pytest.raises(PrivacyError, match="passed over"):
        next(batches)
    with pytest.raises(PrivacyError, match="without a backward"):
        run.step.update()
    assert run.released() == 0


def test_a_forward_that_failed_is_not_passed_over(tmp_path: Path) -> None:
    """`continue` after an error before the backward ends the step, whatever the loop catches."""
    run = Run(tmp_path / "ledger.jsonl")
    batches = iter(run.step)
    run.step.backward(run.losses(next(batches)))
    next(batches)
    with pytest.raises(PrivacyError, match="passed over"):
        next(batches)
    assert list(batches) == []
    with pytest.raises(PrivacyError, match="without a backward"):
        run.step.update()
    assert run.released() == 0


def test_a_collation_that_failed_ends_the_step(tmp_path: Path) -> None:
    """The loop that catches it may neither go on nor put another batch in its place."""
    run = Run(tmp_path / "ledger.jsonl")
    batches = iter(run.step)
    for _ in range(6):
        batch = next(batches)
        run.step.backward(run.losses(batch))
    run.fails_at = run.collations + 1
    with pytest.raises(torch.OutOfMemoryError):
        next(batches)
    with pytest.raises(PrivacyError, match="OutOfMemoryError"):
        run.step.backward(run.losses(batch))
    with pytest.raises(PrivacyError, match="OutOfMemoryError"):
        list(run.step)
    with pytest.raises(PrivacyError, match="OutOfMemoryError"):
        run.step.update()
    assert run.released() == 0


def test_a_second_iteration_does_not_pass_a_micro_batch_over(tmp_path: Path) -> None:
    """One that was handed out by an iteration that was left is still due its backward."""
    for fresh in (True, False):
        run = Run(tmp_path / f"ledger-{fresh}.jsonl")
        batches = iter(run.step)
        for _ in range(6):  # five of the probe, and one that was drawn
            batch = next(batches)
            run.step.backward(run.losses(batch))
        batch = next(batches)
        with pytest.raises(PrivacyError, match="passed over"):
            next(iter(run.step) if fresh else batches)
        with pytest.raises(PrivacyError, match="without a backward"):
            run.step.update()
        assert run.released() == 0


def test_a_step_may_be_left_between_two_micro_batches_and_gone_on_with(tmp_path: Path) -> None:
    """A loop that stops after a backward and iterates again takes every micro-batch once."""
    run = Run(tmp_path / "ledger.jsonl")
    taken = 0
    while not run.step.whole:
        for batch in run.step:
            run.step.backward(run.losses(batch))
            taken += 1
            if taken > 2:
                break
    run.step.update()
    assert run.released() == 2


def test_the_probe_that_was_left_begins_again(tmp_path: Path) -> None:
    """An iteration that is left after the first of its micro-batches does not spoil its verdict."""
    run = Run(tmp_path / "ledger.jsonl")
    for batch in run.step:
        run.step.backward(run.losses(batch))
        break
    for batch in run.step:
        run.step.backward(run.losses(batch))
    run.step.update()
    assert run.released() == 2


def test_a_step_whose_update_failed_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full at the charge stops the run, even one that catches the error."""
    run = Run(tmp_path / "ledger.jsonl")
    for batch in run.step:
        run.step.backward(run.losses(batch))

    def full(index: int) -> None:
        raise LedgerError("no space left")

    monkeypatch.setattr(run.engine._release, "_charge", full)
    with pytest.raises(LedgerError):
        run.step.update()
    with pytest.raises(PrivacyError, match="LedgerError"):
        run.step.update()
    with pytest.raises(PrivacyError, match="LedgerError"):
        next(run.steps)
    assert run.released() == 0


def test_a_plain_loop_does_not_go_on_after_a_failed_backward(tmp_path: Path) -> None:
    """Whatever it catches: no update, no other batch, no second try, no new pass."""
    run = PlainRun(tmp_path / "ledger.jsonl", max_physical_batch_size=1)
    batches = iter(run.loader)
    for _ in range(6):
        run.train_on(next(batches))
    out_of_memory_once(run.engine, at=1)
    batch = next(batches)
    with pytest.raises(torch.OutOfMemoryError):
        run.train_on(batch)
    with pytest.raises(PrivacyError):
        run.optimizer.step()
    with pytest.raises(PrivacyError, match="OutOfMemoryError"):
        run.train_on(batch)
    with pytest.raises(PrivacyError):
        next(batches)
    with pytest.raises(PrivacyError):
        next(iter(run.loader))
    assert run.inner.received == []
    assert read_ledger(path=tmp_path / "ledger.jsonl").releases == ()


def test_a_trainer_that_catches_a_failed_backward_does_not_update(tmp_path: Path) -> None:
    """A training step of one's own that returns 0 where the memory ran out ends the run."""

    class Careless(PrivateTrainer):
        def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
            assert self._engine is not None
            out_of_memory_once(self._engine, at=6)
            try:
                return super().training_step(*arguments, **options)
            except torch.OutOfMemoryError:
                return torch.zeros(())

    careless = Careless(
        args=arguments(tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=5),
        model=tiny_model("llama"),
        train_dataset=examples(LENGTHS),
        data_collator=collate,
        privacy=private(),
    )
    with pytest.raises(PrivacyError, match="OutOfMemoryError"):
        careless.train()
    assert read_ledger(path=tmp_path / "ledger.jsonl").releases == ()


def test_a_layer_writes_nowhere_after_a_failed_backward(tmp_path: Path) -> None:
    """The buffer is closed, so a backward of the loop's own is refused as ever."""
    run = Run(tmp_path / "ledger.jsonl", strategy="ghost")
    out_of_memory_once(run.engine, at=1)
    batch = next(iter(run.step))
    with pytest.raises(torch.OutOfMemoryError):
        run.step.backward(run.losses(batch))
    with pytest.raises(PrivacyError, match=r"outside step\.backward"):
        run.losses(batch).sum().backward()


def test_a_refusal_of_the_probe_is_not_passed_over(tmp_path: Path) -> None:
    """A loop that catches it and iterates again gets no real example."""
    run = Run(tmp_path / "ledger.jsonl")

    def train_on_means() -> None:
        for batch in run.step:
            losses = run.losses(batch)
            run.step.backward(losses / len(losses))

    with pytest.raises(PrivacyError, match="with the examples beside it"):
        train_on_means()
    with pytest.raises(PrivacyError, match="coupling probe failed"):
        next(iter(run.step))
    assert run.released() == 0
