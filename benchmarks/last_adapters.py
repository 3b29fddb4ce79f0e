"""What last adapters alone prove of SmolLM2-135M-Instruct, and whether half the noise shows.

    python recipes/fetch_demo.py
    python benchmarks/last_adapters.py --epsilon 8 --runs 1 --canaries 500
    python benchmarks/last_adapters.py --epsilon 4 --runs 24 --canaries 150 --steps 1 --noise 0.5

Canaries are all of the data and in every step. A line is one reading of all runs together; lines
beside each other look at the same runs, so that each confidence is that of its line alone.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from audits import noise_times
from dpacc_accounting.guarantee import rounded_down

from dpacc.audit import Audit, Claim, judge
from dpacc.audit.last_adapter import SOUGHT, CanaryGradients
from dpacc.audit.membership import membership_report
from dpacc.audit.text_canaries import TEMPERATURE, as_if_all_in, canaries_for, planted
from dpacc.layers.frozen_activations import FrozenActivations
from dpacc.losses.per_example import causal_lm_losses
from dpacc.plan import PrivacyPlan
from dpacc.recipe.assembly import adapters_for, base_for, rates_for
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.examples import pad_examples
from dpacc.recipe.optimizers import optimizer_for
from dpacc.step.engine import PrivacyEngine

READINGS = ("weights", "losses", "fall")
HEADS = ("claimed ε", "noise", "steps", "canaries", "read by", "AUC", "guesses right",
         "ε at least", "if Gaussian", "verdict")  # fmt: skip


def main() -> None:
    """Print a line of Markdown for each reading."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epsilon", type=float, default=8.0)
    parser.add_argument("--noise", type=float, default=1.0, help="share of the noise charged for")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--canaries", type=int, default=500)
    parser.add_argument("--kind", default="unique-tokens")
    parser.add_argument("--tokens", type=int, default=5)
    parser.add_argument("--temperature", type=float, default=TEMPERATURE)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--sought", type=float, default=SOUGHT, help="times the claimed leak")
    parser.add_argument("--read", nargs="+", default=READINGS)
    parser.add_argument("--optimizer", default="sgd")
    parser.add_argument("--learning-rate", type=float, default=0.5)
    chosen = parser.parse_args()
    print(f"| {' | '.join(HEADS)} |\n{'|---' * len(HEADS)}|", flush=True)
    plan = PrivacyPlan.calibrate(
        dataset_size=chosen.canaries,
        expected_batch_size=chosen.canaries,
        steps=chosen.steps,
        target_epsilon=chosen.epsilon,
        target_delta=1e-5,
        max_grad_norm=1.0,
        clipping="automatic",
    )
    claim = Claim.of_event(event=plan.event(), delta=plan.target_delta)
    bench = Bench(chosen, plan, claim)
    with noise_times(chosen.noise):
        runs = [bench.run() for _ in range(chosen.runs)]
    included = np.concatenate([coins for coins, _ in runs])
    for read in chosen.read:
        scores = np.concatenate([scored[read] for _, scored in runs])
        audit = judge(included=included, scores=scores, claim=claim)
        canaries = f"{chosen.runs} × {chosen.canaries} {chosen.kind}"
        told = [
            f"{chosen.epsilon:g}",
            f"{chosen.noise:g}",
            f"{chosen.steps} {chosen.optimizer}",
            canaries,
            read,
        ]
        print(f"| {' | '.join([*told, *figures(audit)])} |", flush=True)


class Bench:
    """One base with its frozen activations, and a fresh adapter and fresh coins for each run."""

    def __init__(self, chosen: argparse.Namespace, plan: PrivacyPlan, claim: Claim) -> None:
        self.config = TrainingConfig(
            model="data/smollm2-135m-instruct",
            train_data="canaries",
            epsilon=chosen.epsilon,
            steps=plan.steps,
            expected_batch_size=plan.expected_batch_size,
            dtype="float32",
            lora_target_modules=("q_proj", "v_proj"),
            lora_top_layers=2,
            optimizer=chosen.optimizer,
            learning_rate=chosen.learning_rate,
        )
        self.read, self.sought = chosen.read, chosen.sought * claim.mu
        self.plan, self.accelerator = plan, Accelerator(cpu=True)
        self.base, tokenizer = base_for(config=self.config, device=self.accelerator.device)
        self.texts = canaries_for(
            kind=chosen.kind,
            model=self.base,
            tokenizer=tokenizer,
            canaries=chosen.canaries,
            tokens=chosen.tokens,
            temperature=chosen.temperature,
        )
        self.pad = partial(pad_examples, pad_token_id=tokenizer.pad_token_id)
        self.frozen: FrozenActivations | None = None

    def run(self) -> tuple[np.ndarray, dict[str, Any]]:
        """The coins of one run, and what each reading makes of its last adapter."""
        self.base.requires_grad_(False)
        model = adapters_for(config=self.config, base=self.base)
        learned = [p for p in model.parameters() if p.requires_grad]
        rate, _ = rates_for(model, config=self.config, plan=self.plan)
        optimizer = optimizer_for(learned, config=self.config, rate=rate)
        included = np.random.default_rng().random(len(self.texts)) < 0.5
        with tempfile.TemporaryDirectory() as folder:
            ledger = Path(folder) / "ledger.jsonl"
            engine = PrivacyEngine(
                self.accelerator, self.plan, ledger=ledger, per_example_gradients="materialize"
            )
            model, optimizer = engine.prepare(model, optimizer)
            if self.frozen is None:
                self.frozen = FrozenActivations(
                    model=model,
                    examples=self.texts,
                    collate=self.pad,
                    accelerator=self.accelerator,
                    folder=Path(folder),
                )
            else:
                self.frozen.move_to(model)
            whole = as_if_all_in(standing=self.frozen.examples, texts=self.texts)
            data = planted(whole, included)
            gradients = CanaryGradients(model=model, texts=whole, collate=self.frozen.collate)
            for step in engine.steps(data, self.frozen.collate):
                for batch in step:
                    step.backward(causal_lm_losses(model, batch))
                step.update()
            engine.close()
        scored = {read: gradients.scores(read=read, mu=self.sought) for read in self.read}
        self.base = model.unload()
        return included, scored


def figures(audit: Audit) -> list[str]:
    """The cells of a line that were measured."""
    present = audit.included
    found = membership_report(members=audit.scores[present], strangers=audit.scores[~present])
    return [
        f"{found.auc:.3f}",
        f"{audit.guesses.correct} of {audit.guesses.made}",
        rounded_down(audit.epsilon),
        rounded_down(audit.gaussian_epsilon),
        "refuted" if audit.refuted else "stands",
    ]


if __name__ == "__main__":
    main()
