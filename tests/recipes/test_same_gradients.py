"""The recipe, a plain loop and the Trainer release the same numbers for one plan and one secret."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from dpacc_accounting import read_ledger
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from dpacc import PrivacyArguments, PrivacyEngine, PrivacyPlan, PrivateTrainer
from dpacc.randomness.run_secret import RunSecret
from dpacc.ranks.backends.replicated import Replicated
from dpacc.recipe.config import TrainingConfig, load_config
from dpacc.recipe.examples import load_training_examples, pad_examples
from dpacc.recipe.models import add_lora, load_base
from recipes.train import train
from tests.recipes.training import WORDS, as_arguments, settings, write_texts
from tests.tiny_models import save_tiny_llama


@pytest.fixture
def released() -> Iterator[list[torch.Tensor]]:
    """Every gradient that would reach an optimizer, by a known secret; none moves the model."""
    gradients: list[torch.Tensor] = []

    def keep(backend: Replicated, parameters: Any, gradient: torch.Tensor) -> None:
        gradients.append(gradient.clone())

    secret = RunSecret.from_fixed_seed(3)
    known = mock.patch("dpacc.ranks.collectives.agree_on_secret", return_value=secret)
    with known, mock.patch.object(Replicated, "update", keep):
        yield gradients


def model_and_examples(config: TrainingConfig) -> tuple[Any, list[Any], Any]:
    """What the recipe makes of its settings."""
    base = load_base(
        model=config.model,
        quantization=config.quantization,
        dtype=config.dtype,
        device=torch.device("cpu"),
    )
    model = add_lora(
        model=base.model,
        rank=config.lora_rank,
        alpha=config.lora_alpha,
        dropout=config.lora_dropout,
        target_modules=config.lora_target_modules,
        seed=config.seed,
    )
    private = list(load_training_examples(config=config, tokenizer=base.tokenizer))
    return model, private, partial(pad_examples, pad_token_id=base.tokenizer.pad_token_id)


def from_a_plain_loop(config: TrainingConfig, plan: PrivacyPlan, ledger: Path) -> None:
    """The plan in a plain loop."""
    model, private, collate = model_and_examples(config)
    model, optimizer, loader = PrivacyEngine(ledger=ledger).make_private_with_plan(
        model=model,
        optimizer=torch.optim.AdamW([p for p in model.parameters() if p.requires_grad]),
        data_loader=DataLoader(private, batch_size=12, collate_fn=collate),
        plan=plan,
        max_physical_batch_size=5,
    )
    for batch in loader:
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()


def from_the_trainer(config: TrainingConfig, plan: PrivacyPlan, folder: Path) -> None:
    """The plan in transformers' Trainer."""
    model, private, collate = model_and_examples(config)
    trainer = PrivateTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=3,
            gradient_accumulation_steps=4,
            max_steps=plan.steps,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=private,
        data_collator=collate,
        privacy=PrivacyArguments(
            noise_multiplier=plan.noise_multiplier,
            target_delta=plan.target_delta,
            max_grad_norm=plan.max_grad_norm,
        ),
    )
    trainer.train()


def test_all_three_release_the_same_gradients(
    tmp_path: Path, released: list[torch.Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    """Four steps each, by the recipe's own plan: equal to fp32 rounding, and not all noise."""
    save_tiny_llama(tmp_path / "model", words=WORDS)
    write_texts(tmp_path / "private.jsonl", count=60)
    values = settings(tmp_path, tmp_path / "runs") | {"epsilon": 10_000, "max_grad_norm": 1e-3}
    del values["held_out_data"]
    config = load_config(arguments=as_arguments(values))
    train(config)
    record = read_ledger(path=tmp_path / "runs/tiny/ledger.jsonl")
    plan = PrivacyPlan.from_json(record.plan)
    from_a_plain_loop(config, plan, tmp_path / "plain.jsonl")
    from_the_trainer(config, plan, tmp_path / "trainer")
    assert len(released) == 3 * 4
    recipe, plain, trainer = (torch.stack(released[i : i + 4]) for i in (0, 4, 8))
    noise = plan.noise_multiplier * plan.max_grad_norm / plan.expected_batch_size
    assert float(recipe.std()) > 2 * noise
    torch.testing.assert_close(plain, recipe, rtol=1e-4, atol=noise / 1000)
    torch.testing.assert_close(trainer, recipe, rtol=1e-4, atol=noise / 1000)
