"""The same LoRA step in several tools: SmolLM2, the same padded batch, the same adapters.

Each function loads everything and returns a callable that runs one optimizer step.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

MODEL = Path(__file__).parents[1] / "data/smollm2-135m-instruct"
TEXTS = Path(__file__).parents[1] / "data/movie_reviews/train.jsonl"
RANK, EXAMPLES, TOKENS = 16, 8, 128
CLIP, SIGMA = 1.0, 1.0

Step = Callable[[], None]


def model_and_batch() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """SmolLM2 in fp32 with rank-16 LoRA on all projections, and 8 sequences of 128 tokens."""
    from dpacc.recipe.models import add_lora, load_base

    base = load_base(model=str(MODEL), dtype="float32")
    model = add_lora(model=base.model, rank=RANK, alpha=2 * RANK)
    text = TEXTS.read_text(encoding="utf-8")[: EXAMPLES * TOKENS * 12]
    ids = torch.tensor(base.tokenizer(text)["input_ids"][: EXAMPLES * TOKENS])
    ids = ids.view(EXAMPLES, TOKENS)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}
    return model.train().to(device), {name: tensor.to(device) for name, tensor in batch.items()}


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The adapters' parameters."""
    return [p for p in model.parameters() if p.requires_grad]


def non_private() -> Step:
    """PEFT and torch's AdamW, as one would train without privacy: the floor."""
    model, batch = model_and_batch()
    optimizer = torch.optim.AdamW(trainable(model), lr=1e-4)

    def step() -> None:
        model(**batch, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def private_engine(*, dataset_size: int, expected_batch_size: int, **settings: Any) -> Any:
    """dpacc's engine for as many steps as anybody times; its ledger is thrown away."""
    from accelerate import Accelerator

    from dpacc import PrivacyEngine, PrivacyPlan

    plan = PrivacyPlan(
        dataset_size=dataset_size,
        expected_batch_size=expected_batch_size,
        steps=10_000,
        noise_multiplier=SIGMA,
        max_grad_norm=CLIP,
        target_delta=1e-5,
    )
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    ledger = Path(tempfile.mkdtemp()) / "ledger.jsonl"
    return PrivacyEngine(accelerator, plan, ledger=ledger, **settings)


def _dpacc(strategy: str, **settings: Any) -> Step:
    from dpacc import causal_lm_losses

    model, batch = model_and_batch()
    optimizer = torch.optim.AdamW(trainable(model), lr=1e-4)
    engine = private_engine(
        dataset_size=EXAMPLES,
        expected_batch_size=EXAMPLES,
        per_example_gradients=strategy,
        **settings,
    )
    model, optimizer = engine.prepare(model, optimizer)
    rows = [{name: t[i].tolist() for name, t in batch.items()} for i in range(EXAMPLES)]

    def collate(examples: list[Any]) -> dict[str, torch.Tensor]:
        if len(examples) == EXAMPLES:
            return batch
        from dpacc.recipe.examples import pad_examples

        return pad_examples(examples, pad_token_id=0)

    steps = engine.steps(rows, collate)

    def step() -> None:
        logical = next(steps)
        for micro_batch in logical:
            logical.backward(causal_lm_losses(model, micro_batch))
        logical.update()

    return step


def dpacc() -> Step:
    """dpacc keeping per-example gradients: ledger, cryptographic noise and checks included."""
    return _dpacc("materialize")


def dpacc_compiled() -> Step:
    """The same, with each block compiled."""
    return _dpacc("materialize", compile="blocks")


def dpacc_compiled_step() -> Step:
    """The same, with all from the words to the head compiled as one."""
    return _dpacc("materialize", compile="step")


def dpacc_ghost() -> Step:
    """dpacc going backward twice."""
    return _dpacc("ghost")


def _opacus(mode: str) -> Step:
    from opacus import PrivacyEngine
    from torch.utils.data import DataLoader, TensorDataset

    warnings.filterwarnings("ignore")
    model, batch = model_and_batch()
    loader = DataLoader(TensorDataset(batch["input_ids"].cpu()), batch_size=EXAMPLES)
    criterion = nn.CrossEntropyLoss(reduction="mean" if mode == "ghost" else "none")
    prepared = PrivacyEngine().make_private(
        module=model,
        optimizer=torch.optim.AdamW(trainable(model), lr=1e-4),
        data_loader=loader,
        noise_multiplier=SIGMA,
        max_grad_norm=CLIP,
        poisson_sampling=False,
        grad_sample_mode=mode,
        criterion=criterion,
        loss_reduction="mean",
    )
    targets = batch["labels"][:, 1:]

    if mode == "ghost":
        private, optimizer, loss_of, _ = prepared

        def step() -> None:
            logits = private(**batch, use_cache=False).logits[:, :-1]
            flat = logits.reshape(-1, logits.shape[-1])
            loss_of(flat, targets.reshape(-1), shape=targets.shape).backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    private, optimizer, _ = prepared

    def step_with_hooks() -> None:
        logits = private(**batch, use_cache=False).logits[:, :-1]
        losses = criterion(logits.transpose(1, 2), targets).mean(dim=1)
        losses.mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step_with_hooks


def opacus_hooks() -> Step:
    """Opacus keeping per-sample gradients with hooks."""
    return _opacus("hooks")


def opacus_ghost() -> Step:
    """Opacus with fast gradient clipping and ghost norms."""
    return _opacus("ghost")


def dp_lora() -> Step:
    """dp-lora's vanilla method: its gradient hooks and optimizer on a batch of our choosing."""
    from dp_lora import DPLoRAEngine
    from torch.utils.data import DataLoader, TensorDataset

    warnings.filterwarnings("ignore")
    model, batch = model_and_batch()
    loader = DataLoader(TensorDataset(batch["input_ids"].cpu()), batch_size=EXAMPLES)
    engine = DPLoRAEngine()
    private, optimizer, _ = engine.make_private_with_epsilon(
        model=model,
        optimizer=torch.optim.AdamW(trainable(model), lr=1e-4),
        data_loader=loader,
        target_epsilon=8.0,
        target_delta=1e-5,
        epochs=1,
        max_grad_norm=CLIP,
        method="vanilla",
    )

    def step() -> None:
        optimizer.zero_grad()
        private(**batch, use_cache=False).loss.backward()
        optimizer.step(engine.grad_sample_module.get_per_sample_grads())
        engine.grad_sample_module.clear_per_sample_grads()

    return step


def opake() -> Step:
    """Opake: torch.func's gradients of each example, clipped and noised, its patches on."""
    from opake_steps import OpakeStep

    model, batch = model_and_batch()
    step = OpakeStep(
        model,
        torch.optim.AdamW(trainable(model), lr=1e-4),
        expected=EXAMPLES,
        max_grad_norm=CLIP,
        noise_multiplier=SIGMA,
    )

    def one() -> None:
        step.backward(batch)
        step.update()

    return one


def dptrainer() -> Step:
    """DPTrainer: Opacus' hooks within transformers' Trainer, which takes the step."""
    from dptrainer import DPTrainer, PrivacyArguments
    from transformers import TrainingArguments

    warnings.filterwarnings("ignore")
    model, batch = model_and_batch()
    trainer = DPTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=EXAMPLES,
            max_steps=10_000,
            learning_rate=1e-4,
            save_strategy="no",
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
        ),
        train_dataset=[{"input_ids": ids} for ids in batch["input_ids"].cpu()],
        privacy_args=PrivacyArguments(noise_multiplier=SIGMA, per_sample_max_grad_norm=CLIP),
    )

    trainer.current_gradient_accumulation_steps = 1  # as its train() would

    def step() -> None:
        trainer.training_step(model, dict(batch))
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()

    return step


CONTENDERS: dict[str, Callable[[], Step]] = {
    "non-private PEFT": non_private,
    "dpacc": dpacc,
    "dpacc compiled": dpacc_compiled,
    "dpacc compiled step": dpacc_compiled_step,
    "dpacc ghost": dpacc_ghost,
    "Opacus hooks": opacus_hooks,
    "Opacus ghost": opacus_ghost,
    "dp-lora": dp_lora,
    "Opake": opake,
    "DPTrainer": dptrainer,
}
