"""Held-out accuracy where a whole person is protected, beside a single turn of theirs.

    python recipes/fetch_benchmarks.py
    python benchmarks/people.py

Does a turn of `data/chats` ask something? A linear classifier learns from the words of each turn,
hashed to 1,024 numbers, without punctuation. The senders who choose the learning rate, and those
who are looked at in the end, are others; at most 64 turns of each are measured. Rows are `turn`,
whose noise hides one turn; `sender-k`, where senders are drawn, of whom at most k turns count in a
step; and `turns-of-sender-k`, where at most k of each are kept, and drawn one by one. All have as
many gradient evaluations. The chats are public: nothing is charged for choosing.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import statistics
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from dpacc import PrivacyEngine, PrivacyPlan
from dpacc.step.averaging import USUAL_SHARE, IterateAverage

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results/people.jsonl"
ROWS = ("turn", "sender-64", "sender-8", "sender-1", "turns-of-sender-64", "turns-of-sender-8")
FEWEST_WORDS, MOST_MEASURED, WIDTH = 4, 64, 1024
_WORD = re.compile(r"[\w']+")
SENDERS = {"learned": 0.7, "validation": 0.1, "held out": 0.2}


@dataclass(frozen=True, kw_only=True)
class Part:
    """Turns of some senders.

    Args:
        features: [turns, width].
        asks: [turns], 1 where something is asked.
        senders: who wrote each.
    """

    features: Tensor
    asks: Tensor
    senders: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Row:
    """Whom a run protects, and what it draws.

    Args:
        name: as above.
        epsilon: of its unit; infinite without noise.
        rate: AdamW's.
        seed: of sampling and noise.
    """

    name: str
    epsilon: float
    rate: float
    seed: int = 0

    @property
    def cap(self) -> int | None:
        """k, where senders are protected."""
        return None if self.name == "turn" else int(self.name.rsplit("-", 1)[1])

    def plan(self, *, senders: Sequence[str], steps: int, evaluations: int) -> PrivacyPlan:
        """Its plan, at so many gradient evaluations a step on average."""
        owned, cap = Counter(senders), self.cap
        kept = sum(min(count, cap or count) for count in owned.values())
        size, batch, unit = len(senders), evaluations, {}
        if cap is not None:
            unit = {"unit": "sender", "unit_cap": cap}
        if self.name.startswith("turns"):
            size, batch, unit = kept, min(evaluations, kept), unit | {"sampling": "examples"}
        elif cap is not None:
            size, batch = len(owned), min(round(evaluations * len(owned) / kept), len(owned))
        shared: dict[str, Any] = {
            "dataset_size": size,
            "expected_batch_size": batch,
            "steps": steps,
            "max_grad_norm": 1.0,
            "clipping": "automatic",
            # One for all rows, below one over the number of turns.
            "target_delta": len(senders) ** -1.1,
            **unit,
        }
        if math.isfinite(self.epsilon):
            return PrivacyPlan.calibrate(target_epsilon=self.epsilon, **shared)
        return PrivacyPlan(noise_multiplier=0.0, allow_no_privacy=True, **shared)


def parts() -> dict[str, Part]:
    """All turns, by the part of their sender."""
    found: dict[str, list[tuple[str, str]]] = {part: [] for part in SENDERS}
    known: Counter[str] = Counter()
    for part in ("train", "validation", "held_out"):
        path = ROOT / "data/chats" / f"{part}_turns.jsonl"
        if not path.exists():
            raise SystemExit(f"error: {path} is missing: run `python recipes/fetch_benchmarks.py`")
        for line in filter(None, path.read_text(encoding="utf-8").split("\n")):
            turn = json.loads(line)
            home = _part_of(turn["sender"])
            if len(_WORD.findall(turn["text"])) < FEWEST_WORDS:
                continue
            known[turn["sender"]] += 1
            if home == "learned" or known[turn["sender"]] <= MOST_MEASURED:
                found[home].append((turn["sender"], turn["text"]))
    return {
        part: Part(
            features=torch.from_numpy(np.stack([hashed(text) for _, text in turns])),
            asks=torch.tensor([float("?" in text) for _, text in turns]),
            senders=[sender for sender, _ in turns],
        )
        for part, turns in found.items()
    }


def hashed(text: str) -> np.ndarray:
    """[WIDTH], of unit length: how often words and pairs of words fall on each place."""
    words = _WORD.findall(text.casefold())
    each = [*words, *map(" ".join, itertools.pairwise(["<", *words]))]
    places = [zlib.crc32(one.encode()) % WIDTH for one in each]
    counts = np.bincount(places, minlength=WIDTH)
    return (counts / np.linalg.norm(counts)).astype(np.float32)


def _part_of(sender: str) -> str:
    place = int(hashlib.sha256(sender.encode()).hexdigest()[:8], 16) / 2**32
    for part, share in SENDERS.items():
        if place < share:
            return part
        place -= share
    return "held out"


def accuracy(*, row: Row, plan: PrivacyPlan, learned: Part, measured: Part) -> float:
    """Of the mean of the last half of the classifiers that the row's run goes through."""
    model: Any = nn.Linear(learned.features.shape[1], 1)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    optimizer: Any = torch.optim.AdamW(model.parameters(), lr=row.rate, weight_decay=0.0)
    average = IterateAverage(optimizer, steps=plan.steps, share=USUAL_SHARE)
    rows = [{"at": at, "input_ids": [0]} for at in range(len(learned.senders))]

    def collate(examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        places = [each["at"] for each in examples]
        return {"features": learned.features[places], "asks": learned.asks[places]}

    with tempfile.TemporaryDirectory() as folder:
        engine = PrivacyEngine(
            Accelerator(cpu=True),
            plan,
            ledger=Path(folder) / "ledger.jsonl",
            micro_batch_tokens=4096,
            fixed_seed=row.seed,
        )
        prepared, optimizer = engine.prepare(model, optimizer)
        units = None if row.cap is None else learned.senders
        for step in engine.steps(rows, collate, units=units, probe_examples=rows[:4]):
            for batch in step:
                logits = prepared(batch["features"])[:, 0]
                step.backward(
                    F.binary_cross_entropy_with_logits(logits, batch["asks"], reduction="none")
                )
            step.update()
        engine.close()
    average.put_in_place()
    with torch.no_grad():
        found = prepared(measured.features)[:, 0] > 0
    return float((found == (measured.asks > 0)).float().mean())


@click.command(help=__doc__)
@click.option("--epsilons", default="8,1,inf", show_default=True)
@click.option("--rows", default=",".join(ROWS), show_default=True)
@click.option("--rates", default="0.1,0.3,1.0", show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--steps", default=50, show_default=True)
@click.option("--evaluations", default=600, show_default=True, help="Gradients a step, on average.")
@click.option("--results", default=str(RESULTS), show_default=True)
def main(
    epsilons: str,
    rows: str,
    rates: str,
    seeds: int,
    steps: int,
    evaluations: int,
    results: str,
) -> None:
    """Run every cell; print and keep what comes out."""
    found = parts()
    learned, validation, held_out = (found[part] for part in SENDERS)
    for part, each in found.items():
        share = max(float(each.asks.mean()), 1 - float(each.asks.mean()))
        words = f"{len(each.senders)} turns of {len(set(each.senders))} senders"
        click.echo(f"{part}: {words}, {share:.3f} of one kind")
    for epsilon in map(float, epsilons.split(",")):
        for name in rows.split(","):
            started = time.process_time()
            first = Row(name=name, epsilon=epsilon, rate=0.0)
            plan = first.plan(senders=learned.senders, steps=steps, evaluations=evaluations)
            chosen = {
                rate: accuracy(
                    row=Row(name=name, epsilon=epsilon, rate=rate, seed=seeds),
                    plan=plan,
                    learned=learned,
                    measured=validation,
                )
                for rate in map(float, rates.split(","))
            }
            rate = max(chosen, key=lambda each: chosen[each])
            reached = [
                accuracy(
                    row=Row(name=name, epsilon=epsilon, rate=rate, seed=seed),
                    plan=plan,
                    learned=learned,
                    measured=held_out,
                )
                for seed in range(seeds)
            ]
            line = {
                "row": name,
                "epsilon": str(epsilon),
                "delta": plan.target_delta,
                "batch": plan.expected_batch_size,
                "noise_multiplier": plan.noise_multiplier,
                "noise_of_mean": plan.noise_multiplier / plan.expected_batch_size,
                "rate": rate,
                "validation": chosen,
                "accuracy": statistics.mean(reached),
                "deviation": statistics.stdev(reached),
                "processor_seconds": round(time.process_time() - started),
            }
            click.echo(json.dumps(line))
            with Path(results).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
