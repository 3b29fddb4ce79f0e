"""The same training on movie reviews in several tools: SmolLM2, rank 16 on all projections.

Each function trains for ever and calls `turn(examples)` after every logical batch with the number
of its examples; the turn ends when the next logical batch may begin.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from contenders import CLIP, MODEL, RANK, SIGMA, TEXTS, private_engine, trainable
from torch import nn

LOGICAL_BATCH, MICRO_BATCH = 256, 8
TOP_LAYERS = 6

Turn = Callable[[int], None]
Examples = list[dict[str, list[int]]]
Collate = Callable[[Examples], dict[str, torch.Tensor]]


def model_and_data(
    dtype: str, top_layers: int | None = None
) -> tuple[nn.Module, Examples, Collate]:
    """The adapted model, every review as tokens, and padding to the longest of a batch."""
    from dpacc.data.records import read_records
    from dpacc.data.supervision import tokenize_examples
    from dpacc.recipe.examples import pad_examples
    from dpacc.recipe.models import add_lora, load_base

    base = load_base(model=str(MODEL), dtype=dtype)  # type: ignore[arg-type]
    model = add_lora(model=base.model, rank=RANK, alpha=2 * RANK, top_layers=top_layers)
    records = read_records(source=str(TEXTS), fields={"text": str})
    examples = tokenize_examples(records=records, tokenizer=base.tokenizer, max_length=512)
    collate = partial(pad_examples, pad_token_id=base.tokenizer.pad_token_id)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.train().to(device), examples, collate


def hf_trainer(
    turn: Turn, dtype: str, top_layers: int | None = None, private: bool = False
) -> None:
    """transformers' Trainer at its defaults: shuffled, 8 at a time, padded to their longest.

    `private` is DPTrainer, Opacus' hooks within it: Poisson draws, also 8 at a time.
    """
    from transformers import Trainer, TrainerCallback, TrainingArguments

    warnings.filterwarnings("ignore")
    model, examples, collate = model_and_data(dtype, top_layers)
    drawn = 0

    def counting(batch: Examples) -> dict[str, torch.Tensor]:
        nonlocal drawn
        drawn += len(batch)
        return collate(batch)

    class TakeTurns(TrainerCallback):
        def on_step_end(self, *arguments: Any, **options: Any) -> None:
            nonlocal drawn
            turn(drawn)
            drawn = 0

    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=MICRO_BATCH,
        gradient_accumulation_steps=LOGICAL_BATCH // MICRO_BATCH,
        max_steps=10_000,
        learning_rate=1e-4,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=10_000,
        use_cpu=not torch.cuda.is_available(),
    )
    kind: Any = Trainer
    options: dict[str, Any] = {}
    if private:
        from dptrainer import DPTrainer, PrivacyArguments

        kind = DPTrainer
        options["privacy_args"] = PrivacyArguments(
            noise_multiplier=SIGMA, per_sample_max_grad_norm=CLIP
        )
    kind(
        model=model,
        args=arguments,
        train_dataset=examples,
        data_collator=counting,
        callbacks=[TakeTurns()],
        **options,
    ).train()


def dpacc(
    turn: Turn,
    dtype: str,
    top_layers: int | None = None,
    cache_frozen_activations: bool = False,
    **settings: Any,
) -> None:
    """dpacc as the recipe runs it: Poisson draws, ledger, noise and checks included."""
    from dpacc import causal_lm_losses
    from dpacc.layers.frozen_activations import FrozenActivations

    model, examples, collate = model_and_data(dtype, top_layers)
    optimizer = torch.optim.AdamW(trainable(model), lr=1e-4)
    engine = private_engine(
        dataset_size=len(examples), expected_batch_size=LOGICAL_BATCH, **settings
    )
    model, optimizer = engine.prepare(model, optimizer)
    if cache_frozen_activations:
        frozen = FrozenActivations(
            model=model,
            examples=examples,
            collate=collate,
            accelerator=engine.accelerator,
            folder=Path(tempfile.mkdtemp()),
        )
        examples, collate = frozen.examples, frozen.collate
    drawn = 0

    def counting(batch: Examples) -> dict[str, torch.Tensor]:
        nonlocal drawn
        drawn += len(batch)
        return collate(batch)

    for step in engine.steps(examples, counting):
        drawn = 0
        for batch in step:
            step.backward(causal_lm_losses(model, batch))
        step.update()
        turn(drawn)


def opacus(turn: Turn, dtype: str) -> None:
    """Opacus' hooks under its BatchMemoryManager: Poisson draws, 8 at a time."""
    from opacus import PrivacyEngine
    from opacus.utils.batch_memory_manager import BatchMemoryManager
    from torch.utils.data import DataLoader

    warnings.filterwarnings("ignore")
    model, examples, collate = model_and_data(dtype)
    criterion = nn.CrossEntropyLoss(reduction="none")
    private, optimizer, loader = PrivacyEngine().make_private(
        module=model,
        optimizer=torch.optim.AdamW(trainable(model), lr=1e-4),
        data_loader=DataLoader(examples, batch_size=LOGICAL_BATCH, collate_fn=collate),  # type: ignore[arg-type]
        noise_multiplier=SIGMA,
        max_grad_norm=CLIP,
        poisson_sampling=True,
    )
    device = next(model.parameters()).device
    drawn = 0
    while True:
        with BatchMemoryManager(
            data_loader=loader, max_physical_batch_size=MICRO_BATCH, optimizer=optimizer
        ) as batches:
            for on_cpu in batches:
                batch = {name: tensor.to(device) for name, tensor in on_cpu.items()}
                targets = batch.pop("labels")[:, 1:]
                logits = private(**batch, use_cache=False).logits[:, :-1]
                losses = criterion(logits.transpose(1, 2).float(), targets).sum(dim=1)
                (losses / (targets != -100).sum(dim=1).clamp(min=1)).mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                drawn += len(targets)
                if not optimizer._is_last_step_skipped:
                    turn(drawn)
                    drawn = 0


def opake(turn: Turn, dtype: str) -> None:
    """Opake: its Poisson draws, 8 at a time, each 8 padded to their own longest.

    Its own trainer pads a whole draw to its longest text.
    """
    import opake.random
    from opake.dpsgd.sampling import PoissonSampler
    from opake_steps import OpakeStep

    model, examples, collate = model_and_data(dtype)
    step = OpakeStep(
        model,
        torch.optim.AdamW(trainable(model), lr=1e-4),
        expected=LOGICAL_BATCH,
        max_grad_norm=CLIP,
        noise_multiplier=SIGMA,
    )
    device = next(model.parameters()).device
    rate = LOGICAL_BATCH / len(examples)
    for places in PoissonSampler(
        examples, sample_rate=rate, n_steps=10_000, key=opake.random.key(0)
    ):
        for start in range(0, len(places), MICRO_BATCH):
            batch = collate([examples[at] for at in places[start : start + MICRO_BATCH]])
            step.backward({name: tensor.to(device) for name, tensor in batch.items()})
        step.update()
        turn(len(places))


Contender = Callable[[Turn, str], None]

CONTENDERS: dict[str, Contender] = {
    "Hugging Face Trainer": hf_trainer,
    "dpacc": dpacc,
    "dpacc compiled": partial(dpacc, compile="blocks"),
    "Opacus": opacus,
    "Opake": opake,
    "DPTrainer": partial(hf_trainer, private=True),
    "Trainer, top layers": partial(hf_trainer, top_layers=TOP_LAYERS),
    "dpacc, top layers": partial(dpacc, top_layers=TOP_LAYERS),
    "dpacc, top, cached": partial(dpacc, top_layers=TOP_LAYERS, cache_frozen_activations=True),
}
