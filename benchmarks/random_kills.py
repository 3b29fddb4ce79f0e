"""Kill runs with SIGKILL at random moments until they are through, and see that nothing is lost.

    python benchmarks/random_kills.py --kills 250

One and two ranks train a tiny model, keep checkpoints, resume, and save their adapter; they are
killed at moments drawn evenly over all of that, again and again, both ranks or either. After every
death the ledger must hold all that was released, and at most one step more; in the end the saved
adapter must load, and be bit for bit that of a run that nobody killed, in which only the lost steps
had no effect. Exits with 1 if not. A quarter of an hour on one core.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parents[1]
STEPS, CHECKPOINT_EVERY, SEED = 24, 2, 5
PATIENCE_SECONDS = 60
STAGES = ("starting", "resuming", "training", "checkpointing", "saving")
BOTH_OR_EITHER = ((0, 1), (0,), (1,))


def train(folder: Path, *, lost: frozenset[int] = frozenset()) -> None:
    """Train in `folder`, resuming what it holds; steps in `lost` are charged without effect."""
    import torch
    from peft import get_peft_model_state_dict

    from dpacc.artifacts.run_folder import save_adapter
    from dpacc.losses.per_example import causal_lm_losses
    from dpacc.plan import PrivacyPlan
    from dpacc.ranks import collectives
    from dpacc.step.checkpoint import Checkpoints, JournalEntry
    from dpacc.step.engine import PrivacyEngine
    from dpacc.step.release import Release
    from tests.tiny_models import collate, examples, tiny_model

    accelerator = collectives.join_ranks(patience_seconds=PATIENCE_SECONDS)
    journal, release = Checkpoints.journal, Release.__call__

    def witnessed(self: Checkpoints, entry: JournalEntry) -> None:
        tell(folder, f"released {entry.step}")
        journal(self, entry)

    def charged_only(self: Release, index: int, clipped: torch.Tensor) -> None:
        if index in lost:
            self._charge(index)
        else:
            release(self, index, clipped)

    Checkpoints.journal = witnessed  # type: ignore[method-assign]
    Release.__call__ = charged_only  # type: ignore[method-assign]
    data = examples([4, 6, 3, 5, 8, 2, 7, 5])
    plan = PrivacyPlan(
        dataset_size=len(data),
        expected_batch_size=4,
        steps=STEPS,
        noise_multiplier=0.5,
        max_grad_norm=0.1,
        target_delta=1e-3,
        clipping="adaptive",
    )
    model = tiny_model("llama")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 / (1 + step))
    ledger = folder / "ledger.jsonl"
    started_before = collectives.share_from_main(ledger.exists())
    engine = PrivacyEngine(
        accelerator, plan, ledger=ledger, checkpoints=folder / "checkpoints", fixed_seed=SEED
    )
    engine.prepare(model, optimizer, schedule)
    if started_before:
        tell(folder, "resuming")
        engine.resume()
    tell(folder, "training")
    for step in engine.steps(data, collate):
        for batch in step:
            step.backward(causal_lm_losses(model, batch))
        step.update()
        if step.index not in lost:
            schedule.step()
        if (step.index + 1) % CHECKPOINT_EVERY == 0:
            tell(folder, "checkpointing")
            engine.checkpoint()
            tell(folder, "training")
    engine.close()
    tell(folder, "saving")
    if accelerator.is_main_process:
        save_adapter(model=model, folder=folder)
        state = {name: p.tolist() for name, p in get_peft_model_state_dict(model).items()}
        (folder / "trained.json").write_text(json.dumps(state))
    accelerator.end_training()


def tell(folder: Path, what: str) -> None:
    """Leave a line that outlives this process."""
    if os.environ.get("RANK", "0") == "0":
        descriptor = os.open(folder / "witness", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, f"{what}\n".encode())
        os.close(descriptor)


def state_after_death(folder: Path) -> tuple[int, int, set[int], str]:
    """Steps charged, steps a resume would restore, steps released, and the stage it died in."""
    from dpacc_accounting import read_ledger

    from dpacc.step.checkpoint import Checkpoints

    said = (folder / "witness").read_text().splitlines() if (folder / "witness").exists() else []
    released = {int(line.split()[1]) for line in said if line.startswith("released")}
    stage = next((line for line in reversed(said) if line in STAGES), "starting")
    ledger = folder / "ledger.jsonl"
    if not ledger.exists() or b"\n" not in ledger.read_bytes():
        return 0, 0, released, stage
    steps = [each.step for each in read_ledger(path=ledger).releases]
    if steps != list(range(len(steps))):
        raise AssertionError(f"charged {steps}")
    kept = Checkpoints(folder / "checkpoints")
    if not kept.begun:
        return len(steps), 0, released, stage
    checkpoint = kept.latest()
    entries = list(kept.journalled(since=checkpoint.step))
    return len(steps), checkpoint.step + len(entries), released, stage


def adapters_differ(folder: Path, reference: Path) -> None:
    """Load the saved adapter as a user would, and compare it bit by bit."""
    import torch
    from peft import PeftModel, get_peft_model_state_dict

    from tests.tiny_models import tiny_base

    loaded = PeftModel.from_pretrained(tiny_base("llama"), folder)
    found = get_peft_model_state_dict(loaded)
    expected = json.loads((reference / "trained.json").read_text())
    if found.keys() != expected.keys() or not found:
        raise AssertionError("other names of adapters")
    for name, values in expected.items():
        if not torch.equal(found[name], torch.tensor(values)):
            raise AssertionError(f"{name} differs")


# --- processes ---------------------------------------------------------------------------------


def forked(action: Callable[[], object], log: Path, **environment: str) -> int:
    """Run `action` in a child that has imported everything already; its process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.environ.update(environment)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        action()
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(status)


def start(folder: Path, ranks: int, *, lost: frozenset[int] = frozenset()) -> list[int]:
    """The process ids of a run's ranks."""
    port = str(random.SystemRandom().randrange(20_000, 50_000))
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    sizes = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)} if ranks > 1 else {}
    children = []
    for rank in range(ranks):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if ranks > 1 else {}
        settings = (common if ranks > 1 else {}) | sizes | own
        log = folder / f"log-{rank}"
        children.append(forked(lambda: train(folder, lost=lost), log, **settings))
    return children


def finish(children: list[int], *, within: float) -> list[int]:
    """The exit statuses; what is not through in time is stopped and counts as -9."""
    deadline, statuses = time.monotonic() + within, dict[int, int]()
    while len(statuses) < len(children) and time.monotonic() < deadline:
        for child in children:
            if child not in statuses:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    statuses[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    for child in children:
        if child not in statuses:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            statuses[child] = -9
    return [statuses[child] for child in children]


# --- the trials --------------------------------------------------------------------------------


@dataclass
class Tally:
    """What was seen with one number of ranks."""

    ranks: int
    root: Path
    kills: int = 0
    runs: int = 0
    steps_lost: int = 0
    died: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    references: dict[frozenset[int], Path] = field(default_factory=dict)

    def reference(self, lost: frozenset[int]) -> Path:
        """The folder of a run that nobody killed, whose steps in `lost` had no effect."""
        if lost not in self.references:
            folder = self.root / f"reference-{len(self.references)}"
            folder.mkdir()
            statuses = finish(start(folder, self.ranks, lost=lost), within=300)
            if any(statuses):
                raise RuntimeError((folder / "log-0").read_text())
            self.references[lost] = folder
        return self.references[lost]


def one_run(tally: Tally, longest: float, chance: random.Random) -> None:
    """Kill a run until it is through, and judge every death and its end."""
    folder = tally.root / f"run-{tally.runs}"
    folder.mkdir()
    tally.runs += 1
    lost: set[int] = set()
    while True:
        children = start(folder, tally.ranks)
        statuses = killed_or_through(children, chance.uniform(0, longest), chance)
        if not any(statuses):
            break
        if -signal.SIGKILL not in statuses:
            tally.faults.append(f"{folder.name}: {statuses}: {(folder / 'log-0').read_text()}")
            return
        tally.kills += 1
        charged, kept, released, stage = state_after_death(folder)
        tally.died[stage] += 1
        (folder / "witness").open("a").write("starting\n")
        if released - set(range(charged)):
            tally.faults.append(f"{folder.name}: released {released}, charged {charged}")
        if not 0 <= charged - kept <= 1:
            tally.faults.append(f"{folder.name}: charged {charged}, kept {kept}")
        lost |= set(range(kept, charged))
    tally.steps_lost += len(lost)
    charged = state_after_death(folder)[0]
    reference = tally.reference(frozenset(lost))
    log = folder / "verdict"
    same = finish([forked(lambda: adapters_differ(folder, reference), log)], within=120) == [0]
    if charged != STEPS or not same:
        tally.faults.append(f"{folder.name}: {charged} charged, lost {lost}: {log.read_text()}")


def killed_or_through(children: list[int], delay: float, chance: random.Random) -> list[int]:
    """Let a run live for `delay` seconds, then kill it whole, or one rank of it."""
    victims = [children[i] for i in chance.choice(BOTH_OR_EITHER) if i < len(children)]
    deadline, gone = time.monotonic() + delay, dict[int, int]()
    while time.monotonic() < deadline and len(gone) < len(children):
        for child in set(children) - gone.keys():
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                gone[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    for victim in (set(victims) or set(children)) - gone.keys():
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    rest = [child for child in children if child not in gone]
    gone |= dict(zip(rest, finish(rest, within=PATIENCE_SECONDS + 30), strict=True))
    return [gone[child] for child in children]


def trials(ranks: int, kills: int, root: Path, chance: random.Random) -> Tally:
    """Runs killed again and again, until there were `kills` deaths."""
    root.mkdir()
    tally = Tally(ranks=ranks, root=root)
    begun = time.monotonic()
    tally.reference(frozenset())
    longest = time.monotonic() - begun
    while tally.kills < kills:
        one_run(tally, longest, chance)
        click.echo(f"{ranks} ranks: {tally.kills} kills, {len(tally.faults)} faults", err=True)
    return tally


def rows(tallies: list[Tally]) -> Iterator[list[Any]]:
    """The table that the script prints."""
    while_in = [f"while {stage}" for stage in STAGES]
    yield ["ranks", "killed", *while_in, "runs finished", "steps lost, all charged", "faults"]
    for tally in tallies:
        deaths = [tally.died[stage] for stage in STAGES]
        end = [tally.runs, tally.steps_lost, len(tally.faults)]
        yield [tally.ranks, tally.kills, *deaths, *end]


@click.command()
@click.option(
    "--kills", type=int, default=250, show_default=True, help="Over all numbers of ranks."
)
@click.option("--ranks", type=int, multiple=True, default=(1, 2), show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the moments of death.")
def main(kills: int, ranks: tuple[int, ...], seed: int) -> None:
    """Kill, resume, judge, and print a table."""
    sys.path.insert(0, str(ROOT))
    import torch

    import dpacc.artifacts.run_folder
    import dpacc.step.engine  # noqa: F401 - imported once, for all children
    import tests.tiny_models  # noqa: F401

    torch.set_num_threads(1)
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as root:
        tallies = [trials(n, -(-kills // len(ranks)), Path(root, str(n)), chance) for n in ranks]
        for row in rows(tallies):
            print("| " + " | ".join(map(str, row)) + " |")
    for tally in tallies:
        for fault in tally.faults:
            print(fault, file=sys.stderr)
    sys.exit(any(tally.faults for tally in tallies))


if __name__ == "__main__":
    main()
