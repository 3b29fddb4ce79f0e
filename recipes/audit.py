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
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dpacc.cli import terminal
from dpacc.config import TrainingConfig
from dpacc.errors import ConfigurationError
from dpacc.settings import read_settings, setting

if TYPE_CHECKING:
    from dpacc.audit import Audit

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
        defaults = {field.name: field.default for field in fields(self)}
        for name in _WITHOUT_EFFECT:
            if getattr(self, name) != defaults[name]:
                raise ConfigurationError(f"{name} has no effect in an audit; leave it out")


def main(arguments: Sequence[str]) -> int:
    """Read the settings, train, judge, and return the exit code."""
    config = read_settings(kind=AuditConfig, arguments=arguments, usage=_USAGE)
    from dpacc.artifacts import unspent_folders_removed

    with unspent_folders_removed():
        return audit(config)


def audit(config: AuditConfig) -> int:
    """One private run with canaries in its data, and what they prove: 1 if the claim is refuted."""
    # Imported here, so that a mistake in the settings is told at once.
    import numpy as np
    import torch
    from accelerate import Accelerator
    from dpacc_accounting import Repeated

    from dpacc import PrivacyEngine, causal_lm_losses
    from dpacc.assembly import adapters_for, base_for, plan_for
    from dpacc.audit import Claim, DiracCanaries, judge
    from dpacc.audit.records import write_scores
    from dpacc.audit.text_canaries import left_out, random_texts
    from dpacc.data import load_training_examples, pad_examples
    from dpacc.earlier_runs import begin_run
    from dpacc.evaluation import losses_of_texts
    from dpacc.invented_examples import made_up_examples
    from dpacc.positions import require_positions
    from dpacc.pretrained import load_tokenizer

    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    if accelerator.num_processes > 1:
        raise ConfigurationError("an audit runs in one process; launch it with cpu or single_gpu")

    # The private examples, before any weights, and the model.
    tokenizer = load_tokenizer(model=config.model)
    private = load_training_examples(config=config, tokenizer=tokenizer)
    private = private[: config.private_examples]
    base = base_for(config=config, device=accelerator.device)
    require_positions(model=base.model, max_length=config.max_length)
    pad = partial(pad_examples, pad_token_id=base.tokenizer.pad_token_id)
    model = adapters_for(config=config, base=base.model)
    adapters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(adapters, lr=config.learning_rate)

    # The canaries, and the coins that decide which of them are in.
    coins = np.random.default_rng()
    texts = random_texts(
        canaries=config.text_canaries,
        tokens=config.canary_tokens,
        vocabulary=len(base.tokenizer),
        avoid=base.tokenizer.all_special_ids,
        seed=config.seed,
    )
    texts_in = coins.random(len(texts)) < 0.5
    written = [t if included else left_out(t) for t, included in zip(texts, texts_in, strict=True)]
    dirac = DiracCanaries(
        model=model, optimizer=optimizer, canaries=config.gradient_canaries, seed=config.seed
    )
    dirac_in = coins.random(config.gradient_canaries) < 0.5
    nothing = left_out({"input_ids": [0], "labels": [0]})
    data = [
        *dirac.beside([*private, *written]),
        *dirac.examples(included=dirac_in, like=nothing),
    ]

    # The plan: what is claimed, and carried out.
    plan = plan_for(config=config, dataset_size=len(data))
    folder = begin_run(output_dir=config.output_dir, name=config.name, plan=plan, say=terminal.say)
    engine = PrivacyEngine(
        accelerator,
        plan,
        ledger=folder / "ledger.jsonl",
        micro_batch_tokens=config.micro_batch_tokens,
        per_example_gradients="materialize",
    )
    model, optimizer = engine.prepare(model, optimizer)
    measure = partial(
        losses_of_texts,
        model=model,
        examples=texts,
        collate=pad,
        max_tokens=config.micro_batch_tokens,
    )
    before = measure()

    losses, collate = dirac.losses(causal_lm_losses), dirac.collate(pad)
    rehearsal = dirac.beside(made_up_examples(model=model, like=private[0]))
    progress = terminal.TrainingProgress(
        steps=plan.steps,
        epsilon_budget=config.epsilon,
        expected_batch_size=plan.expected_batch_size,
        visible=True,
    )
    progress.note(
        f"{len(private)} private examples, {len(texts)} text and {config.gradient_canaries} "
        f"gradient canaries, noise multiplier {plan.noise_multiplier:g}, run folder {folder}"
    )
    model.train()
    with progress:
        for step in engine.steps(data, collate, probe_examples=rehearsal):
            for batch in step:
                step.backward(losses(model, batch))
            step.update()
            progress.advance(promise=engine.guarantee())
    engine.close()

    # The scores, and what they prove.
    event = Repeated(event=plan.step_event, times=plan.steps)
    claim = Claim.of_event(event=event, delta=plan.target_delta)
    fallen = before - measure()
    released = dirac.scores(
        expected_batch_size=plan.expected_batch_size, max_grad_norm=plan.max_grad_norm
    )
    # Ordinary examples add to the same elements, so those scores have no threshold known before.
    write_scores(path=folder / "text_scores.json", included=texts_in, scores=fallen, plan=plan)
    write_scores(
        path=folder / "gradient_scores.json", included=dirac_in, scores=released, plan=plan
    )
    found = {
        "text": judge(included=texts_in, scores=fallen, claim=claim, confidence=config.confidence),
        "gradient": judge(
            included=dirac_in, scores=released, claim=claim, confidence=config.confidence
        ),
    }
    for kind, each in found.items():
        _show(kind, each, folder)
    terminal.say(f"scores and figures are in {folder}")
    return int(any(each.refuted for each in found.values()))


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
