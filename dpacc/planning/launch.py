"""Which launch configuration suits a run, and the line that starts it."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from dataclasses import dataclass

from dpacc.planning.memory import Placement
from dpacc.recipe.settings import Quantization

_ON_ONE_MACHINE = 8


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A recommendation.

    Attributes:
        file: in launch_configs/.
        why: in words.
        line: starts the run, by `accelerate launch`.
    """

    file: str
    why: str
    line: str


def recommend(
    *, gpus: int, fitting: Collection[Placement], quantization: Quantization, config: str
) -> Launch | None:
    """The simplest launch whose memory fits; none if nothing does.

    Args:
        gpus: how many; 0 means the processor.
        fitting: the placements that fit on each.
        quantization: an int8 base cannot be cut over ranks.
        config: path of the recipe's configuration, and the options that override it.

    >>> recommend(gpus=1, fitting={"whole"}, quantization="nf4", config="c.yaml").file
    'launch_configs/single_gpu.yaml'
    >>> recommend(gpus=2, fitting={"whole"}, quantization="nf4", config="c.yaml").line
    "dpacc train --launch 'ddp --num_processes 2' --config c.yaml"
    """
    options = ""
    if gpus == 0:
        name, why = "cpu", "the processor of this machine"
    elif "whole" in fitting and gpus == 1:
        name, why = "single_gpu", "all of it fits on one GPU"
    elif "whole" in fitting and gpus > _ON_ONE_MACHINE:
        machines = -(-gpus // _ON_ONE_MACHINE)
        name, why = "multi_node", "all of it fits on each GPU: only one sum a step crosses"
        options = f" --num_machines {machines} --num_processes {gpus} --machine_rank 0"
        options += " --main_process_ip 10.0.0.1"
    elif "whole" in fitting:
        name, why = "ddp", "all of it fits on each GPU: only one sum a step crosses"
    elif gpus > 1 and "zero2" in fitting:
        name, why = "deepspeed_zero2", "it fits once the optimizer's state is cut over the GPUs"
    elif gpus > 1 and quantization != "int8" and "fsdp2" in fitting:
        name, why = "fsdp2", "it fits once the base is cut over the GPUs"
    elif gpus > 1 and quantization != "int8" and "zero3" in fitting:
        name, why = "deepspeed_zero3", "it fits once base and adapters are cut over the GPUs"
    else:
        return None
    if name != "multi_node" and gpus not in (0, 1, _ON_ONE_MACHINE):
        options = f" --num_processes {gpus}"
    line = f"dpacc train --launch {shlex.quote(name + options)} --config {config}"
    return Launch(file=f"launch_configs/{name}.yaml", why=why, line=line)
