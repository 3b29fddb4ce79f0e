"""How ranks act as one: agree, share, sum, and stop together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast, broadcast_object_list, gather_object
from torch import Tensor, nn

from dpacc.errors import ConfigurationError, DpaccError


def share_from_main(value: Any) -> Any:
    """The main process's value, on every rank."""
    return broadcast_object_list([value])[0]


def start_alike(accelerator: Accelerator, parameters: Sequence[nn.Parameter]) -> None:
    """Give every rank the first rank's values: LoRA's random start differs from rank to rank."""
    for parameter in parameters:
        parameter.data.copy_(broadcast(parameter.data.to(accelerator.device)))


def require_agreement(facts: Mapping[str, object]) -> None:
    """Stop every rank when the ranks disagree on any of `facts`, naming the first that differs."""
    everywhere = gather_object([dict(facts)])
    for name in facts:
        answers = {str(rank_facts[name]) for rank_facts in everywhere}
        if len(answers) > 1:
            raise ConfigurationError(
                f"ranks disagree on {name}: {', '.join(sorted(answers))}; "
                "give every rank the same code, data and configuration"
            )


def sum_over_ranks(accelerator: Accelerator, tensor: Tensor) -> Tensor:
    """The sum of every rank's tensor, on every rank, in one reduction."""
    total: Tensor = accelerator.reduce(tensor, reduction="sum")
    return total


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
