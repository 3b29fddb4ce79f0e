"""What each rank runs in `test_ranks`: it disagrees with the other, dies, or hangs."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from accelerate import Accelerator

import dpacc
from dpacc.errors import DpaccError
from dpacc.losses.per_example import causal_lm_losses
from dpacc.ranks import fingerprints
from dpacc.ranks.backends import Backend
from dpacc.step.engine import PrivacyEngine
from tests.dpacc.ranks.backend_program import join
from tests.dpacc.step.engine_runs import plan_for
from tests.forked_ranks import fork_ranks, import_beforehand
from tests.tiny_models import collate, examples, tiny_model

LENGTHS = [7, 3, 12, 1, 9, 5, 5, 20, 2, 11]
FAILS_AT = 2


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Which rank is gone, how and when: by default between two micro-batches."""

    backend: str = "plain"
    victim: int = 1
    signal: int = signal.SIGKILL
    when: str = "amid its micro-batches"

    @property
    def patience_seconds(self) -> float:
        """For a killed rank nobody waits; to start may take two ranks longer than they wait."""
        return 8.0 if self.signal == signal.SIGSTOP else 60.0

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.backend}, {signal.Signals(self.signal).name} {self.when}"


LOSSES = [
    Loss(),
    Loss(signal=signal.SIGSTOP),
    Loss(victim=0, when="after its charge"),
    Loss(backend="zero2", when="before its update"),
    Loss(backend="zero3"),
    Loss(backend="zero3", when="before a backward"),
    Loss(backend="fsdp2"),
    Loss(backend="fsdp2", when="before a backward"),
    Loss(backend="fsdp2", signal=signal.SIGSTOP),
]


def start(
    accelerator: Accelerator, ledger: Path, backend: Backend | None = None, lr: float = 0.1
) -> tuple[PrivacyEngine, torch.nn.Module]:
    """A prepared engine and model."""
    model = tiny_model("llama")
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr)
    engine = PrivacyEngine(
        accelerator,
        plan_for(len(LENGTHS), steps=4),
        ledger=ledger,
        micro_batch_tokens=24,
        fixed_seed=3,
        backend=backend,
    )
    engine.prepare(model, optimizer)
    return engine, model


def told(accelerator: Accelerator, ledger: Path, data: list[Any], lr: float = 0.1) -> str:
    """What a rank is told before the first step, if it is refused."""
    try:
        engine, _ = start(accelerator, ledger, lr=lr)
        next(engine.steps(data, collate))
    except DpaccError as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def disagreements(accelerator: Accelerator, folder: Path) -> dict[str, str]:
    """What this rank is told when the other's data, rate, version or code differs."""
    second = accelerator.process_index == 1
    data = examples(LENGTHS)
    answers = {
        "length": told(accelerator, folder / "length.jsonl", data[:9] if second else data),
        "order": told(accelerator, folder / "order.jsonl", data[::-1] if second else data),
        "rate": told(accelerator, folder / "rate.jsonl", data, lr=0.2 if second else 0.1),
    }
    with mock.patch.object(dpacc, "__version__", "0.0" if second else dpacc.__version__):
        answers["version"] = told(accelerator, folder / "version.jsonl", data)
    if second:
        (folder / "dpacc").mkdir()
        (folder / "dpacc" / "clipping.py").write_text("edited = True\n")
        fingerprints.code_fingerprint.cache_clear()
        original = fingerprints.find_spec
        fingerprints.find_spec = lambda name: _spec_at(folder, original(name), name)  # type: ignore[assignment]
    answers["code"] = told(accelerator, folder / "code.jsonl", data)
    return answers


def _spec_at(folder: Path, spec: Any, name: str) -> Any:
    if name == "dpacc":
        spec.submodule_search_locations = [str(folder / "dpacc")]
    return spec


def train_until_gone(folder: Path, loss: Loss) -> None:
    """Two steps; in the third, a rank is gone."""
    accelerator, backend = join(loss.backend, patience_seconds=loss.patience_seconds)
    assert accelerator.num_processes == 2
    engine, model = start(accelerator, folder / "ledger.jsonl", backend)
    is_victim = accelerator.process_index == loss.victim

    def be_gone(when: str, index: int) -> None:
        if is_victim and when == loss.when and index == FAILS_AT:
            (folder / "gone").write_text(str(time.monotonic()))
            os.kill(os.getpid(), loss.signal)

    write, update = engine.run_ledger._write, engine._backend.update

    def write_and_be_gone(index: int) -> None:
        write(index)
        be_gone("after its charge", index)

    def be_gone_and_update(*arguments: Any) -> None:
        be_gone("before its update", step.index)
        update(*arguments)

    engine.run_ledger._write = write_and_be_gone  # type: ignore[method-assign]
    engine._backend.update = be_gone_and_update  # type: ignore[method-assign]
    for step in engine.steps(examples(LENGTHS), collate):
        for batch in step:
            losses = causal_lm_losses(model, batch)
            be_gone("before a backward", step.index)
            step.backward(losses)
            be_gone("amid its micro-batches", step.index)
        step.update()


def lose_a_rank(folder: Path, loss: Loss) -> None:
    """Note what the one that is left is told, and when."""
    try:
        train_until_gone(folder, loss)
    except Exception as error:
        told = {"error": type(error).__name__, "says": str(error), "at": time.monotonic()}
        (folder / "told.json").write_text(json.dumps(told))
        os._exit(2)  # without the farewells of the process group, for which the other is gone


def disagree(folder: Path) -> None:
    """Note what this rank is told in each way to disagree."""
    accelerator, _ = join("plain")
    answers = disagreements(accelerator, folder)
    (folder / f"told-{accelerator.process_index}.json").write_text(json.dumps(answers))


def main() -> None:
    """Disagree, then lose a rank in every way."""
    folder = Path(sys.argv[1])
    import_beforehand()
    statuses = {"disagree": fork_ranks(lambda: disagree(folder), ranks=2)}
    for loss in LOSSES:
        (folder / loss.name).mkdir()
        statuses[loss.name] = fork_ranks(
            lambda loss=loss: lose_a_rank(folder / loss.name, loss),  # type: ignore[misc]
            ranks=2,
            survivor=1 - loss.victim,
        )
    (folder / "statuses.json").write_text(json.dumps(statuses))


if __name__ == "__main__":
    main()
