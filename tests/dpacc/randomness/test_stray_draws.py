"""What is random and no example's own is refused, by name, before a step is charged."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from dpacc import PrivacyEngine
from dpacc.errors import PrivacyError
from dpacc.losses.per_example import causal_lm_losses
from dpacc.randomness.keyed_dropout import resting
from tests.dpacc.randomness.test_keyed_dropout import dropping, summed
from tests.dpacc.step.engine_runs import RecordingOptimizer, noiseless
from tests.tiny_models import collate, examples

LONG = 6
Act = Callable[[Tensor], Tensor]


class Acting(nn.Module):
    """Does something to what it gets, in training."""

    def __init__(self, act: Act) -> None:
        super().__init__()
        self.act = act

    def forward(self, states: Tensor) -> Tensor:
        return self.act(states) if self.training else states


class Net(nn.Module):
    """One trained layer behind whatever `act` does."""

    def __init__(self, act: Act | nn.Module) -> None:
        super().__init__()
        self.noisy = act if isinstance(act, nn.Module) else Acting(act)
        self.layer = nn.Linear(4, 4)

    def forward(self, states: Tensor) -> Tensor:
        output: Tensor = self.layer(self.noisy(states))
        return output


def data_of(lengths: Sequence[int]) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    return [{"states": torch.randn(length, 4, generator=generator)} for length in lengths]


def padded(batch: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    states = [each["states"] for each in batch]
    return {"states": nn.utils.rnn.pad_sequence(states, batch_first=True)}


def losses(model: nn.Module, states: Tensor) -> Tensor:
    there = (states != 0).any(dim=2)
    losses: Tensor = (model(states).square().sum(dim=2) * there).sum(dim=1)
    return losses


def train(
    act: Act | nn.Module,
    ledger: Path,
    *,
    lengths: Sequence[int] = (3, 5, 4),
    collate: Callable[[Any], Any] = padded,
    **settings: Any,
) -> Tensor:
    """The un-noised sums of two steps, [2, width]."""
    torch.manual_seed(0)
    model = Net(act)
    optimizer = RecordingOptimizer(model.parameters())
    plan = noiseless(len(lengths), steps=2)
    engine = PrivacyEngine(Accelerator(cpu=True), plan, ledger=ledger, fixed_seed=3, **settings)
    model, _ = engine.prepare(model, optimizer)
    probes = data_of([2, 4, 3])
    try:
        for step in engine.steps(data_of(lengths), collate, probe_examples=probes):
            for batch in step:
                step.backward(losses(model, batch["states"]))
            step.update()
    except PrivacyError:
        assert engine.steps_charged == 0
        raise
    finally:
        engine.close()
    return torch.stack(optimizer.received) * len(lengths)


def jitter(states: Tensor) -> Tensor:
    return states * torch.empty_like(states).uniform_(0.9, 1.1)


def stochastic_depth(states: Tensor) -> Tensor:
    return states * (torch.rand((len(states), 1, 1)) > 0.2)


def on_a_coin(states: Tensor) -> Tensor:
    return states if np.random.uniform() > 0.2 else 2 * states


def from_its_own_generator(states: Tensor) -> Tensor:
    return states + torch.randn(states.shape, generator=torch.Generator().manual_seed(1))


def only_when_long(states: Tensor) -> Tensor:
    return states * torch.bernoulli(torch.ones(1)) if states.shape[1] >= LONG else states


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (jitter, r"noisy \(Acting\) draws random numbers by aten.uniform_"),
        (stochastic_depth, r"noisy \(Acting\) draws random numbers by aten.rand"),
        (from_its_own_generator, r"noisy \(Acting\) draws random numbers by aten.randn"),
        (functional.gumbel_softmax, r"noisy \(Acting\) draws random numbers by aten.exponential_"),
        (nn.AlphaDropout(0.1), r"noisy \(AlphaDropout\) draws random numbers by aten.bernoulli"),
        (nn.Dropout2d(0.1), r"noisy \(Dropout2d\) draws random numbers"),
        (on_a_coin, "drew from numpy's generator"),
        (lambda states: states * (1 + random.random()), "drew from Python's generator"),
        (
            lambda states: functional.dropout(states.transpose(0, 1), 0.1).transpose(0, 1),
            r"noisy \(Acting\) meets a tensor of shape \(2, 1, 4\) in a micro-batch of 1 examples",
        ),
    ],
)
def test_what_cannot_be_keyed_is_refused_by_name(
    tmp_path: Path, act: Act | nn.Module, words: str
) -> None:
    """Jitter, stochastic depth, noise, dropout over other dimensions: nothing is charged."""
    with pytest.raises(PrivacyError, match=words):
        train(act, tmp_path / "ledger.jsonl")


def test_a_draw_that_made_up_examples_do_not_cause_is_refused_too(tmp_path: Path) -> None:
    """Torch's generator is looked at after every micro-batch; short rows pass."""
    train(only_when_long, tmp_path / "short.jsonl")
    with pytest.raises(PrivacyError, match="drew from torch's generator"):
        train(only_when_long, tmp_path / "long.jsonl", lengths=(3, LONG, 4))


def test_a_layer_that_is_skipped_by_chance_is_skipped_for_everybody(tmp_path: Path) -> None:
    """One number for the whole step, in every micro-batch alike, is nobody's secret."""

    def skipping(states: Tensor) -> Tensor:
        return states * torch.rand([])

    whole = train(skipping, tmp_path / "whole.jsonl")
    cut = train(skipping, tmp_path / "cut.jsonl", micro_batch_units=1)
    torch.testing.assert_close(cut, whole, rtol=1e-5, atol=1e-7)
    assert (whole[0] - whole[1]).norm() > 1e-4


@pytest.mark.parametrize("shared", [1, 3])
def test_a_repeated_layer_drops_what_it_dropped(tmp_path: Path, shared: int) -> None:
    """Under activation checkpointing too, where one dropout serves several places."""

    def runs(states: Tensor) -> Tensor:
        for _ in range(shared):
            states = functional.dropout(states, 0.3)
        return states

    def again(states: Tensor) -> Tensor:
        states = states.requires_grad_()
        for _ in range(shared):
            states = checkpoint(functional.dropout, states, 0.3, use_reentrant=False)
        return states

    once = train(runs, tmp_path / "once.jsonl")
    twice = train(again, tmp_path / "twice.jsonl", per_example_gradients="ghost")
    torch.testing.assert_close(twice, once, rtol=1e-5, atol=1e-7)


def test_a_repetition_without_its_state_is_refused(tmp_path: Path) -> None:
    """Checkpointing that keeps no state would drop other numbers in the backward."""

    def forgetful(states: Tensor) -> Tensor:
        return checkpoint(
            lambda each: functional.dropout(each, 0.3).square(),
            states.requires_grad_(),
            use_reentrant=False,
            preserve_rng_state=False,
        )

    with pytest.raises(PrivacyError, match="leave preserve_rng_state=True"):
        train(forgetful, tmp_path / "ledger.jsonl")


def test_torch_is_left_as_it_was(tmp_path: Path) -> None:
    """Neither its functions nor its generators show that, or how often, private data passed."""
    functions = (functional.dropout, functional.scaled_dot_product_attention, torch.rand)
    torch.manual_seed(5)
    before = torch.get_rng_state(), np.random.get_state(legacy=False), random.getstate()
    steps = summed_after_seeding(tmp_path / "ledger.jsonl")
    assert steps == 2
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state(legacy=False)["state"]["pos"] == before[1]["state"]["pos"]
    assert random.getstate() == before[2]
    assert (
        functional.dropout,
        functional.scaled_dot_product_attention,
        torch.rand,
    ) == functions


def test_an_engine_that_was_left_in_the_middle_disturbs_no_other(tmp_path: Path) -> None:
    """Its steps may be forgotten, and so closed, while another's micro-batch is out."""
    engines = [
        PrivacyEngine(Accelerator(cpu=True), noiseless(2), ledger=tmp_path / name, fixed_seed=3)
        for name in ("left", "other")
    ]
    models = [
        engine.prepare(net, torch.optim.SGD(net.parameters()))[0]
        for engine, net in zip(engines, (Net(nn.Dropout(0.2)), Net(nn.Dropout(0.2))), strict=True)
    ]
    left, other = (
        engine.steps(data_of([2, 3]), padded, probe_examples=data_of([2, 4, 3]))
        for engine in engines
    )
    next(iter(next(left)))
    for batch in (step := next(other)):
        left.close()
        step.backward(losses(models[1], batch["states"]))
    step.update()
    assert [engine.steps_charged for engine in engines] == [0, 1]
    other.close()


def summed_after_seeding(ledger: Path) -> int:
    """How many steps a run takes that draws from torch's generator only where it is made."""
    with torch.random.fork_rng(devices=[]):
        model = dropping("llama", lora_dropout=0.1)
    optimizer = RecordingOptimizer([p for p in model.parameters() if p.requires_grad])
    engine = PrivacyEngine(
        Accelerator(cpu=True), noiseless(3, steps=2), ledger=ledger, fixed_seed=3
    )
    model, _ = engine.prepare(model, optimizer)
    for step in engine.steps(examples([3, 4, 5]), collate):
        for batch in step:
            step.backward(causal_lm_losses(model, batch))
        step.update()
    engine.close()
    return len(optimizer.received)


def masking(ids: Sequence[int], generator: np.random.Generator) -> list[int]:
    return [0 if generator.random() < 0.2 else each for each in ids]


def test_masks_that_an_example_seeds_itself_are_welcome(tmp_path: Path) -> None:
    """The remedy that the refusal names works, and gives an example the same masks anywhere."""

    def own_masks(batch: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        return collate(
            [
                each
                | {
                    "input_ids": masking(
                        each["input_ids"], np.random.default_rng(each["input_ids"])
                    )
                }
                for each in batch
            ]
        )

    sums = [
        summed(dropping("llama"), examples([5, 6, 9]), tmp_path / name, collate=own_masks, **cut)
        for name, cut in (("whole", {}), ("alone", {"micro_batch_tokens": 1}))
    ]
    torch.testing.assert_close(sums[0], sums[1], rtol=1e-3, atol=1e-6)


def test_a_dataset_that_is_random_when_read_is_refused(tmp_path: Path) -> None:
    """An example that differs from reading to reading, by a generator that all share."""

    class Cropping(list[dict[str, Any]]):
        def __getitem__(self, index: Any) -> Any:
            found = super().__getitem__(index)
            kept = random.randint(2, 4)
            return {name: value[:kept] for name, value in found.items()}

    with pytest.raises(PrivacyError, match=r"reading the dataset drew from Python's generator"):
        summed(dropping("llama"), Cropping(examples([5, 6])), tmp_path / "ledger.jsonl")


def test_dropout_can_be_put_to_rest(tmp_path: Path) -> None:
    """Modules stay in training mode, and every rate is zero meanwhile."""

    def at_rest(states: Tensor) -> Tensor:
        with resting():
            return functional.dropout(states, 0.5)

    torch.testing.assert_close(
        train(at_rest, tmp_path / "rest.jsonl"), train(lambda states: states, tmp_path / "no.jsonl")
    )
