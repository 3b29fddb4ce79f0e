"""The same logical steps on random text in several tools: each yields after every step."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from contenders import trainable
from random_bases import DEVICE
from torch import Tensor, nn

from dpacc import PrivacyEngine, PrivacyPlan, causal_lm_losses
from dpacc.recipe.config import PerExampleGradients
from dpacc.recipe.examples import pad_examples

SETTINGS = frozenset({"compile", "kernels"})
"""Those of dpacc's engine that make it faster and change nothing."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every tool trains on: `examples` sequences of `tokens` random tokens, `steps` times.

    `compile` is "none", or what is compiled: dpacc's "blocks", another tool's "model". `kernels`
    are dpacc's.
    """

    examples: int
    tokens: int
    steps: int
    micro_batch_tokens: int
    compile: str = "none"
    kernels: str = "torch"

    def rows(self, vocabulary: int) -> list[list[int]]:
        """The sequences."""
        rows: list[list[int]] = torch.randint(vocabulary, (self.examples, self.tokens)).tolist()
        return rows

    def batches(self, vocabulary: int) -> list[dict[str, Tensor]]:
        """The micro-batches of a step, for the tools that do not cut it themselves."""
        at_once = self.micro_batch_tokens // self.tokens
        parts = torch.tensor(self.rows(vocabulary), device=DEVICE).split(at_once)
        return [{"input_ids": ids, "labels": ids} for ids in parts]


def private(model: Any, work: Work, *, strategy: PerExampleGradients) -> Iterator[None]:
    """dpacc: coupling probe, sampling, clipping, ledger, noise."""
    plan = PrivacyPlan(
        dataset_size=work.examples,
        expected_batch_size=work.examples,
        steps=work.steps,
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        target_delta=1e-5,
    )
    optimizer = torch.optim.AdamW(trainable(model), lr=1e-4)
    with tempfile.TemporaryDirectory() as folder:
        engine = PrivacyEngine(
            Accelerator(cpu=DEVICE.type == "cpu"),
            plan,
            ledger=Path(folder) / "ledger.jsonl",
            per_example_gradients=strategy,
            micro_batch_tokens=work.micro_batch_tokens,
            compile=work.compile,
            kernels=work.kernels,
        )
        model, optimizer = engine.prepare(model, optimizer)
        data = [{"input_ids": ids, "labels": ids} for ids in work.rows(model.config.vocab_size)]
        for step in engine.steps(data, lambda batch: pad_examples(batch, pad_token_id=0)):
            for batch in step:
                step.backward(causal_lm_losses(model, batch))
            step.update()
            yield
        engine.close()


def non_private(model: Any, work: Work) -> Iterator[None]:
    """PEFT and AdamW without privacy."""
    optimizer = torch.optim.AdamW(trainable(model), lr=1e-4)
    batches = work.batches(model.config.vocab_size)
    forward = model if work.compile == "none" else torch.compile(model)
    for _ in range(work.steps):
        for batch in batches:
            (forward(**batch, use_cache=False).loss / len(batches)).backward()
        optimizer.step()
        optimizer.zero_grad()
        yield


def opacus(model: Any, work: Work, *, mode: str) -> Iterator[None]:
    """Opacus; each micro-batch's gradients clipped and added up before the noise."""
    from opacus import PrivacyEngine as OpacusEngine
    from torch.utils.data import DataLoader

    warnings.filterwarnings("ignore")
    criterion = nn.CrossEntropyLoss(reduction="mean" if mode == "ghost" else "none")
    prepared = OpacusEngine().make_private(
        module=model,
        optimizer=torch.optim.AdamW(trainable(model), lr=1e-4),
        data_loader=DataLoader(range(work.examples), batch_size=work.examples),  # type: ignore[arg-type]
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        poisson_sampling=False,
        grad_sample_mode=mode,
        criterion=criterion,
        loss_reduction="mean",
    )
    wrapped: Any = prepared[0]
    optimizer: Any = prepared[1]
    batches = work.batches(model.config.vocab_size)
    for _ in range(work.steps):
        for place, batch in enumerate(batches, start=1):
            logits = wrapped(input_ids=batch["input_ids"], use_cache=False).logits[:, :-1]
            targets = batch["labels"][:, 1:]
            optimizer.signal_skip_step(do_skip=place < len(batches))
            if mode == "ghost":
                flat = logits.reshape(-1, logits.shape[-1])
                prepared[2](flat, targets.reshape(-1), shape=targets.shape).backward()
            else:
                criterion(logits.transpose(1, 2), targets).mean(dim=1).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        yield


def opake(model: Any, work: Work) -> Iterator[None]:
    """Opake's clipping and noise, its patches on."""
    from opake_steps import OpakeStep

    step = OpakeStep(
        model,
        torch.optim.AdamW(trainable(model), lr=1e-4),
        expected=work.examples,
        max_grad_norm=1.0,
        noise_multiplier=1.0,
    )
    batches = work.batches(model.config.vocab_size)
    for _ in range(work.steps):
        for batch in batches:
            step.backward(batch)
        step.update()
        yield


Tool = Callable[[Any, Work], Iterator[None]]

TOOLS: dict[str, Tool] = {
    "PEFT": non_private,
    "dpacc": partial(private, strategy="materialize"),
    "dpacc ghost": partial(private, strategy="ghost"),
    "Opacus hooks": partial(opacus, mode="hooks"),
    "Opacus ghost": partial(opacus, mode="ghost"),
    "Opake": opake,
}
