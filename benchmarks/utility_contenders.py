"""One run of each tool on the same top layers, adapters, texts and gradient evaluations."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from cached_states import CachedTexts, Row
from torch import nn

from dpacc.recipe.optimizers import warm_up_then_decay

if TYPE_CHECKING:
    from gradient_geometry import Geometry

PHYSICAL_BATCH = 64
_FIRST_MOMENT = 0.9
"""AdamW's β₁, which is its momentum."""

Tool = Literal["dpacc", "Opacus", "Opake", "dp-lora"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one run is told; without `epsilon` it has no noise.

    Args:
        plan: more of the tool's plan, by name: of dpacc's `PrivacyPlan`, or Opake's `bands`; for
            DP-SFT `subspace`, with its `rank`, the first phase's `steps`, and by how much the
            second one's `rate` is larger.
        noise_share: of the noise that ε asks for, how much there is: below 1 the run is not
            private, and shows what less noise would give.
        geometry: of `gradient_geometry.GEOMETRIES`, for dpacc; the adapters' own by default.
    """

    tool: Tool
    epsilon: float | None
    batch: int
    steps: int
    learning_rate: float
    seed: int = 0
    method: str = "lora"
    rank: int = 8
    alpha: float = 16.0
    lift: float = 1.0
    clipping: str = "flat"
    max_grad_norm: float = 1.0
    decays: bool = False
    average: float = 0.0
    momentum: float = 0.0
    plan: Mapping[str, Any] = field(default_factory=dict)
    noise_share: float = 1.0
    geometry: str = ""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """`model` with its adapter, σ, the noise it had, and what undoes a change of the base."""

    model: Any
    noise_multiplier: float
    restore: Callable[[], None] = lambda: None

    def base(self) -> Any:
        """The base as it was, with its adapter taken off."""
        self.restore()
        return self.model.unload()


def train(
    run: Run, *, base: Any, texts: CachedTexts, rows: list[Row], public: CachedTexts
) -> Trained:
    """Put an adapter on `base`, and let it learn `rows`.

    Args:
        run: how.
        base: frozen; its layers are adapted.
        texts: whose rows are learned.
        rows: some of them.
        public: what the base wrote itself.
    """
    from dpacc.layers.whitening import whiten
    from dpacc.recipe.models import add_lora

    adapted = add_lora(
        model=base,
        rank=run.rank,
        alpha=run.alpha,
        method=run.method,  # type: ignore[arg-type]
        seed=run.seed,
    ).train()
    if run.method == "whitened":
        whiten(model=adapted, public_examples=public.rows, collate=public.inputs)
    if not run.geometry:
        noise = _CONTENDERS[run.tool](run, adapted, texts, rows)
        return Trained(model=adapted, noise_multiplier=noise)
    from gradient_geometry import GEOMETRIES

    geometry = GEOMETRIES[run.geometry](model=adapted, public=public)
    noise = _dpacc(run, adapted, texts, rows, geometry)
    return Trained(model=adapted, noise_multiplier=noise, restore=geometry.restore)


def delta(rows: list[Row]) -> float:
    """N^-1.1."""
    return float(len(rows) ** -1.1)


def _dpacc(
    run: Run,
    model: nn.Module,
    texts: CachedTexts,
    rows: list[Row],
    geometry: Geometry | None = None,
) -> float:
    """The recipe's loop; a fixed seed makes it repeatable, for these texts are public."""
    from accelerate import Accelerator

    from dpacc import PrivacyEngine
    from dpacc.step.averaging import IterateAverage

    optimizer = _adamw(run, model)
    average = None
    if run.average:
        average = IterateAverage(optimizer, steps=run.steps, share=run.average)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_share, run=run))
    plan = _plan(run, rows)
    with tempfile.TemporaryDirectory() as folder:
        engine = PrivacyEngine(
            Accelerator(cpu=True),
            plan,
            ledger=Path(folder) / "ledger.jsonl",
            per_example_gradients="materialize",
            fixed_seed=run.seed,
            dynamic_rank=run.seed if run.method == "dylora" else None,
            subspace_rank=run.plan.get("subspace", {}).get("rank"),
        )
        prepared, _ = engine.prepare(model, optimizer, schedule)
        if geometry is not None:
            geometry.begin(engine=engine, optimizer=optimizer)
        # A row names its text, whose states are as long as they are: none can be made up.
        for step in engine.steps(rows, texts.collate, probe_examples=rows[:4]):
            with nullcontext() if geometry is None else geometry.point():
                for batch in step:
                    step.backward(texts.losses(prepared, batch))
            step.update()
            schedule.step()
        engine.close()
    if average is not None:
        average.put_in_place()
    return float(plan.noise_multiplier)


def _plan(run: Run, rows: list[Row]) -> Any:
    from dpacc import PrivacyPlan

    shared: dict[str, Any] = {
        "dataset_size": len(rows),
        "expected_batch_size": run.batch,
        "steps": run.steps,
        "target_delta": delta(rows),
        "max_grad_norm": run.max_grad_norm,
        "clipping": run.clipping,
    }
    if run.epsilon is None:
        return PrivacyPlan(noise_multiplier=0.0, allow_no_privacy=True, **shared)
    if "subspace" in run.plan:
        return _plan_of_two_phases(run, shared)
    plan = PrivacyPlan.calibrate(target_epsilon=run.epsilon, **shared, **_more_of_the_plan(run))
    if run.noise_share == 1:
        return plan
    noise = run.noise_share * plan.noise_multiplier
    return replace(plan, noise_multiplier=noise, target_epsilon=None)


def _plan_of_two_phases(run: Run, shared: dict[str, Any]) -> Any:
    """The same noise in both, of which the second is taken within the first one's directions."""
    from dpacc_accounting import Phase

    from dpacc.plan import phased_plan

    first = run.plan["subspace"]["steps"]
    phases = [
        Phase(steps=steps, expected_batch_size=run.batch, noise_multiplier=1.0)
        for steps in (first, run.steps - first)
    ]
    told = ("dataset_size", "target_delta", "max_grad_norm", "clipping")
    of_both = {name: shared[name] for name in told}
    return phased_plan(phases=phases, target_epsilon=run.epsilon or 0.0, **of_both)


def _more_of_the_plan(run: Run) -> dict[str, Any]:
    """What `plan` says; correlated noise is made for what this run makes of it."""
    if run.plan.get("correlation", "none") == "none":
        return dict(run.plan)
    from dpacc_accounting.factorization.workload import Workload

    workload = Workload(
        learning_rates=tuple(_share(step, run=run) for step in range(run.steps)),
        momentum=run.momentum or _FIRST_MOMENT,
        averaged=run.average,
    )
    return {**run.plan, "workload": workload}


def _opacus(run: Run, model: nn.Module, texts: CachedTexts, rows: list[Row]) -> float:
    """Opacus as its documentation shows it, with its own Poisson loader and PRV accountant."""
    from opacus import PrivacyEngine
    from opacus.utils.batch_memory_manager import BatchMemoryManager
    from torch.utils.data import DataLoader

    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.manual_seed(run.seed)
    shared: dict[str, Any] = {
        "module": model,
        "optimizer": _adamw(run, model),
        "data_loader": DataLoader(rows, batch_size=run.batch, collate_fn=texts.collate),  # type: ignore[arg-type]
        "max_grad_norm": run.max_grad_norm,
    }
    engine = PrivacyEngine()
    if run.epsilon is None:
        private, optimizer, loader = engine.make_private(noise_multiplier=0.0, **shared)
    else:
        private, optimizer, loader = engine.make_private_with_epsilon(
            target_epsilon=run.epsilon,
            target_delta=delta(rows),
            epochs=run.batch * run.steps / len(rows),
            **shared,
        )
    taken = 0
    while taken < run.steps:
        with BatchMemoryManager(
            data_loader=loader, max_physical_batch_size=PHYSICAL_BATCH, optimizer=optimizer
        ) as batches:
            for batch in batches:
                for group in optimizer.param_groups:
                    group["lr"] = run.learning_rate * _share(taken, run=run)
                if len(batch["inputs_embeds"]):
                    texts.losses(private, batch).mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                taken += not optimizer._is_last_step_skipped
                if taken == run.steps:
                    break
    private.remove_hooks()
    return float(optimizer.noise_multiplier)


def _opake(run: Run, model: nn.Module, texts: CachedTexts, rows: list[Row]) -> float:
    """Opake by its functional interface, with its own samplers, noise and accountant."""
    from opake_contender import learn

    optimizer = _adamw(run, model)

    def follow_schedule(taken: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = run.learning_rate * _share(taken, run=run)

    follow_schedule(0)
    return learn(
        model=model,
        texts=texts,
        rows=rows,
        optimizer=optimizer,
        steps=run.steps,
        batch=run.batch,
        epsilon=run.epsilon,
        delta=delta(rows),
        max_grad_norm=run.max_grad_norm,
        bands=run.plan.get("bands", 1),
        seed=run.seed,
        after_step=follow_schedule,
    )


def _dp_lora(run: Run, model: nn.Module, texts: CachedTexts, rows: list[Row]) -> float:
    """dp-lora's vanilla method with its own Poisson loader and accountant; only adapters learn."""
    from dp_lora import DPLoRAEngine
    from torch.utils.data import DataLoader

    if run.epsilon is None:
        raise ValueError("dp-lora is compared under privacy only")
    warnings.filterwarnings("ignore")
    torch.manual_seed(run.seed)
    engine = DPLoRAEngine()
    private, optimizer, loader = engine.make_private_with_epsilon(
        model=model,
        optimizer=_adamw(run, model),
        data_loader=DataLoader(rows, batch_size=run.batch, collate_fn=texts.collate),  # type: ignore[arg-type]
        target_epsilon=run.epsilon,
        target_delta=delta(rows),
        epochs=run.batch * run.steps // len(rows),
        max_grad_norm=run.max_grad_norm,
        method="vanilla",
    )
    taken = 0
    while taken < run.steps:
        for batch in loader:
            optimizer.zero_grad()
            texts.losses(private, batch).sum().backward()
            optimizer.step(engine.grad_sample_module.get_per_sample_grads())
            engine.grad_sample_module.clear_per_sample_grads()
            taken += 1
            if taken == run.steps:
                break
    engine.grad_sample_module.remove_hooks()
    return float(optimizer.noise_multiplier)


def _adamw(run: Run, model: nn.Module) -> torch.optim.AdamW:
    """AdamW; B learns `lift` times as fast as A."""
    learned = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    upper = [p for name, p in learned if "lora_B" in name]
    lower = [p for name, p in learned if "lora_B" not in name]
    groups = [{"params": lower}, {"params": upper, "lr": run.learning_rate * run.lift}]
    kept = [group for group in groups if group["params"]]
    if run.momentum:
        return torch.optim.SGD(kept, lr=run.learning_rate, momentum=run.momentum)
    return torch.optim.AdamW(kept, lr=run.learning_rate, weight_decay=0.0)


def _share(step: int, *, run: Run) -> float:
    if run.decays:
        return warm_up_then_decay(step, warmup=0, steps=run.steps)
    subspace = run.plan.get("subspace")
    if subspace and step >= subspace["steps"]:
        return float(subspace["rate"])
    return 1.0


_CONTENDERS: dict[str, Callable[[Run, nn.Module, CachedTexts, list[Row]], float]] = {
    "dpacc": _dpacc,
    "Opacus": _opacus,
    "Opake": _opake,
    "dp-lora": _dp_lora,
}
