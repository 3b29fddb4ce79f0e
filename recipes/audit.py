"""Fine-tune on private text with canaries in it, and measure how much privacy was really lost.

    accelerate launch --config_file launch_configs/cpu.yaml recipes/audit.py \\
        --config recipes/configs/audit/smollm2_reviews.yaml

The run is that of recipes/train.py, under the same plan, engine and loss. Among the private
examples are canaries, each put in by a coin of its own: texts, scored from the last adapter and the
public base alone, and Dirac canaries on single adapter elements, scored by the noised gradients of
all steps (as much as anybody can see). Both verdicts hold together with the stated confidence.
Exits with 1 where either refutes the claim. The adapter is thrown away.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dpacc.audit.text_canaries import TEMPERATURE, CanaryKind
from dpacc.cli import terminal
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.settings import read_settings, setting

# What is heavy is imported where it is used, so that a mistake in the settings is told at once.
if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel

    from dpacc import PrivacyEngine, PrivacyPlan
    from dpacc.audit import Audit, Claim, DiracCanaries

TextScore = Literal["weights", "losses", "fall"]

# Settings of a training run that an audit has no use for.
_WITHOUT_EFFECT = (
    "held_out_data",
    "allow_held_out_overlap",
    "answers",
    "unit_field",
    "lora_dropout",
    "warmup_steps",
    "average_iterates",
    "per_example_gradients",
    "kernels",
    "compile",
    "gradient_checkpointing",
    "offload_activations",
    "evaluate_every",
    "checkpoint_every",
    "resume",
    "push_to_hub",
)

_USAGE = "accelerate launch --config_file launch_configs/cpu.yaml recipes/audit.py [settings]"


@dataclass(frozen=True, kw_only=True)
class AuditConfig(TrainingConfig):
    """The settings of a run, and of the canaries in it."""

    learning_rate: float = setting("Peak, of the run whose claim is audited.", above=0)
    private_examples: int | None = setting(
        "Take only this many of the private examples. null takes all.", default=None, at_least=1
    )
    text_canaries: int = setting("Canaries in text.", default=1000, at_least=2)
    canary_tokens: int = setting("Tokens of each.", default=5, at_least=2)
    canary_kind: CanaryKind = setting(
        "What they teach: unique-tokens, one token of its own each, behind random ones; "
        "rare-tokens, the same with the vocabulary's last; new-tokens, with tokens that no text "
        "has; random, all of their random tokens; high-temperature, all that the base samples "
        "after a random one.",
        default="unique-tokens",
    )
    canary_temperature: float = setting(
        "At which the base samples high-temperature canaries.", default=TEMPERATURE, above=0
    )
    text_score: TextScore = setting(
        "How the last adapter is read: weights, by how far it moved along each canary's gradient; "
        "losses, by how far losses fell; both without what canaries have in common. fall takes "
        "nothing out of the losses' fall.",
        default="weights",
    )
    gradient_canaries: int = setting(
        "Single adapter elements; 0 leaves them out.", default=1000, at_least=0
    )
    confidence: float = setting(
        "Chance that a run which keeps its claim is not accused, by either kind of canaries.",
        default=0.95,
        above=0,
        below=1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task == "preference":
            raise ConfigurationError(
                "task=preference is trained with recipes/train.py and measured with "
                "recipes/evaluate.py; an audit compares no answers: choose another task"
            )
        defaults = {field.name: field.default for field in fields(self)}
        if self.gradient_canaries == 1:
            raise ConfigurationError("gradient_canaries=1 tells nothing; take 0, or at least 2")
        if self.canary_kind != "high-temperature" and self.canary_temperature != TEMPERATURE:
            raise ConfigurationError(
                "canary_temperature has no effect without canary_kind=high-temperature"
            )
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
        texts: canaries in text, each with all that it would teach.
        texts_in: which of them are learned.
        dirac: canaries in gradient space.
        dirac_in: which of them are added.
        ordinary: the private examples, the texts as they stand in the data, and one of nothing.
    """

    texts: list[Any]
    texts_in: Any
    dirac: DiracCanaries
    dirac_in: Any
    ordinary: list[Any]

    @property
    def size(self) -> int:
        """N: every example in the data."""
        return len(self.ordinary) - 1 + len(self.dirac_in)


def audit(config: AuditConfig) -> int:
    """One private run with canaries in its data, and what they prove: 1 if the claim is refuted."""
    from dpacc.artifacts.earlier_runs import begin_run
    from dpacc.audit import Claim
    from dpacc.audit.last_adapter import SOUGHT, CanaryGradients
    from dpacc.audit.text_canaries import as_if_all_in
    from dpacc.recipe.assembly import adapters_for, plan_for
    from dpacc.recipe.optimizers import optimizer_for
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
    base, texts = base_and_canaries(config, accelerator)
    require_positions(model=base, max_length=config.max_length)
    model = adapters_for(config=config, base=base)
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = optimizer_for(learned, config=config, rate=config.learning_rate)
    planted = plant(config, model, optimizer, private, texts)
    # What is claimed, and carried out.
    plan = plan_for(config=config, dataset_size=planted.size)
    claim = Claim.of_event(event=plan.event(), delta=plan.target_delta)
    folder = begin_run(output_dir=config.output_dir, name=config.name, plan=plan, say=terminal.say)
    terminal.say(
        f"{len(private)} private examples, {len(planted.texts)} text and "
        f"{config.gradient_canaries} gradient canaries, noise multiplier "
        f"{plan.noise_multiplier:g}, run folder {folder}"
    )
    engine = open_engine(config, accelerator, plan, folder)
    model, optimizer = engine.prepare(model, optimizer)
    ordinary, collate = kept_activations(config, accelerator, model, planted, data.collate, folder)
    gradients = CanaryGradients(
        model=model,
        texts=as_if_all_in(standing=ordinary[len(private) : -1], texts=planted.texts),
        collate=collate,
        max_tokens=config.micro_batch_tokens,
    )
    learn(
        config,
        engine,
        model,
        planted.dirac,
        beside(planted, ordinary),
        like=private[0],
        pad=collate,
    )
    text = gradients.scores(read=config.text_score, mu=SOUGHT * claim.mu)
    return judge_all(config, plan, claim, planted, text=text, folder=folder)


def one_process() -> Accelerator:
    """Where an audit runs."""
    import torch
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    if accelerator.num_processes > 1:
        raise ConfigurationError("an audit runs in one process; launch it with cpu or single_gpu")
    return accelerator


def base_and_canaries(
    config: AuditConfig, accelerator: Accelerator
) -> tuple[PreTrainedModel, list[Any]]:
    """The base, which knows the canaries' new tokens if they have any, and canaries in text."""
    from dpacc.audit.text_canaries import canaries_for
    from dpacc.recipe.assembly import base_for

    if config.canary_kind == "new-tokens" and config.quantization != "none":
        raise ConfigurationError(
            "canary_kind=new-tokens adds to the embeddings of a base that is not quantized; "
            "choose unique-tokens, or quantization none"
        )
    base, tokenizer = base_for(config=config, device=accelerator.device)
    texts = canaries_for(
        kind=config.canary_kind,
        model=base,
        tokenizer=tokenizer,
        canaries=config.text_canaries,
        tokens=config.canary_tokens,
        temperature=config.canary_temperature,
        seed=config.seed,
    )
    return base, texts


def plant(
    config: AuditConfig, model: Any, optimizer: Any, private: list[Any], texts: list[Any]
) -> Planted:
    """Canaries of both kinds, each in by a coin of its own."""
    import numpy as np

    from dpacc.audit import DiracCanaries
    from dpacc.audit.text_canaries import left_out, planted

    coins = np.random.default_rng()
    texts_in = coins.random(len(texts)) < 0.5
    nothing = left_out({"input_ids": [0], "labels": [0]})
    return Planted(
        texts=texts,
        texts_in=texts_in,
        dirac=DiracCanaries(
            model=model, optimizer=optimizer, canaries=config.gradient_canaries, seed=config.seed
        ),
        dirac_in=coins.random(config.gradient_canaries) < 0.5,
        ordinary=[*private, *planted(texts, texts_in), nothing],
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


def kept_activations(
    config: AuditConfig,
    accelerator: Accelerator,
    model: Any,
    planted: Planted,
    pad: Callable[[list[Any]], Any],
    folder: Path,
) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The ordinary examples, or what frozen layers make of them, and their collate function."""
    from dpacc.layers.frozen_activations import FrozenActivations

    if not config.cache_frozen_activations:
        return planted.ordinary, pad
    frozen = FrozenActivations(
        model=model,
        examples=planted.ordinary,
        collate=pad,
        accelerator=accelerator,
        folder=folder,
    )
    return frozen.examples, frozen.collate


def beside(planted: Planted, ordinary: list[Any]) -> list[Any]:
    """All N examples, those that stand for Dirac canaries behind the others."""
    *others, nothing = ordinary
    dirac = planted.dirac
    return [*dirac.beside(others), *dirac.examples(included=planted.dirac_in, like=nothing)]


def learn(
    config: AuditConfig,
    engine: PrivacyEngine,
    model: Any,
    dirac: DiracCanaries,
    examples: list[Any],
    *,
    like: Any,
    pad: Callable[[list[Any]], Any],
) -> None:
    """The private loop, as any run has it."""
    from dpacc import causal_lm_losses
    from dpacc.step.admission.invented_examples import made_up_examples

    plan = engine.plan
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
        for step in engine.steps(examples, collate, probe_examples=rehearsal):
            for batch in step:
                step.backward(losses(model, batch))
            step.update()
            progress.advance(guarantee=engine.guarantee())
    engine.close()


def judge_all(
    config: AuditConfig,
    plan: PrivacyPlan,
    claim: Claim,
    planted: Planted,
    *,
    text: Any,
    folder: Path,
) -> int:
    """The scores, kept in files, and what they prove of the claim."""

    from dpacc.audit import judge
    from dpacc.audit.records import write_scores

    scored = {"text": (planted.texts_in, text)}
    if config.gradient_canaries:
        # Ordinary examples add to the same elements: no threshold is known before.
        released = planted.dirac.scores(
            expected_batch_size=plan.expected_batch_size, max_grad_norm=plan.max_grad_norm
        )
        scored["gradient"] = (planted.dirac_in, released)
    # An honest run must pass all of them.
    each = 1 - (1 - config.confidence) / len(scored)
    refuted = 0
    for kind, (included, scores) in scored.items():
        path = folder / f"{kind}_scores.json"
        write_scores(path=path, included=included, scores=scores, plan=plan)
        found = judge(included=included, scores=scores, claim=claim, confidence=each)
        _show(_titles(config)[kind], kind, found, folder)
        refuted += found.refuted
    terminal.say(f"scores and figures are in {folder}")
    return int(refuted > 0)


def _titles(config: AuditConfig) -> dict[str, str]:
    return {
        "text": f"The last adapter alone: {config.canary_kind} texts, read by {config.text_score}",
        "gradient": "Every step: Dirac canaries, scored by the noised gradients",
    }


def _show(title: str, kind: str, found: Audit, folder: Path) -> None:
    from dpacc.audit.picture import draw_audit
    from dpacc.audit.wording import audit_rows

    (folder / f"{kind}_audit.png").write_bytes(draw_audit(audit=found))
    terminal.show_facts(title=title, facts=audit_rows(found))


if __name__ == "__main__":
    with terminal.one_line_errors():
        code = main(sys.argv[1:])
    sys.exit(code)
