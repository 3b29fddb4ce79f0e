"""How ranks act as one: join, agree, share, sum, and stop together."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedType,
    InitProcessGroupKwargs,
    broadcast,
    broadcast_object_list,
    gather_object,
)
from torch import Tensor, nn
from torch.nn import functional

from dpacc.errors import ConfigurationError, DpaccError
from dpacc.randomness.run_secret import SECRET_BYTES, RunSecret

_PATIENCE_SECONDS = 1800.0

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def join_ranks(*, patience_seconds: float = _PATIENCE_SECONDS) -> Accelerator:
    """The Accelerator of whatever launch this process is part of, on GPUs or processors.

    Args:
        patience_seconds: how long a rank waits for the others before it stops with an error.
            Longer than the longest micro-batch and evaluation by far.
    """
    on_gpu = torch.cuda.is_available()
    handlers = []
    if "LOCAL_RANK" in os.environ:
        backend, timeout = "nccl" if on_gpu else "gloo", timedelta(seconds=patience_seconds)
        handlers.append(InitProcessGroupKwargs(backend=backend, timeout=timeout))
    deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    if deepspeed:
        _settle_deepspeed(on_gpu=on_gpu)
    accelerator = Accelerator(cpu=not on_gpu and not deepspeed, kwargs_handlers=handlers)
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        _load_models_whole()
    return accelerator


def idle_cores(accelerator: Accelerator) -> int:
    """How many cores a rank may use beside its model's work: on a processor one, which it shares.

    On GPUs the machine's cores are divided among its ranks, up to four for each: more would
    contend with the thread that feeds the GPU.
    """
    if accelerator.device.type == "cpu":
        return 1
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes))
    return max(1, min(4, (os.cpu_count() or 1) // ranks_here))


def _settle_deepspeed(*, on_gpu: bool) -> None:
    """Keep its progress reports off the recipe's terminal, and a compiler out of a start on CPU."""
    try:
        import deepspeed
    except ImportError as error:
        raise ConfigurationError(
            "this launch configuration needs DeepSpeed; pip install '.[train,deepspeed]'"
        ) from error
    deepspeed.utils.logger.setLevel(logging.WARNING)
    if not on_gpu:
        # It would compile collectives over shared memory; gloo's need none.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _load_models_whole() -> None:
    """Stop transformers from cutting models as it loads them, which makes them fp32.

    The backend cuts them as they are, one parameter at a time.
    """
    from transformers.integrations import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()


def _stopping_together(collective: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Say what it means that a collective failed: another rank is gone, or hangs."""

    @wraps(collective)
    def guarded(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        try:
            return collective(*arguments, **options)
        except RuntimeError as error:
            if isinstance(error, DpaccError) or not torch.distributed.is_initialized():
                raise
            raise _lost(error) from error

    return guarded


@contextmanager
def telling_of_lost_ranks() -> Iterator[None]:
    """Say the same of collectives that torch or DeepSpeed run inside; other errors pass unchanged.

    Want of memory, for one, is an error of this rank's own.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, DpaccError) or not _is_of_a_collective(error):
            raise
        raise _lost(error) from error


def _is_of_a_collective(error: RuntimeError) -> bool:
    """By its class, which gloo's errors do not have: they begin with the file they are from."""
    return isinstance(error, torch.distributed.DistError) or "gloo/transport" in str(error)


def _lost(error: RuntimeError) -> DpaccError:
    reason = str(error).partition("\n")[0]
    return DpaccError(
        f"another rank died or did not answer in time, so this one stops too: {reason}"
    )


@_stopping_together
def share_from_main(value: Any) -> Any:
    """The main process's value, on every rank."""
    return broadcast_object_list([value])[0]


def agree_on_secret(fixed_seed: int | None) -> RunSecret:
    """The run's secret, the same on every rank: fresh, unless a seed makes it known."""
    if fixed_seed is not None:
        return RunSecret.from_fixed_seed(fixed_seed)
    return RunSecret(share_from_main(secrets.token_bytes(SECRET_BYTES)))


@_stopping_together
def start_alike(accelerator: Accelerator, parameters: Sequence[nn.Parameter]) -> None:
    """Give every rank the first rank's values: LoRA's random start differs from rank to rank."""
    for parameter in parameters:
        parameter.data.copy_(broadcast(parameter.data.to(accelerator.device)))


@_stopping_together
def tell_all(value: Result) -> list[Result]:
    """Every rank's value, in the order of ranks, on every rank."""
    everywhere: list[Result] = gather_object([value])
    return everywhere


@_stopping_together
def require_agreement(facts: Mapping[str, object]) -> None:
    """Stop every rank when the ranks disagree on any of `facts`, naming the first that differs.

    What they say is shown, but for digests ([`Digest`][dpacc.ranks.collectives.Digest]).
    """
    everywhere = gather_object([dict(facts)])
    for name in facts:
        answers = {str(rank_facts.get(name)) for rank_facts in everywhere}
        if len(answers) > 1:
            shown = "" if isinstance(facts[name], Digest) else f": {', '.join(sorted(answers))}"
            raise ConfigurationError(
                f"ranks disagree on {name}{shown}; "
                "give every rank the same code, data and configuration"
            )


class Digest(str):
    """A fingerprint that says nothing to a reader, or too much: it is compared, never shown."""


@_stopping_together
def sum_over_ranks(accelerator: Accelerator, tensor: Tensor) -> Tensor:
    """The sum of every rank's tensor, on every rank, in one reduction; a sole rank's own tensor."""
    if accelerator.num_processes == 1:
        return tensor
    total: Tensor = accelerator.reduce(tensor, reduction="sum")
    return total


@_stopping_together
def share_of_sum(accelerator: Accelerator, tensor: Tensor) -> Tensor:
    """This rank's share of the sum of every rank's [n] tensor, in one reduction.

    Shares are equal and follow one another; the last ones are filled up with zeros.
    """
    shares = _shares(accelerator, tensor)
    if len(shares) == 1:
        return shares[0]
    mine = torch.empty_like(shares[0])
    torch.distributed.reduce_scatter(mine, shares)
    return mine


def share_of(accelerator: Accelerator, tensor: Tensor) -> Tensor:
    """The same share of a tensor that every rank has."""
    mine: int = accelerator.process_index
    return _shares(accelerator, tensor)[mine]


@_stopping_together
def gather_shares(accelerator: Accelerator, share: Tensor) -> Tensor:
    """Every rank's share, one after another, on every rank."""
    if accelerator.num_processes == 1:
        return share
    everywhere = [torch.empty_like(share) for _ in range(accelerator.num_processes)]
    torch.distributed.all_gather(everywhere, share)
    return torch.cat(everywhere)


def _shares(accelerator: Accelerator, tensor: Tensor) -> list[Tensor]:
    count: int = accelerator.num_processes
    filled: Tensor = functional.pad(tensor, (0, -len(tensor) % count))
    return list(filled.chunk(count))


def together(action: Callable[[], Result]) -> Result:
    """Run `action` on every rank and return its result; when it fails on one, all stop.

    Raises:
        DpaccError: it failed on another rank; on the rank itself, what it raised.
    """
    result: list[Result] = []
    failure: Exception | None = None
    try:
        result.append(action())
    except Exception as error:
        failure = error
    messages = tell_all(None if failure is None else f"{type(failure).__name__}: {failure}")
    if failure is not None:
        raise failure
    for rank, message in enumerate(messages):
        if message is not None:
            raise DpaccError(f"rank {rank} stopped: {message}")
    return result[0]


def on_main_process(accelerator: Accelerator, action: Callable[[], None]) -> None:
    """Run `action` on the main process; every rank waits for it and fails with it."""
    failure: Exception | None = None
    message: str | None = None
    if accelerator.is_main_process:
        try:
            action()
        except Exception as error:
            failure, message = error, f"{type(error).__name__}: {error}"
    message = share_from_main(message)
    if failure is not None:
        raise failure
    if message is not None:
        raise DpaccError(f"the main process stopped: {message}")


def is_undivided(weight: Tensor) -> bool:
    """Whether all of a weight lies here as plain numbers: not sharded, partitioned or quantized.

    >>> is_undivided(torch.zeros(2))
    True
    """
    return type(weight.data) is Tensor and not hasattr(weight, "ds_id")
