"""Rehearse a training script: run it, look over the engine's shoulder, and stop it.

The script runs as it is, in this process, on its own data, but for four things: the engine's
secret is fresh whatever seed is asked for, its ledger and checkpoints go to a folder that is thrown
away, the optimizer gets noise alone, and after a few logical steps the script is stopped. So what
the script saves holds nothing that was learned from its data, for which no ledger would answer;
its statement says what it is. What it computes from the data itself, such as a loss that it
prints, is as private as ever.
"""

from __future__ import annotations

import runpy
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from dpacc.doctor.finding import Finding
from dpacc.doctor.statistics import draws_finding, noise_finding, uncorrelated
from dpacc.errors import ConfigurationError, DpaccError
from dpacc.layers.gradient_buffer import Slot
from dpacc.plan import PrivacyPlan
from dpacc.randomness.sampling import (
    AllocatedSampler,
    PhasedSampler,
    PoissonSampler,
    Sampler,
)
from dpacc.step import accumulation
from dpacc.step.clipping import add_clipped
from dpacc.step.engine import PrivacyEngine
from dpacc.step.release import Release
from dpacc.step.run_ledger import RunLedger

_MORE_DRAWS = 200
_ROUNDING = 1e-4
_WORDS = (
    "a rehearsal by dpacc doctor, whose updates were noise alone: what it saved learned nothing, "
    "and its ledger was thrown away"
)


class _Enough(BaseException):
    """Stops the script once enough was seen."""


@dataclass
class _Seen:
    """What the engine did while the script ran."""

    steps: int
    engines: list[PrivacyEngine] = field(default_factory=list)
    samplers: list[Sampler] = field(default_factory=list)
    noise: list[Tensor] = field(default_factory=list)
    largest: float = 0.0
    start: list[Tensor] = field(default_factory=list)


def script_findings(*, script: Path, arguments: Sequence[str], steps: int) -> list[Finding]:
    """Run `script` for `steps` logical steps and say what its engine did.

    Raises:
        ConfigurationError: it cannot be read, or it never took a step with a `PrivacyEngine`.
    """
    if not script.is_file():
        raise ConfigurationError(f"{script}: no such script; give a .py file or a run's folder")
    seen = _Seen(steps=steps)
    try:
        with tempfile.TemporaryDirectory() as folder, _watching(seen, Path(folder)):
            _run(script, arguments)
    except _Enough:
        pass
    except DpaccError as refusal:
        if not seen.engines:
            raise
        return [Finding(subject="engine", healthy=False, words=f"it refused: {refusal}")]
    if not seen.noise:
        raise ConfigurationError(
            f"{script} ended without a step of a PrivacyEngine, so there is nothing to examine"
        )
    return _findings(seen)


def _run(script: Path, arguments: Sequence[str]) -> None:
    # What the script prints is not what the examination says.
    with mock.patch.object(sys, "argv", [str(script), *arguments]), redirect_stdout(sys.stderr):
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as end:
            if end.code:
                raise ConfigurationError(
                    f"{script} stopped with exit code {end.code}; run it alone to see why"
                ) from None


@contextmanager
def _watching(seen: _Seen, folder: Path) -> Iterator[None]:
    """Keep every engine's books apart, and note what it draws, clips and releases."""
    with ExitStack() as patches:
        for owner, name, watched in (
            (PrivacyEngine, "__init__", _on_books_of_its_own(seen, folder)),
            (RunLedger, "open", _saying_what_it_is()),
            (PoissonSampler, "draw", _noting_samplers(seen, PoissonSampler.draw)),
            (PhasedSampler, "draw", _noting_samplers(seen, PhasedSampler.draw)),
            (AllocatedSampler, "draw", _noting_samplers(seen, AllocatedSampler.draw)),
            (Release, "__call__", _noting_noise(seen)),
            (accumulation, "add_clipped", _noting_norms(seen)),
            (accumulation.ClippedSum, "require_bounded", _noting_second_pass(seen)),
        ):
            patches.enter_context(mock.patch.object(owner, name, watched))
        yield


def _on_books_of_its_own(seen: _Seen, folder: Path) -> Callable[..., None]:
    honest = PrivacyEngine.__init__

    def start(self: PrivacyEngine, *arguments: Any, **options: Any) -> None:
        number = len(seen.engines)
        options |= {"fixed_seed": None, "ledger": folder / f"ledger-{number}.jsonl"}
        options.pop("budget", None)  # a rehearsal spends nothing
        if options.get("checkpoints") is not None:
            options["checkpoints"] = folder / f"checkpoints-{number}"
        honest(self, *arguments, **options)
        seen.engines.append(self)

    return start


def _saying_what_it_is() -> Callable[..., None]:
    honest = RunLedger.open

    def open_(self: RunLedger, *, fixed_seed: int | None) -> None:
        fresh = self._ledger is None
        honest(self, fixed_seed=fixed_seed)
        if fresh:
            self.note(subject="rehearsal", text=_WORDS)

    return open_


def _noting_samplers(seen: _Seen, honest: Callable[..., Any]) -> Callable[..., Any]:
    def draw(self: Sampler, *, step: int) -> Any:
        if self not in seen.samplers:
            seen.samplers.append(self)
        return honest(self, step=step)

    return draw


def _noting_noise(seen: _Seen) -> Callable[..., None]:
    honest = Release.__call__

    def release(self: Release, index: int, clipped: Tensor) -> None:
        if self._subspace is not None and self._subspace.basis is not None:
            raise _Enough  # where noise has k numbers, and not one an element
        if not seen.start:
            seen.start = [p.detach().clone() for p in self._parameters]
        clean = clipped.detach().clone()
        if self._on_grid:
            clean = self._from_grid(clean)
        bound, update = self.bound.value, self._backend.update
        plan = self._plan.at(index)

        def keep(parameters: Any, gradient: Tensor) -> None:
            sums = gradient * plan.expected_batch_size
            scale = bound * (plan.gradient_noise_multiplier or 1.0)
            noise = (sums - clean[: self._width]).cpu() / scale
            rank = self._dynamic_rank
            # What does not learn in a step gets no noise.
            seen.noise.append(noise if rank is None else noise[rank.always().cpu()])
            update(parameters, _noise_alone(plan, like=gradient))

        with mock.patch.object(self._backend, "update", keep):
            honest(self, index, clipped)
        if len(seen.noise) >= seen.steps:
            raise _Enough

    return release


def _noise_alone(plan: PrivacyPlan, *, like: Tensor) -> Tensor:
    """An update of the plan's size that owes nothing to any example, not even C that adapted."""
    generator = torch.Generator().manual_seed(secrets.randbits(63))
    noise = torch.randn(like.shape, generator=generator).to(like)
    spread = (plan.gradient_noise_multiplier or 1.0) * plan.max_grad_norm
    return noise * (spread / plan.expected_batch_size)


def _noting_norms(seen: _Seen) -> Callable[..., None]:
    def add(*, blocks: Mapping[Slot, Tensor], **options: Any) -> None:
        add_clipped(blocks=blocks, **options)
        # Scaled in place by now: what each unit really weighs.
        squares = [block.square().sum(dim=1) for block in blocks.values()]
        _note_largest(seen, torch.stack(squares).sum(dim=0).sqrt())

    return add


def _noting_second_pass(seen: _Seen) -> Callable[..., None]:
    honest = accumulation.ClippedSum.require_bounded

    def require(self: accumulation.ClippedSum, sink: Any) -> None:
        honest(self, sink)
        _note_largest(seen, sink.squares.sqrt())

    return require


def _note_largest(seen: _Seen, norms: Tensor) -> None:
    bound = seen.engines[-1]._release.bound.value
    seen.largest = max([seen.largest, *(norms / bound).tolist()])


# --- what was seen ------------------------------------------------------------------------


def _findings(seen: _Seen) -> list[Finding]:
    engine = seen.engines[-1]
    plan = engine.plan
    # A sampler of phases draws with one of each phase's.
    sampler = [s for s in seen.samplers if isinstance(s, PhasedSampler) or not plan.phases][-1]
    return [
        Finding(
            subject="coupling",
            healthy=True,
            words="no example's gradient depends on those beside it, by the engine's probe",
        ),
        draws_finding(sampler=sampler, plan=plan, least=_MORE_DRAWS),
        _clip_finding(seen.largest),
        _noise_of(seen, plan),
        _coverage(seen, engine),
        _ledger(seen, engine),
    ]


def _clip_finding(largest: float) -> Finding:
    healthy = largest <= 1 + _ROUNDING
    # By how much less is as private as the gradient.
    words = "no unit weighed more than C in a sum" if healthy else f"one weighed {largest:.4f} of C"
    return Finding(subject="clip", healthy=healthy, words=words)


def _noise_of(seen: _Seen, plan: PrivacyPlan) -> Finding:
    if not all(each.gradient_noise_multiplier for each in plan.each_phase):
        return Finding(subject="noise", healthy=False, words="the plan adds none: NOT private")
    return noise_finding(
        noise=uncorrelated(
            noise=torch.stack(seen.noise).numpy(), coefficients=plan.noise_coefficients
        ),
        standard_deviation=1.0,
        gaussian=plan.noise == "gaussian",
    )


def _coverage(seen: _Seen, engine: PrivacyEngine) -> Finding:
    """All trainable parameters are the engine's, and the optimizer moved each of them."""
    model = engine._model
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    held = {id(p): before for p, before in zip(engine._parameters, seen.start, strict=True)}
    alien = [name for name, p in trainable.items() if id(p) not in held]
    still = [n for n, p in trainable.items() if id(p) in held and p.equal(held[id(p)])]
    if alien or still:
        words = f"{(alien + still)[0]} is trainable and was not updated by the private gradient"
    else:
        words = f"all {len(trainable)} trainable tensors moved, and only by the private gradient"
    return Finding(subject="coverage", healthy=not (alien or still), words=words)


def _ledger(seen: _Seen, engine: PrivacyEngine) -> Finding:
    charged = engine.steps_charged
    healthy = charged == len(seen.noise)
    words = f"{charged} steps charged for {len(seen.noise)} released"
    return Finding(subject="ledger", healthy=healthy, words=words)
