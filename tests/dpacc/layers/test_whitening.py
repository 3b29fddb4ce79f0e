"""Whitened adapters: P makes public inputs white, gradients are exact, what is saved is LoRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from peft import PeftModel
from torch import nn
from torch.utils.data import DataLoader

from dpacc import PrivacyEngine as DropInEngine
from dpacc.errors import ConfigurationError
from dpacc.layers.adapters import attach_gradient_buffer
from dpacc.layers.whitening import WhitenedLinear, whiten
from dpacc.losses.per_example import causal_lm_losses
from dpacc.recipe.models import add_lora
from dpacc.step.engine import PrivacyEngine
from dpacc.step.strategies import Materialize
from tests.dpacc.layers.test_adapters import backward
from tests.dpacc.step.engine_runs import noiseless, plan_for
from tests.tiny_models import collate, examples, tiny_base

CPU = torch.device("cpu")
PUBLIC = examples([9, 14, 6, 11], seed=5)
PRIVATE = examples([7, 3, 12, 1, 9])


def whitened(family: str = "llama", *, moved: bool = True, directions: int = 4) -> Any:
    """A tiny model with whitened adapters, A moved away from zero on request."""
    model = add_lora(model=tiny_base(family), rank=3, alpha=6, method="whitened", seed=2)
    whiten(model=model, public_examples=PUBLIC, collate=collate, directions=directions)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and moved:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.train()


def layer_for(width: int) -> Any:
    layer: Any = nn.Linear(width, 3, bias=False)
    WhitenedLinear.adopt(layer)
    return layer


def test_the_main_directions_of_public_inputs_weigh_alike() -> None:
    """The first k second moments become the next one, the rest keep their ratios, P keeps size."""
    torch.manual_seed(0)
    scales = torch.tensor([50.0, 9.0, 4.0, 2.0, 1.0, 0.5])
    basis = torch.linalg.qr(torch.randn(6, 6)).Q
    inputs = torch.randn(400, 6) * scales @ basis.T + 30 * basis[:, 1]
    layer = layer_for(6)
    layer.whiten(inputs, directions=3)
    white = layer.mapped(inputs)
    before, after = (torch.linalg.svdvals(rows) for rows in (inputs, white))
    torch.testing.assert_close(after[:4], after[3].expand(4), rtol=1e-3, atol=0)
    torch.testing.assert_close(after[3:] / after[3], before[3:] / before[3], rtol=1e-3, atol=0)
    assert white.square().sum(dim=1).mean() == pytest.approx(6, rel=1e-4)


def test_few_or_flat_inputs_are_whitened_as_far_as_they_go() -> None:
    """Fewer inputs than directions, inputs on one line, and inputs that repeat themselves: what
    they do not reach is not blown up."""
    layer = layer_for(6)
    layer.whiten(torch.randn(3, 6), directions=32)
    assert layer.directions.shape == (6, 2)
    layer.whiten(torch.ones(50, 6), directions=4)
    assert layer.weight.isfinite().all()
    assert layer.mapped(torch.ones(6)).isfinite().all()
    twice = torch.randn(3, 6).repeat(20, 1)
    layer.whiten(twice, directions=4)
    assert layer.directions.shape == (6, 2)
    assert torch.linalg.svdvals(layer.mapped(torch.eye(6))).max() < 100


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_per_example_gradients_are_those_of_the_coordinates(family: str) -> None:
    """One backward equals autograd through A·P·x, one example at a time."""
    model = whitened(family)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all(name.endswith("coordinates") for name in trained)
    rows = []
    for example in PRIVATE:
        loss = causal_lm_losses(model, collate([example])).sum()
        if not loss.requires_grad or float(loss) == 0:  # a lone token predicts nothing
            rows.append(torch.zeros(sum(p.numel() for p in trained.values())))
            continue
        gradients = torch.autograd.grad(loss, list(trained.values()))
        rows.append(torch.cat([g.flatten() for g in gradients]))
    buffer = attach_gradient_buffer(model)
    kept = Materialize(buffer, backward, CPU).rows(causal_lm_losses(model, collate(PRIVATE)))
    torch.testing.assert_close(kept, torch.stack(rows), rtol=1e-4, atol=1e-6)
    assert kept.norm() > 0


@pytest.mark.parametrize("strategy", ["materialize", "ghost"])
def test_a_trained_adapter_is_saved_and_merged_as_ordinary_lora(
    strategy: str, tmp_path: Path
) -> None:
    """Trained by either strategy, then read by plain PEFT, or merged: the same outputs."""
    model = whitened(moved=False)
    fixed = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    engine = PrivacyEngine(
        Accelerator(cpu=True),
        noiseless(len(PRIVATE)),
        ledger=tmp_path / "ledger.jsonl",
        per_example_gradients=strategy,  # type: ignore[arg-type]
        fixed_seed=3,
    )
    adapters = [p for p in model.parameters() if p.requires_grad]
    engine.prepare(model, torch.optim.SGD(adapters, lr=1.0))
    for step in engine.steps(PRIVATE, collate):
        for batch in step:
            step.backward(causal_lm_losses(model, batch))
        step.update()
    engine.close()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.abs().max() > 0, name
        else:
            assert torch.equal(parameter, fixed[name]), name
    model.eval()
    expected = model(**collate(PRIVATE)).logits
    model.save_pretrained(tmp_path / "adapter")
    read = PeftModel.from_pretrained(tiny_base("llama"), tmp_path / "adapter").eval()
    assert not any(isinstance(module, WhitenedLinear) for module in read.modules())
    torch.testing.assert_close(read(**collate(PRIVATE)).logits, expected)
    merged = model.merge_and_unload()
    torch.testing.assert_close(merged(**collate(PRIVATE)).logits, expected, rtol=1e-4, atol=1e-5)


def test_no_example_moves_the_coordinates_by_more_than_the_clipping_norm(tmp_path: Path) -> None:
    """Whatever P is, one example's clipped gradient in A's coordinates has norm C at most."""
    model = whitened()
    plan = noiseless(1, expected_batch_size=1, steps=1, max_grad_norm=0.01)
    engine = PrivacyEngine(
        Accelerator(cpu=True), plan, ledger=tmp_path / "ledger.jsonl", fixed_seed=3
    )
    adapters = [p for p in model.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in adapters]
    engine.prepare(model, torch.optim.SGD(adapters, lr=1.0))
    for step in engine.steps(PRIVATE[:1], collate):
        for batch in step:
            step.backward(causal_lm_losses(model, batch))
        step.update()
    engine.close()
    moved = torch.cat(
        [(p.detach() - old).flatten() for p, old in zip(adapters, before, strict=True)]
    )
    assert moved.norm() == pytest.approx(0.01, rel=1e-3)


def test_a_state_that_was_saved_can_be_loaded() -> None:
    """What is saved is A·P, and loading takes P off again."""
    model = whitened()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    assert not any("coordinates" in name or "directions" in name for name in state)
    expected = [p.clone() for p in model.parameters() if p.requires_grad]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.zero_()
    model.load_state_dict(state)
    found = [p for p in model.parameters() if p.requires_grad]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    with pytest.raises(RuntimeError, match=r"lora_A\.default\.weight"):
        model.load_state_dict({n: v for n, v in state.items() if "lora_A" not in n})


def test_every_rank_and_every_run_finds_the_same_directions() -> None:
    """The same public examples give the same P, whatever was drawn before."""
    first = whitened()
    torch.randn(100)
    second = whitened()
    for one, two in zip(first.modules(), second.modules(), strict=True):
        if isinstance(one, WhitenedLinear):
            assert torch.equal(one.weight, two.weight)


def test_what_cannot_be_whitened_is_refused_with_the_remedy() -> None:
    """No public examples, and no whitened adapters."""
    model = whitened()
    with pytest.raises(ConfigurationError, match="held_out_data"):
        whiten(model=model, public_examples=[], collate=collate)
    plain = add_lora(model=tiny_base("llama"), rank=3, alpha=6)
    with pytest.raises(ConfigurationError, match="lora_method=whitened"):
        whiten(model=plain, public_examples=PUBLIC, collate=collate)


def test_a_plain_loop_trains_whitened_adapters(tmp_path: Path) -> None:
    """Behind make_private too, A alone moves, and what is saved holds it."""
    model = whitened(moved=False)
    adapters = [p for p in model.parameters() if p.requires_grad]
    engine = DropInEngine(ledger=tmp_path / "ledger.jsonl", fixed_seed=3)
    private, optimizer, loader = engine.make_private_with_plan(
        model=model,
        optimizer=torch.optim.SGD(adapters, lr=1.0),
        data_loader=DataLoader(PRIVATE, batch_size=3, collate_fn=collate),  # type: ignore[arg-type]
        plan=plan_for(len(PRIVATE), expected_batch_size=3, steps=2),
    )
    for batch in loader:
        optimizer.zero_grad()
        private(**batch).loss.backward()
        optimizer.step()
    engine.close()
    saved = {n: v for n, v in model.state_dict().items() if "lora_A" in n}
    assert len(saved) == len(adapters)
    assert all(value.abs().max() > 0 for value in saved.values())
