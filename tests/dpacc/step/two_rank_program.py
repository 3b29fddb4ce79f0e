"""What each rank runs in `test_two_ranks`: seeded scenarios whose noised sums are kept."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainingArguments

from dpacc import PrivacyArguments, PrivacyEngine, PrivateTrainer
from dpacc.errors import ConfigurationError, DpaccError
from dpacc.losses.per_example import causal_lm_losses
from dpacc.losses.preferences import preference_losses
from dpacc.plan import PrivacyPlan
from dpacc.ranks.reduction import WireFormat
from dpacc.recipe.evaluation import held_out_perplexity
from tests.dpacc.layers.test_blocks import compiling
from tests.dpacc.layers.test_frozen_activations import trained
from tests.dpacc.step.engine_runs import RecordingOptimizer, plan_for, prepared, received, taken
from tests.forked_ranks import fork_ranks
from tests.tiny_models import collate, examples, tiny_base, tiny_model, with_lora
from tests.tiny_pairs import collate_pairs, pairs

SCENARIOS: dict[str, tuple[list[int], PrivacyPlan]] = {
    "ragged": ([7, 3, 12, 1, 9, 5, 5, 20, 2, 11], plan_for(10, expected_batch_size=6, steps=4)),
    "empty draws": ([4] * 300, plan_for(300, expected_batch_size=1, steps=6)),
    "correlated": (
        [7, 3, 12, 1, 9, 5, 5, 20, 2, 11],
        plan_for(
            10,
            expected_batch_size=3,
            steps=5,
            sampling="cyclic-poisson",
            noise_coefficients=(0.75, 0.5, 0.3),
        ),
    ),
    "allocated": (
        [7, 3, 12, 1, 9, 5, 5, 20, 2, 11],
        plan_for(10, expected_batch_size=4, steps=5, sampling="allocated"),
    ),
    "phases": (
        [7, 3, 12, 1, 9, 5, 5, 20, 2, 11],
        plan_for(
            10,
            expected_batch_size=2,
            steps=4,
            phases=[
                {"steps": 2, "expected_batch_size": 2, "noise_multiplier": 0.5},
                {"steps": 2, "expected_batch_size": 7, "noise_multiplier": 0.2},
            ],
        ),
    ),
    "one example": ([6], plan_for(1, expected_batch_size=1, steps=2)),
}


def run_scenarios(folder: Path) -> dict[str, torch.Tensor]:
    """The noised sums, [steps, width], of every scenario."""
    return {
        name: received(plan, examples(lengths), folder / f"{name}.jsonl", micro_batch_tokens=24)
        for name, (lengths, plan) in SCENARIOS.items()
    }


def users(folder: Path) -> torch.Tensor:
    """The noised sums of "ragged" where its ten examples belong to four users."""
    lengths, _ = SCENARIOS["ragged"]
    plan = plan_for(4, expected_batch_size=3, steps=4, unit="user")
    engine, model, optimizer = prepared(plan, folder / "users.jsonl", micro_batch_tokens=24)
    taken(engine, model, examples(lengths), units=[*"abbccccdad"])
    return torch.stack(optimizer.received) * plan.expected_batch_size


def within_subspace(folder: Path, wire: WireFormat = "fp32") -> torch.Tensor:
    """The gradients of "phases", whose second phase is within two directions of the first's."""
    lengths, plan = SCENARIOS["phases"]
    ledger = folder / f"subspace-{wire}.jsonl"
    engine, model, optimizer = prepared(
        plan, ledger, micro_batch_tokens=24, subspace_rank=2, wire=wire
    )
    taken(engine, model, examples(lengths))
    return torch.stack(optimizer.received)


def dropping_out(folder: Path) -> torch.Tensor:
    """The noised sums of "ragged" by a model with dropout before its adapters and in attention."""
    lengths, plan = SCENARIOS["ragged"]
    base = tiny_base("llama")
    for layer in base.model.layers:
        layer.self_attn.attention_dropout = 0.2
    dropping = with_lora(base, "llama", lora_dropout=0.2)
    engine, model, optimizer = prepared(
        plan, folder / "dropout.jsonl", model=dropping, micro_batch_tokens=24
    )
    taken(engine, model, examples(lengths))
    return torch.stack(optimizer.received) * plan.expected_batch_size


def compiled_blocks(folder: Path) -> torch.Tensor:
    """The noised sums of "ragged" where every rank has its blocks compiled."""
    lengths, plan = SCENARIOS["ragged"]
    settings: dict[str, Any] = {"micro_batch_tokens": 24, "compile": "blocks"}
    with pytest.MonkeyPatch.context() as patch, compiling(patch, "eager") as counters:
        sums = received(plan, examples(lengths), folder / "compiled.jsonl", **settings)
        assert counters["stats"]["unique_graphs"] > 0
    return sums


def preference_pairs(folder: Path, *, micro_batch_tokens: int = 40) -> torch.Tensor:
    """The noised sums of pairs of two answers, with dropout, whose losses compare the two."""
    plan = plan_for(len(pairs()), expected_batch_size=4, steps=3)
    engine, model, optimizer = prepared(
        plan,
        folder / f"pairs-{micro_batch_tokens}.jsonl",
        model=with_lora(tiny_base("llama"), "llama", lora_dropout=0.2),
        micro_batch_tokens=micro_batch_tokens,
    )
    for step in engine.steps(pairs(), collate_pairs):
        for batch in step:
            step.backward(preference_losses(model, batch))
        step.update()
    engine.close()
    return torch.stack(optimizer.received) * plan.expected_batch_size


def disagreement(folder: Path, accelerator: Accelerator) -> str:
    """What a rank is told when the ranks' plans differ."""
    plan = plan_for(10, steps=3 + accelerator.process_index)
    try:
        prepared(plan, folder / "disagreement.jsonl")
    except ConfigurationError as error:
        return str(error)
    return "no error"


def failed_charge(folder: Path, accelerator: Accelerator) -> str:
    """What a rank is told when rank 0 cannot write the ledger."""
    plan = plan_for(1, expected_batch_size=1, steps=1)
    engine, _, optimizer = prepared(plan, folder / "unwritable.jsonl")

    def fail(index: int) -> None:
        raise OSError("disk full")

    engine.run_ledger._write = fail  # type: ignore[method-assign]
    step = next(engine.steps(examples([6]), collate))
    for batch in step:
        step.backward(causal_lm_losses(engine._model, batch))
    try:
        step.update()
    except (OSError, DpaccError) as error:
        return f"{type(error).__name__}: {error}; updates: {len(optimizer.received)}"
    return "no error"


def uneven_memory(folder: Path, accelerator: Accelerator) -> torch.Tensor:
    """The "ragged" scenario where the second rank has room for fewer gradients than the first."""
    lengths, plan = SCENARIOS["ragged"]
    room = {0: 8, 1: 1}[accelerator.process_index]
    with mock.patch("dpacc.step.strategies.most_rows_that_fit", return_value=room):
        return received(
            plan,
            examples(lengths),
            folder / "uneven.jsonl",
            micro_batch_tokens=1000,
        )


def fresh_secret(folder: Path) -> torch.Tensor:
    """The noised sums of a run without a fixed seed."""
    lengths, plan = SCENARIOS["ragged"]
    return received(plan, examples(lengths), folder / "fresh.jsonl", seed=None)


def cached(folder: Path) -> torch.Tensor:
    """Adapters trained above activations that the ranks computed together."""
    (folder / "cached").mkdir(exist_ok=True)
    adapters, batches = trained(folder / "cached", cached=True)
    assert batches > 0
    return adapters


def plain_loop(folder: Path) -> torch.Tensor:
    """The noised sums of "empty draws" from a plain loop, which updates after a backward."""
    lengths, plan = SCENARIOS["empty draws"]
    model = tiny_model("llama")
    inner = RecordingOptimizer([p for p in model.parameters() if p.requires_grad])
    engine = PrivacyEngine(ledger=folder / "plain.jsonl", fixed_seed=3)
    model, optimizer, loader = engine.make_private_with_plan(
        model=model,
        optimizer=inner,
        data_loader=DataLoader(examples(lengths), batch_size=1, collate_fn=collate),
        plan=plan,
    )
    for batch in loader:
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    engine.close()
    return torch.stack(inner.received)


def private_trainer(folder: Path) -> torch.Tensor:
    """The noised sums of "ragged" from the Trainer, stopped after two steps and resumed."""
    lengths, plan = SCENARIOS["ragged"]
    received: list[torch.Tensor] = []
    for stop, resume in ((2, None), (plan.steps, True)):
        model = tiny_model("llama")
        inner = RecordingOptimizer([p for p in model.parameters() if p.requires_grad])
        trainer = PrivateTrainer(
            model=model,
            optimizers=(inner, None),
            args=TrainingArguments(
                output_dir=str(folder / "trainer"),
                per_device_train_batch_size=1,
                gradient_accumulation_steps=plan.expected_batch_size // 2,
                max_steps=plan.steps,
                save_strategy="steps",
                save_steps=2,
                report_to=[],
                disable_tqdm=True,
                use_cpu=True,
                ddp_backend="gloo",
            ),
            train_dataset=examples(lengths),
            data_collator=collate,
            callbacks=[StopAfter(stop)],
            privacy=PrivacyArguments(
                noise_multiplier=plan.noise_multiplier,
                max_grad_norm=plan.max_grad_norm,
                target_delta=plan.target_delta,
                fixed_seed=3,
            ),
        )
        trainer.train(resume_from_checkpoint=resume)
        received += inner.received
    return torch.stack(received) * plan.expected_batch_size


def perplexity() -> float:
    """Of held-out examples, which ranks share out among them."""
    held_out, model = examples(range(2, 30)), tiny_base("llama")
    for weight in model.parameters():  # far from alike for all words
        weight.data *= 8
    return held_out_perplexity(
        model=model, examples=held_out, collate=collate, max_tokens=64, accelerator=Accelerator()
    )


class StopAfter(TrainerCallback):
    """Ends a training after some steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_training_stop = state.global_step >= self.steps


def run_everything(folder: Path) -> None:
    """Run all of it as one rank of two, and write what this rank saw."""
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    seen = {
        "sums": run_scenarios(folder) | {"uneven memory": uneven_memory(folder, accelerator)},
        "users": users(folder),
        "dropout": dropping_out(folder),
        "subspace": within_subspace(folder),
        "subspace, 16 bits": within_subspace(folder, "bf16"),
        "compiled": compiled_blocks(folder),
        "pairs": preference_pairs(folder),
        "fresh secret": fresh_secret(folder),
        "disagreement": disagreement(folder, accelerator),
        "cached": cached(folder),
        "plain loop": plain_loop(folder),
        "trainer": private_trainer(folder),
        "perplexity": perplexity(),
        "failed charge": failed_charge(folder, accelerator),
    }
    torch.save(seen, folder / f"rank-{accelerator.process_index}.pt")
    accelerator.wait_for_everyone()  # a rank that closes its sockets early could fail the other
    accelerator.end_training()


def main() -> None:
    """Fork two ranks."""
    folder = Path(sys.argv[1])
    assert fork_ranks(lambda: run_everything(folder), ranks=2) == [0, 0]


if __name__ == "__main__":
    main()
