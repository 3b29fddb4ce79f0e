"""Train with canaries in the data, write synthetic text, and look for their echo in it alone.

    accelerate launch --config_file launch_configs/cpu.yaml recipes/audit_synthetic.py \\
        --config recipes/configs/smollm2_reviews.yaml

Training is that of recipes/train.py, and writing that of recipes/synthesize.py, with all of their
settings. Beside the private examples are canaries, each in by a coin of its own: they begin as
held-out texts do, and go on with random words (arXiv 2502.14921). Each is scored by the n-grams of
the synthetic texts, as whoever gets the file could, and the scores are held against the claimed ε.
Exits with 1 where they refute it. The run spends its whole budget on the private examples, and its
adapter knows canaries: publish neither it nor the file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

# The recipes beside this one.
from synthesize import SynthesisConfig, synthesize

from dpacc.cli import terminal
from dpacc.errors import ConfigurationError
from dpacc.recipe.settings import read_settings, setting

_USAGE = (
    "accelerate launch --config_file launch_configs/cpu.yaml recipes/audit_synthetic.py [settings]"
)


@dataclass(frozen=True, kw_only=True)
class EchoConfig(SynthesisConfig):
    """The settings of a run, of what its adapter writes, and of the canaries in it."""

    run: str = setting("Is made: leave it out.", default="")
    output: str = setting(
        "Name of the synthetic file in the run's folder.", default="audited.jsonl"
    )
    canaries: int = setting("Texts that are in or not, by coins.", default=400, at_least=2)
    begun_words: int = setting("Words of a held-out text that each begins with.", default=4)
    canary_words: int = setting("Random words that follow.", default=8, at_least=1)
    ngram: int = setting("Words of the n-grams that score them.", default=2, at_least=1)
    confidence: float = setting(
        "Chance that a run which keeps its claim is not accused.", default=0.95, above=0, below=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.held_out_data is None:
            raise ConfigurationError(
                "canaries begin as public texts do: name some with --held_out_data"
            )
        for name in ("run", "resume", "push_to_hub", "unit_field"):
            if getattr(self, name):
                raise ConfigurationError(f"{name} has no effect in an audit; leave it out")
        if Path(self.output).name != self.output:
            raise ConfigurationError(f"output={self.output} must be a name, without a folder")


@dataclass(frozen=True, kw_only=True)
class Canaries:
    """Records that are in or not, and what is public beside them."""

    records: list[Any]
    included: Any
    public: list[Any]


def main(arguments: Sequence[str]) -> int:
    """Read the settings, train, write, judge, and return the exit code."""
    config = read_settings(kind=EchoConfig, arguments=arguments, usage=_USAGE)
    from dpacc.artifacts.run_folder import unspent_folders_removed

    with unspent_folders_removed():
        return audit(config)


def audit(config: EchoConfig) -> int:
    """One private run with canaries in its data, and what its synthetic text proves of it."""
    import numpy as np

    from dpacc.audit.synthetic_canaries import echoing_records
    from dpacc.recipe.examples import read_held_out_records

    public = read_held_out_records(config=replace(config, held_out_examples=None))
    canaries = Canaries(
        records=echoing_records(
            public=public,
            config=config,
            canaries=config.canaries,
            begun=config.begun_words,
            words=config.canary_words,
        ),
        included=np.random.default_rng().random(config.canaries) < 0.5,
        public=public,
    )
    folder, plan = learn(config, canaries)
    given = {field.name: getattr(config, field.name) for field in fields(SynthesisConfig)}
    given |= {"run": str(folder), "output": str(folder / config.output)}
    synthesize(SynthesisConfig(**given))
    return judge_echo(config, folder, plan, canaries)


def learn(config: EchoConfig, canaries: Canaries) -> tuple[Path, Any]:
    """The run of recipes/train.py, with the canaries behind the private examples."""
    import train as training

    from dpacc.audit.text_canaries import planted
    from dpacc.data.supervision import tokenize_examples
    from dpacc.ranks.collectives import join_ranks
    from dpacc.recipe.assembly import plan_for
    from dpacc.recipe.training_data import read_training_data

    accelerator = join_ranks()
    if accelerator.num_processes > 1:
        raise ConfigurationError("an audit runs in one process; launch it with cpu or single_gpu")
    settled = training.settled(config, accelerator)
    data = read_training_data(config=settled)
    examples = tokenize_examples(
        records=canaries.records,
        tokenizer=data.tokenizer,
        max_length=config.max_length,
        text_field=config.text_field,
        prompt_field=config.prompt_field,
        completion_field=config.completion_field,
        learn_end=config.learn_end,
    )
    data = replace(data, private=[*data.private, *planted(examples, canaries.included)])
    plan = plan_for(config=settled, dataset_size=data.dataset_size)
    learner = training.build_model(settled, accelerator, data, plan)
    run = training.open_run(settled, accelerator, data, plan, learner)
    training.save(run, training.learn(run))
    return run.folder, plan


def judge_echo(config: EchoConfig, folder: Path, plan: Any, canaries: Canaries) -> int:
    """The scores, kept in a file, and what they prove of the claim: 1 if it is refuted."""
    from dpacc.audit import Claim, judge
    from dpacc.audit.picture import draw_audit
    from dpacc.audit.records import write_scores
    from dpacc.audit.synthetic_canaries import echo_scores
    from dpacc.audit.wording import audit_rows
    from dpacc.recipe.examples import read_held_out_records

    synthetic = read_held_out_records(
        config=replace(config, held_out_data=str(folder / config.output), held_out_examples=None)
    )
    scores = echo_scores(
        canaries=canaries.records,
        synthetic=synthetic,
        public=canaries.public,
        config=config,
        n=config.ngram,
    )
    write_scores(
        path=folder / "echo_scores.json", included=canaries.included, scores=scores, plan=plan
    )
    claim = Claim.of_event(event=plan.event(), delta=plan.target_delta)
    found = judge(
        included=canaries.included, scores=scores, claim=claim, confidence=config.confidence
    )
    (folder / "echo_audit.png").write_bytes(draw_audit(audit=found))
    if config.as_json:
        terminal.show_json({**found.to_json(), "synthetic_records": len(synthetic)})
        return int(found.refuted)
    terminal.show_facts(
        title=f"Audit: canaries, scored by the n-grams of {len(synthetic)} synthetic texts",
        facts=audit_rows(found),
    )
    terminal.say(f"scores and figures are in {folder}")
    return int(found.refuted)


if __name__ == "__main__":
    with terminal.one_line_errors():
        code = main(sys.argv[1:])
    sys.exit(code)
