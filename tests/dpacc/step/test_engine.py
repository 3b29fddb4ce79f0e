"""The engine: what reaches the optimizer is the clipped sum plus noise, once, and charged."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from dpacc_accounting import read_ledger

from dpacc.errors import ConfigurationError, PrivacyError
from dpacc.layers.gradient_buffer import FirstGradient
from dpacc.losses.per_example import causal_lm_losses
from dpacc.step.engine import PrivacyEngine
from dpacc.step.release import Release
from tests.dpacc.step.engine_runs import (
    LENGTHS,
    Losses,
    RecordingOptimizer,
    assert_noise,
    noiseless,
    plan_for,
    prepared,
    received,
    sum_noise,
)
from tests.tiny_models import collate, examples, tiny_base, tiny_model, with_lora


def test_the_cut_into_micro_batches_does_not_change_the_sum(ledgers: Iterator[Path]) -> None:
    """One micro-batch or one example at a time: the same noised gradient to fp32 rounding."""
    data, plan = examples(LENGTHS), plan_for(len(LENGTHS), expected_batch_size=5)
    whole = received(plan, data, next(ledgers), micro_batch_tokens=10_000)
    for tokens in (1, 24, 60):
        cut = received(plan, data, next(ledgers), micro_batch_tokens=tokens)
        torch.testing.assert_close(cut, whole, rtol=1e-4, atol=1e-6)


def test_noise_is_drawn_while_the_backward_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its draw is under way in a thread of its own before the first backward, and the only one."""
    under_way, threads = threading.Event(), []
    draw = Release._draw

    def watched(release: Release, index: int) -> Any:
        threads.append(threading.current_thread().name)
        under_way.set()
        return draw(release, index)

    monkeypatch.setattr(Release, "_draw", watched)
    engine, model, optimizer = prepared(plan_for(2, steps=1), tmp_path / "ledger.jsonl")
    for step in engine.steps(examples([4, 6]), collate):
        for batch in step:
            assert under_way.wait(timeout=600)
            step.backward(causal_lm_losses(model, batch))
        step.update()
    engine.close()
    assert len(optimizer.received) == len(threads) == 1
    assert threads[0].startswith("noise")


def test_much_noise_is_drawn_when_the_backward_is_over(
    ledgers: Iterator[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a processor has no room for it beside the backward; it is the same, bit for bit."""
    plan, data = plan_for(len(LENGTHS)), examples(LENGTHS)
    ahead = received(plan, data, next(ledgers))
    monkeypatch.setattr("dpacc.step.release.MOST_DRAWN_AHEAD", 10)
    engine, model, optimizer = prepared(plan, next(ledgers))
    for step in engine.steps(data, collate):
        for batch in step:
            step.backward(causal_lm_losses(model, batch))
            assert engine._release._ahead is None
        step.update()
    engine.close()
    assert torch.equal(torch.stack(optimizer.received) * plan.expected_batch_size, ahead)


def adapted_throughout() -> Any:
    """A model with adapters on all of its projections."""
    return with_lora(tiny_base("llama"), "llama", targets="all-linear")


def test_the_sum_is_that_of_clipped_gradients(ledgers: Iterator[Path]) -> None:
    """Without noise the optimizer gets Σ min(1, C/‖g‖)·g / (qN), by a loop over examples."""
    from tests.dpacc.layers.test_adapters import loop_gradients

    data = examples(LENGTHS)
    plan = noiseless(len(data), steps=1, max_grad_norm=0.05)
    rows = loop_gradients(adapted_throughout(), "llama", data)
    norms = rows.norm(dim=1, keepdim=True)
    assert (norms > plan.max_grad_norm).any()
    expected = (rows * (plan.max_grad_norm / norms).clamp(max=1).nan_to_num(1.0)).sum(dim=0)
    released = received(plan, data, next(ledgers), model=adapted_throughout())[0]
    torch.testing.assert_close(released, expected, rtol=1e-4, atol=1e-7)


def test_noise_appears_exactly_once(ledgers: Iterator[Path]) -> None:
    """Noised minus clean sums have variance (σC)²: chi-square over 40 steps × all elements."""
    data = examples(LENGTHS)
    changes = {"steps": 40, "expected_batch_size": 4}
    noised = received(plan_for(len(data), **changes), data, next(ledgers))
    clean = received(noiseless(len(data), **changes), data, next(ledgers))
    assert_noise(noised - clean, sum_noise(plan_for(len(data))))


def test_empty_draws_still_release_noise(ledgers: Iterator[Path]) -> None:
    """A step in which nobody joined is noise of the full variance, and is charged."""
    data, ledger = examples([4] * 400), next(ledgers)
    plan = plan_for(len(data), steps=12, expected_batch_size=1)
    engine, model, optimizer = prepared(plan, ledger)
    empty = []
    for step in engine.steps(data, collate):
        count = 0
        for batch in step:
            step.backward(causal_lm_losses(model, batch))
            count += 1
        step.update()
        empty.append(count == 0)
    assert sum(empty) >= 2
    sums = torch.stack(optimizer.received)[torch.tensor(empty)]
    assert_noise(sums, sum_noise(plan))
    assert len(read_ledger(path=ledger).releases) == 12


def test_without_a_fixed_seed_runs_differ(ledgers: Iterator[Path]) -> None:
    """Every run draws its own secret."""
    data, plan = examples(LENGTHS), plan_for(len(LENGTHS))
    first, second = (received(plan, data, next(ledgers), seed=None) for _ in range(2))
    assert not torch.allclose(first, second)


# --- sensitivity --------------------------------------------------------------------------


POISON = 77


def losses_with_poison(model: torch.nn.Module, batch: Any) -> torch.Tensor:
    """NaN for every example that contains the poison token."""
    losses = causal_lm_losses(model, batch)
    poisoned = (batch["input_ids"] == POISON).any(dim=1)
    return losses * torch.where(poisoned, torch.tensor(float("nan")), torch.tensor(1.0))


@pytest.mark.parametrize("clipping", ["flat", "automatic"])
@pytest.mark.parametrize(
    "odd",
    ["usual", "100 times longer", "all padding", "no labels", "NaN", "huge loss"],
)
def test_one_example_changes_the_sum_by_at_most_c(
    odd: str, clipping: str, ledgers: Iterator[Path]
) -> None:
    """Neighbouring datasets' un-noised sums differ by at most C, whatever the example is."""
    neighbours = [e for e in examples([7, 3, 12, 2, 9]) if POISON not in e["input_ids"]]
    (extra,) = examples([200 if odd == "100 times longer" else 6], seed=9)
    extra["input_ids"] = [4 if token == POISON else token for token in extra["input_ids"]]
    if odd == "all padding":
        extra = {"input_ids": [], "labels": []}
    if odd == "no labels":
        extra = dict(extra, labels=[-100] * 6)
    if odd == "NaN":
        extra["input_ids"][2] = POISON
    scale = 1e12 if odd == "huge loss" else 1.0
    losses: Losses = lambda model, batch: scale * losses_with_poison(model, batch)  # noqa: E731
    bound = 0.05

    def total(data: list[Any]) -> torch.Tensor:
        plan = noiseless(len(data), steps=1, max_grad_norm=bound, clipping=clipping)
        settings = {"model": adapted_throughout(), "losses": losses, "micro_batch_tokens": 40}
        return received(plan, data, next(ledgers), **settings)[0]

    with_extra, without = total([*neighbours, extra]), total(neighbours)
    difference = (with_extra.double() - without.double()).norm()
    assert with_extra.isfinite().all()
    assert difference <= bound * (1 + 1e-5)
    if odd in ("usual", "100 times longer", "huge loss"):
        assert difference > 0.5 * bound
    if odd in ("all padding", "no labels", "NaN"):
        assert difference < 1e-6 * bound


def test_an_nf4_base_stays_differentiable_after_an_evaluation(ledgers: Iterator[Path]) -> None:
    """bitsandbytes packs 4-bit layers for CPU inference, which cuts the graph: not here."""
    from tests.dpacc.layers.test_adapters import quantized

    def sums(evaluate_first: bool) -> torch.Tensor:
        base = quantized(tiny_base("llama", hidden=64))
        model = with_lora(base, "llama")
        optimizer = RecordingOptimizer([p for p in model.parameters() if p.requires_grad])
        plan = noiseless(3, steps=1)
        engine = PrivacyEngine(Accelerator(cpu=True), plan, ledger=next(ledgers), fixed_seed=0)
        engine.prepare(model, optimizer)
        if evaluate_first:
            with torch.no_grad():
                model.eval()(**collate(examples([4])))
            model.train()
        for step in engine.steps(examples([4, 6, 2]), collate):
            for batch in step:
                step.backward(causal_lm_losses(model, batch))
            step.update()
        return optimizer.received[0]

    torch.testing.assert_close(sums(evaluate_first=True), sums(evaluate_first=False))


# --- coupled and malformed losses ---------------------------------------------------------


def batch_mean(model: torch.nn.Module, batch: Any) -> torch.Tensor:
    losses = causal_lm_losses(model, batch)
    return losses / len(losses)


def token_mean(model: torch.nn.Module, batch: Any) -> torch.Tensor:
    counts = (batch["labels"][:, 1:] != -100).sum(dim=1)
    return causal_lm_losses(model, batch) * counts / counts.sum()


def small_balance_term(model: torch.nn.Module, batch: Any) -> torch.Tensor:
    losses = causal_lm_losses(model, batch)
    return losses + 0.1 * losses.prod()


@pytest.mark.parametrize("losses", [batch_mean, token_mean, small_balance_term])
def test_coupled_losses_are_refused_before_the_first_step(
    losses: Losses, ledgers: Iterator[Path]
) -> None:
    """A loss that depends on the company it keeps stops the run before anything is charged."""
    ledger = next(ledgers)
    with pytest.raises(PrivacyError, match="with the examples beside it"):
        received(plan_for(len(LENGTHS)), examples(LENGTHS), ledger, losses=losses)
    assert read_ledger(path=ledger).releases == ()


def test_a_scalar_loss_is_refused(ledgers: Iterator[Path]) -> None:
    """model(...).loss is a mean over the batch; the error says what to use instead."""
    with pytest.raises(PrivacyError, match="causal_lm_losses"):
        received(
            plan_for(len(LENGTHS)),
            examples(LENGTHS),
            next(ledgers),
            losses=lambda model, batch: model(**batch).loss,
        )


def test_a_loss_outside_the_graph_is_refused(ledgers: Iterator[Path]) -> None:
    """Losses computed under no_grad, or by adapters that are off, train nothing."""
    data, plan = examples(LENGTHS), plan_for(len(LENGTHS))
    with pytest.raises(PrivacyError, match="no gradient"):
        received(plan, data, next(ledgers), losses=lambda m, b: causal_lm_losses(m, b).detach())


def test_another_datasets_plan_is_refused(ledgers: Iterator[Path]) -> None:
    """The plan's N must be the dataset's, or q is not what was priced."""
    with pytest.raises(ConfigurationError, match="9 examples and the plan dataset_size=10"):
        received(plan_for(10), examples(LENGTHS[:9]), next(ledgers))


def test_steps_before_prepare_are_refused(ledgers: Iterator[Path]) -> None:
    """The error names the call that is missing."""
    engine = PrivacyEngine(Accelerator(cpu=True), plan_for(10), ledger=next(ledgers))
    with pytest.raises(ConfigurationError, match=r"call engine\.prepare"):
        next(engine.steps(examples(LENGTHS), collate))


def test_a_ghost_run_keeps_no_gradient_after_the_probe(
    ledgers: Iterator[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe keeps a whole gradient, of a made-up example; none is left for the real ones."""
    kept: list[weakref.ref[FirstGradient]] = []
    original = FirstGradient.__init__

    def watched(self: FirstGradient, *arguments: Any, **named: Any) -> None:
        kept.append(weakref.ref(self))
        original(self, *arguments, **named)

    monkeypatch.setattr(FirstGradient, "__init__", watched)
    model = tiny_model("llama")
    trainable = [p for p in model.parameters() if p.requires_grad]
    engine = PrivacyEngine(
        Accelerator(cpu=True),
        plan_for(len(LENGTHS), steps=1),
        ledger=next(ledgers),
        per_example_gradients="ghost",
    )
    engine.prepare(model, RecordingOptimizer(trainable))
    step = next(engine.steps(examples(LENGTHS), collate))
    alive = []
    for batch in step:
        alive.append([rows() is not None for rows in kept])
        step.backward(causal_lm_losses(model, batch))
    assert [len(rows) for rows in alive][:3] == [0, 1, 2]
    assert not any(any(rows) for rows in alive)
