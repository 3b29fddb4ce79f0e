"""Fine-tune on private text with canaries in it, and measure how much privacy was really lost.

    accelerate launch --config_file launch_configs/cpu.yaml recipes/audit.py \\
        --config recipes/configs/audit/smollm2_reviews.yaml

The run is that of recipes/train.py, under the same plan, engine and loss. Among the private
examples are canaries, each put in by a coin of its own: sentences of random tokens, scored by how
far their loss fell (black-box: base model and adapter are all that is looked at), and Dirac
canaries on single adapter elements, scored by the noised gradients (white-box: as much as anybody
can see). Exits with 1 where either refutes the claim. The adapter is thrown away.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpacc.cli import terminal
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.settings import read_settings, setting

# What is heavy is imported where it is used, so that a mistake in the settings is told at once.
if TYPE_CHECKING:
    from accelerate import Accelerator

    from dpacc import PrivacyEngine, PrivacyPlan
    from dpacc.audit import Audit, DiracCanaries

# Settings of a training run that an audit has no use for.
_WITHOUT_EFFECT = (
    "held_out_data",
    "allow_held_out_overlap",
    "answers",
    "unit_field",
    "lora_dropout",
    "lora_top_layers",
    "warmup_steps",
    "average_iterates",
    "optimizer",
    "weight_decay",
    "per_example_gradients",
    "gradient_checkpointing",
    "evaluate_every",
    "checkpoint_every",
    "resume",
    "push_to_hub",
)

_USAGE = "accelerate launch --config_file launch_configs/cpu.yaml recipes/audit.py [settings]"


@dataclass(frozen=True, kw_only=True)
class AuditConfig(TrainingConfig):
    """The settings of a run, and of the canaries in it."""

    private_examples: int | None = setting(
        "Take only this many of the private examples. null takes all.", default=None, at_least=1
    )
    text_canaries: int = setting("Sentences of random tokens.", default=400, at_least=2)
    canary_tokens: int = setting("Tokens of each such sentence.", default=16, at_least=2)
    gradient_canaries: int = setting("Single adapter elements.", default=1000, at_least=2)
    confidence: float = setting(
        "Chance that a run which keeps its claim is not accused.", default=0.95, above=0, below=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task == "preference":
            raise ConfigurationError(
                "task=preference is trained with recipes/train.py and measured with "
                "recipes/evaluate.py; an audit compares no answers: choose another task"
            )
        defaults = {field.name: field.default for field in fields(self)}
        for name in _WITHOUT_EFFECT:
            if getattr(self, name) != defaults[name]:
                raise ConfigurationError(f"{name} has no effect in an audit; leave it out")


def main(arguments: Sequence[str]) -> int:
    """Read the settings, train, judge, and return the exit code."""
    config = read_settings(kind=AuditConfig, arguments=arguments, usage=_USAGE)
    from dpacc.artifacts.run_folder import unspent_folders_removed

    with unspent_folders_removed():
        return audit(config)


@dataclass(frozen=True, kw_only=True)
class Planted:
    """Canaries beside private examples, and the coins that decided which of them are in.

    Attributes:
        texts: sentences of random tokens.
        texts_in: which of them are learned.
        dirac: canaries in gradient space.
        dirac_in: which of them are added.
        examples: the private examples, and all canaries.
    """

    texts: list[Any]
    texts_in: Any
    dirac: DiracCanaries
    dirac_in: Any
    examples: list[Any]


def audit(config: AuditConfig) -> int:
    """One private run with canaries in its data, and what they prove: 1 if the claim is refuted."""
    from dpacc.artifacts.earlier_runs import begin_run
    from dpacc.recipe.assembly import adapters_for, base_for, plan_for
    from dpacc.recipe.training_data import read_training_data
    from dpacc.step.admission.positions import require_positions

    if config.subspace_rank is not None:
        raise ConfigurationError(
            "lora_method=subspace is not audited: canaries look for their own elements, and its "
            "second phase has noise in few directions; audit --lora_method lora"
        )
    accelerator = one_process()
    data = read_training_data(config=config)
    private = data.private[: config.private_examples]
    base, tokenizer = base_for(config=config, device=accelerator.device)
    require_positions(model=base, max_length=config.max_length)
    model = adapters_for(config=config, base=base)
    optimizer = torch_adamw(model, learning_rate=config.learning_rate)
    planted = plant(config, model, optimizer, private, tokenizer)
    # What is claimed, and carried out.
    plan = plan_for(config=config, dataset_size=len(planted.examples))
    folder = begin_run(output_dir=config.output_dir, name=config.name, plan=plan, say=terminal.say)
    terminal.say(
        f"{len(private)} private examples, {len(planted.texts)} text and "
        f"{config.gradient_canaries} gradient canaries, noise multiplier "
        f"{plan.noise_multiplier:g}, run folder {folder}"
    )
    engine = open_engine(config, accelerator, plan, folder)
    model, optimizer = engine.prepare(model, optimizer)
    measure = losses_of_canaries(config, model, planted, data.collate)
    before = measure()
    learn(config, engine, model, planted, like=private[0], pad=data.collate)
    return judge_all(config, plan, planted, fallen=before - measure(), folder=folder)


def one_process() -> Accelerator:
    """Where an audit runs."""
    import torch
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    if accelerator.num_processes > 1:
        raise ConfigurationError("an audit runs in one process; launch it with cpu or single_gpu")
    return accelerator


def torch_adamw(model: Any, *, learning_rate: float) -> Any:
    """AdamW over all that is trained: Dirac canaries look at every element of it."""
    import torch

    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate)


def plant(
    config: AuditConfig, model: Any, optimizer: Any, private: list[Any], tokenizer: Any
) -> Planted:
    """Canaries of both kinds, each in by a coin of its own."""
    import numpy as np

    from dpacc.audit import DiracCanaries
    from dpacc.audit.text_canaries import left_out, random_texts

    coins = np.random.default_rng()
    texts = random_texts(
        canaries=config.text_canaries,
        tokens=config.canary_tokens,
        vocabulary=len(tokenizer),
        avoid=tokenizer.all_special_ids,
        seed=config.seed,
    )
    texts_in = coins.random(len(texts)) < 0.5
    written = [t if included else left_out(t) for t, included in zip(texts, texts_in, strict=True)]
    dirac = DiracCanaries(
        model=model, optimizer=optimizer, canaries=config.gradient_canaries, seed=config.seed
    )
    dirac_in = coins.random(config.gradient_canaries) < 0.5
    nothing = left_out({"input_ids": [0], "labels": [0]})
    return Planted(
        texts=texts,
        texts_in=texts_in,
        dirac=dirac,
        dirac_in=dirac_in,
        examples=[
            *dirac.beside([*private, *written]),
            *dirac.examples(included=dirac_in, like=nothing),
        ],
    )


def open_engine(
    config: AuditConfig, accelerator: Accelerator, plan: PrivacyPlan, folder: Path
) -> PrivacyEngine:
    """The engine, which keeps each example's gradient: Dirac canaries stand in for one."""
    from dpacc import PrivacyEngine

    return PrivacyEngine(
        accelerator,
        plan,
        ledger=folder / "ledger.jsonl",
        micro_batch_tokens=config.micro_batch_tokens,
        per_example_gradients="materialize",
        dynamic_rank=config.dynamic_rank,
        budget=config.budget,
    )


def losses_of_canaries(
    config: AuditConfig, model: Any, planted: Planted, pad: Callable[[list[Any]], Any]
) -> Callable[[], Any]:
    """Measures the loss of each sentence of random tokens, in or not."""
    from dpacc.recipe.evaluation import losses_of_texts

    return partial(
        losses_of_texts,
        model=model,
        examples=planted.texts,
        collate=pad,
        max_tokens=config.micro_batch_tokens,
    )


def learn(
    config: AuditConfig,
    engine: PrivacyEngine,
    model: Any,
    planted: Planted,
    *,
    like: Any,
    pad: Callable[[list[Any]], Any],
) -> None:
    """The private loop, as any run has it."""
    from dpacc import causal_lm_losses
    from dpacc.step.admission.invented_examples import made_up_examples

    dirac, plan = planted.dirac, engine.plan
    losses = dirac.losses(causal_lm_losses)
    collate = dirac.collate(pad)
    rehearsal = dirac.beside(made_up_examples(model=model, like=like))
    progress = terminal.TrainingProgress(
        steps=plan.steps,
        epsilon_budget=config.epsilon,
        expected_batch_size=plan.expected_batch_size,
        visible=True,
    )
    model.train()
    with progress:
        for step in engine.steps(planted.examples, collate, probe_examples=rehearsal):
            for batch in step:
                step.backward(losses(model, batch))
            step.update()
            progress.advance(guarantee=engine.guarantee())
    engine.close()


def judge_all(
    config: AuditConfig, plan: PrivacyPlan, planted: Planted, *, fallen: Any, folder: Path
) -> int:
    """The scores, kept in files, and what they prove of the claim."""

    from dpacc.audit import Claim, judge
    from dpacc.audit.records import write_scores

    event = plan.event()
    claim = Claim.of_event(event=event, delta=plan.target_delta)
    # Ordinary examples add to the same elements, so those scores have no threshold known before.
    released = planted.dirac.scores(
        expected_batch_size=plan.expected_batch_size, max_grad_norm=plan.max_grad_norm
    )
    scored = {"text": (planted.texts_in, fallen), "gradient": (planted.dirac_in, released)}
    refuted = 0
    for kind, (included, scores) in scored.items():
        path = folder / f"{kind}_scores.json"
        write_scores(path=path, included=included, scores=scores, plan=plan)
        found = judge(included=included, scores=scores, claim=claim, confidence=config.confidence)
        _show(kind, found, folder)
        refuted += found.refuted
    terminal.say(f"scores and figures are in {folder}")
    return int(refuted > 0)


def _show(kind: str, found: Audit, folder: Path) -> None:
    from dpacc.audit.picture import draw_audit
    from dpacc.audit.wording import audit_rows

    titles = {
        "text": "Black-box audit: sentences of random tokens, scored by their loss",
        "gradient": "White-box audit: Dirac canaries, scored by the noised gradients",
    }
    (folder / f"{kind}_audit.png").write_bytes(draw_audit(audit=found))
    terminal.show_facts(title=titles[kind], facts=audit_rows(found))


if __name__ == "__main__":
    with terminal.one_line_errors():
        code = main(sys.argv[1:])
    sys.exit(code)
