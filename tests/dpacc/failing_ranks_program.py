"""What each rank runs in `test_ranks`: it disagrees with the other, dies, or hangs."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from dpacc import fingerprints, ranks
from dpacc.engine import PrivacyEngine
from dpacc.errors import DpaccError
from dpacc.losses import causal_lm_losses
from tests.dpacc.test_engine import plan_for
from tests.tiny_models import collate, examples, tiny_model

PATIENCE_SECONDS = 8.0
LENGTHS = [7, 3, 12, 1, 9, 5, 5, 20, 2, 11]
FAILS_AT = 2
GONE = {
    "killed": (1, signal.SIGKILL),
    "stopped": (1, signal.SIGSTOP),
    "killed after its charge": (0, signal.SIGKILL),
}
"""Which rank is gone, and how; but for the last, between two micro-batches."""


def start(accelerator: Accelerator, ledger: Path) -> tuple[PrivacyEngine, torch.nn.Module]:
    """A prepared engine and model."""
    model = tiny_model("llama")
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    plan = plan_for(len(LENGTHS), steps=4)
    engine = PrivacyEngine(accelerator, plan, ledger=ledger, micro_batch_tokens=24, fixed_seed=3)
    engine.prepare(model, optimizer)
    return engine, model


def told(accelerator: Accelerator, ledger: Path, data: list[Any]) -> str:
    """What a rank is told before the first step, if it is refused."""
    try:
        engine, _ = start(accelerator, ledger)
        next(engine.steps(data, collate))
    except DpaccError as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def disagreements(accelerator: Accelerator, folder: Path) -> dict[str, str]:
    """What this rank is told when the other's data or code differs."""
    second = accelerator.process_index == 1
    data = examples(LENGTHS)
    answers = {
        "length": told(accelerator, folder / "length.jsonl", data[:9] if second else data),
        "order": told(accelerator, folder / "order.jsonl", data[::-1] if second else data),
    }
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


def train_until_gone(accelerator: Accelerator, folder: Path, how: str) -> None:
    """Two steps; in the third, a rank is gone."""
    engine, model = start(accelerator, folder / "ledger.jsonl")
    victim, signal_sent = GONE[how]

    def be_gone() -> None:
        (folder / "gone").touch()
        os.kill(os.getpid(), signal_sent)

    write = engine._books._write
    if victim == 0:

        def write_and_be_gone(index: int) -> None:
            write(index)
            if index == FAILS_AT:
                be_gone()

        engine._books._write = write_and_be_gone  # type: ignore[method-assign]
    for step in engine.steps(examples(LENGTHS), collate):
        for batch in step:
            step.backward(causal_lm_losses(model, batch))
            if step.index == FAILS_AT and accelerator.process_index == victim == 1:
                be_gone()
        step.update()


def wait_until_both_are_here(folder: Path) -> None:
    """Their patience is short, and imports take long on a busy machine."""
    (folder / f"here-{os.environ['RANK']}").touch()
    while len(list(folder.glob("here-*"))) < 2:
        time.sleep(0.05)


def main() -> None:
    """Disagree, then lose a rank."""
    folder, how = Path(sys.argv[1]), sys.argv[2]
    wait_until_both_are_here(folder)
    accelerator = ranks.join_ranks(patience_seconds=PATIENCE_SECONDS)
    assert accelerator.num_processes == 2
    if how == "disagree":
        answers = disagreements(accelerator, folder)
        torch.save(answers, folder / f"rank-{accelerator.process_index}.pt")
        accelerator.end_training()
        return
    try:
        train_until_gone(accelerator, folder, how)
    except DpaccError as error:
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
        os._exit(2)  # without the farewells of the process group, for which the other is gone


if __name__ == "__main__":
    main()
