"""What each rank runs in `test_backends`: one seeded plan under every backend and base."""

from __future__ import annotations

import copy
import json
import os
import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM

from dpacc.errors import PrivacyError
from dpacc.losses.per_example import causal_lm_losses
from dpacc.ranks.backends import Backend, Fsdp2
from dpacc.ranks.collectives import join_ranks
from dpacc.step.engine import PrivacyEngine
from tests.dpacc.layers.test_adapters import quantized
from tests.dpacc.step.engine_runs import plan_for
from tests.forked_ranks import fork_ranks, import_beforehand
from tests.tiny_models import CONFIGURATIONS, collate, examples, with_lora

BACKENDS = ("plain", "zero1", "zero2", "zero3", "fsdp2")
CUTTING = ("zero3", "fsdp2")
"""Those that cut the base over ranks."""

LENGTHS = [7, 3, 12, 1, 9, 5, 5, 20, 2, 11]
HIDDEN = 64
SEED = 7
"""Of 300 examples, one expected, it draws 1, 0, 2 and 0."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One way to train; every backend must train alike under it."""

    base: str = "fp32"
    checkpointing: bool = False
    per_example_gradients: str = "materialize"
    optimizer: str = "sgd"
    empty_draws: bool = False
    noise: str = "gaussian"
    wire: str = "fp32"
    steps: int = 4

    @property
    def name(self) -> str:
        """In words."""
        words = [self.base, self.per_example_gradients, self.optimizer]
        words += ["checkpointing"] * self.checkpointing + ["empty draws"] * self.empty_draws
        words += ["discrete noise"] * (self.noise != "gaussian")
        words += ["bf16 wire"] * (self.wire != "fp32")
        return " ".join(words)


SCENARIOS = (
    Scenario(steps=3),
    Scenario(checkpointing=True, per_example_gradients="ghost", optimizer="adamw", steps=3),
    Scenario(base="NF4", checkpointing=True, noise="discrete_gaussian", steps=3),
    Scenario(base="NF4", per_example_gradients="ghost", steps=3),
    Scenario(base="bf16", empty_draws=True, wire="bf16"),
)
"""Every pair of base, strategy and checkpointing; benchmarks/invariance.py runs all of them."""

ALONE = (SCENARIOS[0], SCENARIOS[3])
"""What one rank trains where a base is cut, into one part."""


def join(backend: str, **options: Any) -> tuple[Accelerator, Backend | None]:
    """What the ranks of a launch under `backend` get, one launch after another."""
    AcceleratorState._reset_state(reset_partial_state=True)
    cuts = backend.startswith("zero")
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true" if cuts else "false"
    os.environ["ACCELERATE_USE_CPU"] = "false" if cuts else "true"
    if cuts:
        settings = json.dumps(deepspeed_configuration(backend)).encode()
        os.environ["ACCELERATE_DEEPSPEED_CONFIG_FILE"] = urlsafe_b64encode(settings).decode()
    accelerator = join_ranks(**options)
    if backend == "fsdp2":
        mesh = init_device_mesh("cpu", (accelerator.num_processes,))
        return accelerator, Fsdp2(accelerator, mesh=mesh)
    return accelerator, None


def deepspeed_configuration(backend: str) -> dict[str, Any]:
    """ZeRO of a stage; under stage 3 the smallest parameter is cut as well."""
    zero: dict[str, Any] = {"stage": int(backend[-1])}
    if zero["stage"] == 3:
        zero["stage3_param_persistence_threshold"] = 0
    batch = {"train_batch_size": "auto", "train_micro_batch_size_per_gpu": "auto"}
    return {**batch, "gradient_accumulation_steps": "auto", "zero_optimization": zero}


def odd_base() -> nn.Module:
    """A Llama some of whose parameters cannot be cut in two equal parts."""
    configuration = copy.deepcopy(CONFIGURATIONS["llama"])
    configuration.hidden_size, configuration.intermediate_size = HIDDEN, HIDDEN + 1
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(configuration)


def tiny(scenario: Scenario) -> nn.Module:
    """The same model on every rank, whole and on the CPU."""
    base = odd_base()
    if scenario.base == "bf16":
        base.bfloat16()
    if scenario.base == "NF4":
        base = quantized(base)
    if scenario.checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
        base.enable_input_require_grads()
    torch.manual_seed(7)
    return with_lora(base, "llama")


def train(backend: str, scenario: Scenario, ledger: Path) -> dict[str, Any]:
    """What the adapters are after the plan's steps, and what became of the rest."""
    model = tiny(scenario)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    accelerator, explicit = join(backend)
    adapters = [p for p in model.parameters() if p.requires_grad]
    width = sum(p.numel() for p in adapters)
    optimizer: torch.optim.Optimizer = torch.optim.SGD(adapters, lr=1.0)
    if scenario.optimizer == "adamw":
        optimizer = torch.optim.AdamW(adapters, lr=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    data = examples([4] * 300 if scenario.empty_draws else LENGTHS)
    expected = 1 if scenario.empty_draws else 6
    plan = plan_for(
        len(data), expected_batch_size=expected, steps=scenario.steps, noise=scenario.noise
    )
    engine = PrivacyEngine(
        accelerator,
        plan,
        ledger=ledger,
        checkpoints=ledger.with_suffix(".checkpoints") if scenario == SCENARIOS[1] else None,
        micro_batch_tokens=40,
        per_example_gradients=scenario.per_example_gradients,  # type: ignore[arg-type]
        wire=scenario.wire,  # type: ignore[arg-type]
        fixed_seed=SEED,
        backend=explicit,
        compile="blocks" if backend == "compiled" else "none",
    )
    model, optimizer = engine.prepare(model, optimizer)
    held = [_held(model)]
    micro_batches, reductions = [], []
    for step in engine.steps(data, collate):
        micro_batches.append(0)
        with counted_reductions(width) as count:
            for batch in step:
                step.backward(causal_lm_losses(model, batch))
                micro_batches[-1] += 1
                held.append(_held(model))
            step.update()
        schedule.step()
        reductions.append(len(count))
        if step.index == 1 and scenario == SCENARIOS[1]:
            engine.checkpoint()
    engine.close()
    with engine.whole_adapters():
        after = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    return {
        "adapters": torch.cat([p.flatten() for p in after.values()]),
        "still": [name for name, p in after.items() if torch.equal(p, before[name])],
        "base changed": _changed(model, before),
        "base elements held": max(held),
        "micro-batches": micro_batches,
        "reductions": reductions,
    }


@contextmanager
def counted_reductions(width: int) -> Iterator[list[str]]:
    """The reductions, by whoever, of anything as large as a share of the adapters."""
    seen: list[str] = []
    names = ("all_reduce", "reduce", "reduce_scatter", "reduce_scatter_tensor")
    originals = {name: getattr(dist, name) for name in names}

    def counting(name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            tensors = [*arguments, *options.values()]
            if any(isinstance(t, torch.Tensor) and t.numel() >= width // 4 for t in tensors):
                seen.append(name)
            return originals[name](*arguments, **options)

        return call

    for name in names:
        setattr(dist, name, counting(name))
    try:
        yield seen
    finally:
        for name, original in originals.items():
            setattr(dist, name, original)


def leak(backend: str, ledger: Path) -> dict[str, Any]:
    """What happens when a weight is used outside its layer, so that autograd gives it a gradient.

    Returns:
        The error, how many gradients DeepSpeed's optimizer has seen, and what is said when the
        optimizer is given another parameter.
    """
    model = tiny(Scenario())
    name, layer = next((n, m) for n, m in model.named_modules() if n.endswith("lora_A.default"))
    layer.register_forward_hook(lambda module, _, output: output + module.weight.sum())
    accelerator, _ = join(backend)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    engine = PrivacyEngine(accelerator, plan_for(len(LENGTHS)), ledger=ledger, fixed_seed=SEED)
    model, optimizer = engine.prepare(model, optimizer)
    step = next(engine.steps(examples(LENGTHS), collate))
    try:
        for batch in step:
            step.backward(causal_lm_losses(model, batch))
    except PrivacyError as error:
        partitions = engine._backend._engine.optimizer.averaged_gradients  # type: ignore[attr-defined]
        seen = sum(map(bool, partitions.values()))
        tampering = told_of_tampering(engine, optimizer)
        return {"error": str(error), "layer": name, "seen": seen, "tampering": tampering}
    finally:
        engine.close()
    return {"error": "none", "layer": name, "seen": 0, "tampering": "none"}


def told_of_tampering(engine: PrivacyEngine, optimizer: torch.optim.Optimizer) -> str:
    """What the backend says of a parameter that joined the optimizer later."""
    optimizer.param_groups[0]["params"].append(nn.Parameter(torch.zeros(2)))
    try:
        engine._backend.require_same_optimizer(engine._model)
    except PrivacyError as error:
        return str(error)
    return "none"


def _held(model: nn.Module) -> int:
    """How many of the base's elements this rank holds now."""
    return sum(_local(p) for p in model.parameters() if not p.requires_grad)


def _local(parameter: nn.Parameter) -> int:
    if isinstance(parameter, DTensor):
        return parameter.to_local().numel()
    if hasattr(parameter, "ds_tensor"):
        return int(parameter.ds_tensor.numel()) + parameter.numel()
    return parameter.numel()


def _changed(model: nn.Module, before: dict[str, torch.Tensor]) -> list[str]:
    """The frozen parameters that are not bit for bit what they were."""
    from deepspeed import zero

    frozen = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    assert len(frozen) > 10
    cut = any(hasattr(p, "ds_id") for p in frozen.values())
    with zero.GatheredParameters(list(frozen.values()), enabled=cut):
        whole = {n: p.full_tensor() if isinstance(p, DTensor) else p for n, p in frozen.items()}
        return [name for name, p in whole.items() if not torch.equal(p, before[name])]


def train_all(folder: Path, backends: Sequence[str], scenarios: Sequence[Scenario]) -> Any:
    """What this rank sees under every backend, by backend and scenario."""
    return {
        backend: {
            scenario.name: train(backend, scenario, folder / f"{backend} {scenario.name}.jsonl")
            for scenario in scenarios
        }
        for backend in backends
    }


def main() -> None:
    """Train under every backend on two ranks, then as one, and keep what each rank saw."""
    folder = Path(sys.argv[1])
    import_beforehand()

    def as_one_of_two() -> None:
        seen: dict[str, Any] = train_all(folder, BACKENDS, SCENARIOS)
        seen["leaks"] = {b: leak(b, folder / f"{b} leak.jsonl") for b in ("zero2", "zero3")}
        torch.save(seen, folder / f"rank-{os.environ['RANK']}.pt")

    def as_the_only_one() -> None:
        (folder / "alone").mkdir()
        torch.save(train_all(folder / "alone", CUTTING, ALONE), folder / "alone.pt")

    assert fork_ranks(as_one_of_two, ranks=2) == [0, 0]
    assert fork_ranks(as_the_only_one, ranks=1) == [0]


if __name__ == "__main__":
    main()
