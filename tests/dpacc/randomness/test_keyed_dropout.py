"""Dropout is an example's own: nobody else's presence, order or padding changes what it drops."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    DistilBertConfig,
)

from dpacc import PrivacyEngine
from tests.dpacc.step.engine_runs import LENGTHS, RecordingOptimizer, noiseless, plan_for
from tests.dpacc.trainer.test_private_trainer import private, trainer
from tests.tiny_models import (
    CONFIGURATIONS,
    TARGETS,
    collate,
    examples,
    losses_of,
    tiny_base,
    with_lora,
)

C = plan_for(1).max_grad_norm
RATES = {
    "llama": {"attention_dropout": 0.2},
    "gpt2": {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1},
    "bert": {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1},
    "roberta": {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1},
    "gpt_neox": {"hidden_dropout": 0.1, "attention_dropout": 0.1},
    "opt": {"dropout": 0.1, "attention_dropout": 0.1},
}
DISTILBERT = DistilBertConfig(
    vocab_size=96, dim=32, hidden_dim=48, n_layers=2, n_heads=4, num_labels=3, pad_token_id=0
)


def dropping(family: str, *, attention: str = "sdpa", lora_dropout: float = 0.0) -> Any:
    """A tiny model of `family` whose own layers drop out, unless `lora_dropout` does."""
    torch.manual_seed(0)
    if family == "distilbert":
        base = AutoModelForSequenceClassification.from_config(
            DISTILBERT, attn_implementation=attention
        )
        return with_lora(base, "bert", targets=["q_lin", "v_lin"])
    configuration = copy.deepcopy(CONFIGURATIONS[family])
    if not lora_dropout:
        configuration.update(RATES[family])
    classifies = family in ("bert", "roberta")
    loader = AutoModelForSequenceClassification if classifies else AutoModelForCausalLM
    base = loader.from_config(configuration, attn_implementation=attention)
    return with_lora(base, family, targets=TARGETS[family], lora_dropout=lora_dropout)


def summed(
    model: Any,
    data: Sequence[Any],
    ledger: Path,
    *,
    family: str = "llama",
    collate: Callable[[Any], Any] = collate,
    **settings: Any,
) -> torch.Tensor:
    """The un-noised sums of an open loop whose author seeds torch first, [steps, width]."""
    plan = noiseless(len(data), steps=2)
    optimizer = RecordingOptimizer([p for p in model.parameters() if p.requires_grad])
    engine = PrivacyEngine(Accelerator(cpu=True), plan, ledger=ledger, fixed_seed=3, **settings)
    model, _ = engine.prepare(model, optimizer)
    torch.manual_seed(0)
    for step in engine.steps(data, collate):
        for batch in step:
            step.backward(losses_of(family)(model, batch))
        step.update()
    engine.close()
    return torch.stack(optimizer.received) * plan.expected_batch_size


KINDS = [
    *(("llama", {"lora_dropout": 0.1}), ("llama", {}), ("llama", {"attention": "eager"})),
    *(("gpt2", {}), ("gpt2", {"attention": "eager"}), ("gpt_neox", {}), ("opt", {})),
    *(("bert", {}), ("roberta", {"attention": "eager"}), ("distilbert", {})),
]


def of_family(family: str) -> str:
    return "bert" if family == "distilbert" else family


@pytest.mark.parametrize(("family", "options"), KINDS)
def test_one_example_more_moves_the_sum_by_c_at_most(
    tmp_path: Path, family: str, options: dict[str, Any]
) -> None:
    """The sum of a neighbouring data set differs by C at most."""
    like = of_family(family)
    data = examples([*LENGTHS, 23], family=like)
    with_it, without = (
        summed(dropping(family, **options), some, tmp_path / f"{len(some)}.jsonl", family=like)
        for some in (data, data[:-1])
    )
    assert (with_it - without).norm(dim=1).max() <= C * (1 + 1e-4)


def test_masks_differ_from_step_to_step(tmp_path: Path) -> None:
    """An example that is drawn twice drops other numbers the second time."""
    sums = summed(dropping("bert"), examples([5], family="bert"), tmp_path / "a", family="bert")
    assert (sums[0] - sums[1]).norm() > 0.05 * C


@pytest.mark.parametrize(("family", "options"), KINDS)
def test_neither_cut_nor_strategy_nor_recomputation_changes_the_sum(
    tmp_path: Path, family: str, options: dict[str, Any]
) -> None:
    """One micro-batch, one example at a time, two passes, or activations computed again."""
    like = of_family(family)
    data = examples(LENGTHS, family=like)

    def run(name: str, *, recomputes: bool = False, **settings: Any) -> torch.Tensor:
        model = dropping(family, **options)
        if recomputes:
            model.gradient_checkpointing_enable()
            model.enable_input_require_grads()
        return summed(model, data, tmp_path / name, family=like, **settings)

    whole = run("whole", per_example_gradients="materialize")
    others = {
        "alone": run("alone", micro_batch_tokens=1),
        "ghost": run("ghost", per_example_gradients="ghost"),
        "again": run("again", per_example_gradients="ghost", recomputes=True),
    }
    for name, other in others.items():
        torch.testing.assert_close(other, whole, rtol=1e-3, atol=1e-6, msg=name)


def test_left_padding_keeps_an_examples_masks(tmp_path: Path) -> None:
    """Positions count from the first real token, so that padding on the left changes no mask."""

    def on_the_left(batch: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        padded = collate(batch)
        padded["labels"][:, 0] = -100  # which padding would learn to say
        places = (~padded["attention_mask"].bool()).sum(dim=1)
        rolled = {
            name: torch.stack(
                [torch.roll(row, int(by)) for row, by in zip(value, places, strict=True)]
            )
            for name, value in padded.items()
        }
        positions = (rolled["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
        return rolled | {"position_ids": positions}

    runs = [
        summed(
            dropping("gpt2", attention="eager"),
            examples(LENGTHS),
            tmp_path / f"{tokens}.jsonl",
            collate=on_the_left,
            micro_batch_tokens=tokens,
        )
        for tokens in (1, 10_000)
    ]
    torch.testing.assert_close(runs[0], runs[1], rtol=1e-3, atol=1e-6)


def test_a_trainer_with_adapter_dropout_keeps_to_c(tmp_path: Path) -> None:
    """The Trainer seeds torch with a public number; one example more still weighs C at most."""
    sums = []
    for data in (examples([*LENGTHS, 23]), examples([*LENGTHS, 23])[:-1]):
        model = with_lora(tiny_base("llama"), "llama", lora_dropout=0.05)
        optimizer = RecordingOptimizer([p for p in model.parameters() if p.requires_grad])
        run = trainer(
            tmp_path / str(len(data)),
            model=model,
            train_dataset=data,
            optimizers=(optimizer, None),
            per_device_train_batch_size=len(data),
            gradient_accumulation_steps=1,
            max_steps=1,
            privacy=private(
                noise_multiplier=1e-6, max_grad_norm=C, per_example_gradients="materialize"
            ),
        )
        run.train()
        sums.append(optimizer.received[0] * len(data))
    assert (sums[0] - sums[1]).norm() <= C * (1 + 1e-3)


@pytest.mark.parametrize("family", ["gpt2", "bert"])
def test_a_plain_loop_with_a_models_own_dropout_keeps_to_c(tmp_path: Path, family: str) -> None:
    """After `set_seed(0)` the masks of GPT-2 and BERT are no longer everybody's at once."""
    sums = []
    for size in (len(LENGTHS) + 1, len(LENGTHS)):
        data = examples([*LENGTHS, 23], family=family)[:size]
        model = dropping(family)
        optimizer = RecordingOptimizer([p for p in model.parameters() if p.requires_grad])
        engine = PrivacyEngine(
            Accelerator(cpu=True), ledger=tmp_path / f"{size}.jsonl", fixed_seed=3
        )
        model, private_optimizer, loader = engine.make_private_with_plan(
            model=model,
            optimizer=optimizer,
            data_loader=DataLoader(data, batch_size=size, collate_fn=collate),
            plan=noiseless(size, steps=1),
        )
        torch.manual_seed(0)
        for batch in loader:
            private_optimizer.zero_grad()
            model(**batch).loss.backward()
            private_optimizer.step()
        engine.close()
        sums.append(optimizer.received[0] * size)
    assert (sums[0] - sums[1]).norm() <= C * (1 + 1e-4)
