"""Randomness that is no example's own: noticed by the generators it draws from, and refused.

A number drawn for a whole micro-batch, from a generator that anybody can seed and that remembers
who was there before, makes one example's gradient depend on the others.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dpacc.errors import PrivacyError

_FIRST_SEED = 0x64706163 << 32
_REMEDY = (
    "what is random must be each example's own. Ordinary dropout is; set whatever else draws "
    "(noise on embeddings, router jitter, stochastic depth) to 0 in the model's configuration"
)


class CallCounter:
    """Numbers the random calls of a forward, and gives a repeated call its old number.

    The number is the seed of torch's generator on the processor, which activation checkpointing
    keeps and puts back, so nested, shared and repeated layers need no names.

    Attributes:
        repeating: whether a backward runs, in which no call is new.
    """

    _states: list[Tensor] = []  # noqa: RUF012  of seeds, which are no secret: shared by all

    def __init__(self) -> None:
        self.repeating = False
        self._before: Tensor | None = None
        self._made = 0

    def start(self) -> None:
        """Number calls from 0."""
        self._before = torch.get_rng_state()
        self._made = 0
        self._set(0)

    def next(self, names: Mapping[int, str]) -> int:
        """The number of a call that is made now.

        Args:
            names: of the model's modules, to say who calls.

        Raises:
            PrivacyError: something else drew numbers since, or a layer is computed again with
                other randomness than the first time.
        """
        call = self._now()
        if call is None:
            raise PrivacyError(
                f"something drew from torch's generator, or seeded it, before "
                f"{calling_module(names)} did, and since the micro-batch was handed out; {_REMEDY}"
            )
        if self.repeating and call >= self._made:
            raise PrivacyError(
                f"{calling_module(names)} is computed again in the backward without the state its "
                "dropout had; leave preserve_rng_state=True in the settings of checkpointing, or "
                "set dropout to 0"
            )
        self._made = max(self._made, call + 1)
        self._set(call + 1)
        return call

    def require_untouched(self) -> None:
        """Refuse when anything but numbered calls used the generator."""
        if self._now() is None:
            raise PrivacyError(
                "something drew from torch's generator, or seeded it, between a micro-batch and "
                f"the end of its backward; {_REMEDY}"
            )

    def stop(self) -> None:
        """Leave the generator as it was."""
        if self._before is not None:
            torch.set_rng_state(self._before)
            self._before = None

    def _set(self, call: int) -> None:
        torch.default_generator.manual_seed(_FIRST_SEED + call)
        if call == len(self._states):
            self._states.append(torch.get_rng_state())

    def _now(self) -> int | None:
        call = torch.default_generator.initial_seed() - _FIRST_SEED
        if not 0 <= call < len(self._states):
            return None
        return call if torch.equal(torch.get_rng_state(), self._states[call]) else None


class Generators:
    """What the generators that anybody may use stood at; they must not have moved.

    Args:
        device: whose generator is looked at.
        all_of_them: numpy's and Python's too; other threads draw from these now and then, so they
            are not looked at for as long as a large micro-batch takes.
    """

    def __init__(self, *, device: torch.device, all_of_them: bool) -> None:
        self._device = device
        self._all_of_them = all_of_them
        self._before = self._states()

    def require_untouched(self) -> None:
        """Refuse when one has moved, by name."""
        for name, state in self._states().items():
            if not _equal(state, self._before[name]):
                raise PrivacyError(f"the forward or backward drew from {name}; {_REMEDY}")

    def _states(self) -> dict[str, Any]:
        states: dict[str, Any] = {}
        if self._device.type not in ("cpu", "meta"):
            module = torch.get_device_module(self._device)
            where = () if self._device.type == "mps" else (self._device,)
            states[f"the generator of {self._device}"] = module.get_rng_state(*where)
        if self._all_of_them:
            states |= _states_off_the_device()
        return states


@contextmanager
def refusing_draws(what: str, remedy: str) -> Iterator[None]:
    """Refuse that anything inside draws from torch's, numpy's or Python's generator.

    Args:
        what: is run inside.
        remedy: to say.

    Raises:
        PrivacyError: it drew.

    >>> with refusing_draws("nothing", "nothing to do"):
    ...     pass
    """
    before = _states_off_the_device() | {"torch's generator": torch.get_rng_state()}
    yield
    after = _states_off_the_device() | {"torch's generator": torch.get_rng_state()}
    for name, state in after.items():
        if not _equal(state, before[name]):
            raise PrivacyError(
                f"{what} drew from {name}, so what one example becomes depends on those before "
                f"it; {remedy}"
            )


class DrawsByName(TorchDispatchMode):
    """Refuses random operations by name, while a model runs on made-up examples.

    Args:
        names: of the model's modules.

    Attributes:
        wanted: whether the next forward is watched.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._names = names
        self.wanted = False
        self._depth = 0

    def begin(self) -> None:
        """A forward begins."""
        if self.wanted or self._depth:
            self._depth += 1
            if self._depth == 1:
                self.__enter__()  # type: ignore[no-untyped-call]

    def end(self) -> None:
        """It ended, or failed."""
        if self._depth:
            self._depth -= 1
            if self._depth == 0:
                self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Refuse the operation, or let it pass."""
        if torch.Tag.nondeterministic_seeded in func.tags and _is_random(func, args, kwargs or {}):
            raise PrivacyError(
                f"{calling_module(self._names)} draws random numbers by {func} for a whole "
                f"micro-batch; {_REMEDY}"
            )
        return func(*args, **(kwargs or {}))


class Compilation:
    """Whether torch compiles a part of a model, and a time in which it does not.

    Torch never again compiles what it meets under a watch over operations, and compiled code is
    none that names its draws: so one micro-batch is watched, forward and backward uncompiled.

    Attributes:
        may_be_watched: whether the next micro-batch may be.
    """

    def __init__(self, model: nn.Module) -> None:
        self._compiled = is_compiled(model)
        self.may_be_watched = True
        self._stance: Any = None

    def rest(self) -> None:
        """Run uncompiled from now on, this once."""
        if self._compiled:
            self.may_be_watched = False
            self._stance = torch.compiler.set_stance("force_eager")

    def go_on(self) -> None:
        """Run compiled code again."""
        if self._stance is not None:
            self._stance.__exit__(None, None, None)
            self._stance = None


def is_compiled(model: nn.Module) -> bool:
    """Whether torch compiles a part of the model.

    >>> is_compiled(nn.Linear(2, 2))
    False
    """
    return any(module._compiled_call_impl is not None for module in model.modules())


def calling_module(names: Mapping[int, str]) -> str:
    """The innermost of the model's modules that is running, by its name and class."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        for held in frame.f_locals.values():
            if isinstance(held, nn.Module) and names.get(id(held)):
                return f"{names[id(held)]} ({type(held).__name__})"
        frame = frame.f_back
    return "the model or its loss"


def _is_random(func: Any, args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether an operation that can draw does so with these arguments."""
    given = {argument.name: argument.default_value for argument in func._schema.arguments}
    given |= dict(zip(given, args, strict=False)) | dict(kwargs)
    idle = given.get("dropout_p") == 0 or given.get("p") == 0
    return not (idle or given.get("train", True) is False or given.get("training", True) is False)


def _states_off_the_device() -> dict[str, Any]:
    state: Any = np.random.get_state(legacy=False)
    of_numpy = (state["state"]["key"], state["state"]["pos"])
    return {"numpy's generator": of_numpy, "Python's generator": random.getstate()}


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, tuple) and isinstance(first[0], np.ndarray):
        return first[1] == second[1] and bool((first[0] == second[0]).all())
    return bool(first == second)
