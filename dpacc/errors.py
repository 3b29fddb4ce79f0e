"""What a person is told: errors that name the culprit and the remedy, and words not understood.

A setting that is swallowed is a guarantee that nobody gives, and a bare `TypeError` sends people
away who come from another library with its words. So unknown keywords are refused by name, with
what was meant. `errors_alone_from` keeps other libraries from telling what nobody needs.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class DpaccError(Exception):
    """Anything that dpacc refuses to do."""


class ConfigurationError(DpaccError, ValueError):
    """Bad input: a command line that meets it prints one line and exits with code 2."""


class PrivacyError(DpaccError, RuntimeError):
    """What was asked for cannot be shown to be private, so it was not done."""


class BudgetExhausted(PrivacyError):  # noqa: N818 - reads as what happened
    """One more step would spend more privacy than the plan allows."""


class DiskRefused(DpaccError):  # noqa: N818 - reads as what happened
    """A file could not be written; what was charged before stays charged."""


_CUTOFF = 0.5

_ELSEWHERE: Mapping[str, str] = {
    "module": "the model is given as model=",
    "criterion": "give losses=, which returns one loss per example from logits and labels",
    "loss_fn": "give losses=, which returns one loss per example from logits and labels",
    "loss_reduction": "each example has a loss of its own here, so leave it out",
    "poisson_sampling": "every step is Poisson-sampled, as ε is priced for; leave it out",
    "secure_mode": "noise and samples always come from a cryptographic generator; leave it out",
    "noise_generator": "noise is keyed by a secret that is never stored; leave it out",
    "accountant": "one accountant certifies ε, and `dpacc verify` recomputes it; leave it out",
    "alphas": "one accountant certifies ε, and `dpacc verify` recomputes it; leave it out",
    "grad_sample_mode": "give the engine per_example_gradients='materialize' or 'ghost'",
    "batch_first": "inputs are [examples, ...] here; leave it out",
    "unit_ids": "whose each example is, is given as units=",
    "user_ids": "whose each example is, is given as units=",
    "epsilon": "the budget is given as target_epsilon=",
    "delta": "it is given as target_delta=",
    "max_per_sample_grad_norm": "C is given as max_grad_norm=",
}
"""What stands for the words of other libraries, and for what they do not have."""

_NEEDED: Mapping[str, str] = {
    "ledger": "where releases are recorded before they happen, such as ledger='run/ledger.jsonl'",
    "target_delta": "δ, well below one in the number of examples",
    "max_grad_norm": "C, the clipping norm of one example's gradient",
    "model_name": "the base that all share, a local folder or its id on the hub",
    "lora_config": "the adapter that all share, such as LoraSettings(rank=8)",
    "dp_config": "a DPSettings with epsilon, delta and expected_batch_size",
}


def names_what_is_unknown(
    *more: type, of: str | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function with keywords alone refuse unknown and missing ones in one line.

    Args:
        *more: typed dictionaries of which it takes the keys as keywords, too.
        of: what people call it, if not by its own name.

    >>> @names_what_is_unknown()
    ... def train(*, model: str, units: int = 0) -> str:
    ...     return model
    >>> train(model="llama")
    'llama'
    >>> train(model="llama", unit=3)
    Traceback (most recent call last):
    dpacc.errors.ConfigurationError: train has no unit=: do you mean units=?
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = inspect.signature(function).parameters.values()
        name = of or function.__name__
        known = [each.name for each in parameters if each.kind in _NAMED and each.name != "self"]
        known += [key for kind in more for key in kind.__annotations__]
        needed = [each.name for each in parameters if _is_needed(each)]
        positional = sum(
            each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for each in parameters
        )

        @wraps(function)
        def checked(*arguments: P.args, **given: P.kwargs) -> R:
            refuse_unknown(given, known=known, of=name)
            if len(arguments) > positional:
                raise ConfigurationError(f"give {name} its arguments by name: {_listed(known)}")
            for missing in (word for word in needed if word not in given):
                said = _NEEDED.get(missing, "see its documentation")
                raise ConfigurationError(f"{name} needs {missing}=: {said}")
            return function(*arguments, **given)

        return checked

    return decorate


def refuse_unknown(given: Iterable[str], *, known: Collection[str], of: str) -> None:
    """Refuse the first keyword that is not `known`, with the nearest that is.

    Raises:
        ConfigurationError: there is one.

    >>> refuse_unknown(["per_exampl"], known=["per_example", "wire"], of="the engine")
    Traceback (most recent call last):
    dpacc.errors.ConfigurationError: the engine has no per_exampl=: do you mean per_example=?
    """
    for word in given:
        if word in known:
            continue
        said = _ELSEWHERE.get(word) or meaning(word, known)
        raise ConfigurationError(f"{of} has no {word}=: {said}")


def meaning(word: str, known: Collection[str]) -> str:
    """What of the `known` keywords was meant, or which there are."""
    found = nearest(word, known)
    return f"it has {_listed(known)}" if found is None else f"do you mean {found}=?"


def nearest(word: object, known: Iterable[str]) -> str | None:
    """The one of `known` that a word with other dashes, capitals or letters comes near to.

    >>> nearest("Per_Layer", ["flat", "per-layer"])
    'per-layer'
    >>> nearest("xyz", ["flat", "per-layer"])
    """
    plain = {_plain(each): each for each in known}
    found = get_close_matches(_plain(str(word)), plain, n=1, cutoff=_CUTOFF)
    return plain[found[0]] if found else None


def choices(asked: object, known: Collection[str]) -> str:
    """What there is to choose from, and which of it was meant.

    >>> choices("per_layer", ["flat", "per-layer"])
    "flat, per-layer; do you mean 'per-layer'?"
    """
    found = nearest(asked, known)
    return ", ".join(known) + ("" if found is None else f"; do you mean {found!r}?")


def require_local(path: str | Path, *, name: str) -> None:
    """Refuse an address such as `s3://bucket`, which would become a folder of that name here.

    Args:
        path: where something will be written.
        name: of the setting that says so.

    Raises:
        ConfigurationError: it is no path of this machine.

    >>> require_local("runs/one", name="output_dir")
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        raise ConfigurationError(
            f"{name}={path} is no folder of this machine: name one that is, and copy it "
            "afterwards, or mount what should hold it"
        )


def cannot_write(path: Path, error: Exception) -> DiskRefused:
    """What to say when the disk refuses; nothing of a run is lost by it."""
    reason = getattr(error, "strerror", None) or error
    return DiskRefused(
        f"cannot write {path}: {reason}; what was released stays charged; free the disk and "
        "resume the run"
    )


@contextmanager
def disk_refusals_told(path: Path) -> Iterator[None]:
    """Say in one line what the disk refuses of a file that a run needs.

    Raises:
        DiskRefused: it did.

    >>> with disk_refusals_told(Path("ledger.jsonl")):
    ...     raise OSError(28, "No space left on device")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    dpacc.errors.DiskRefused: cannot write ledger.jsonl: No space left on device; what was ...
    """
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def errors_alone_from(logger: str) -> Iterator[None]:
    """Let another library's logger tell errors, and nothing less, for a while.

    Args:
        logger: its name.

    >>> with errors_alone_from("flwr"):
    ...     logging.getLogger("flwr").isEnabledFor(logging.WARNING)
    False
    """
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _is_needed(parameter: inspect.Parameter) -> bool:
    by_name_alone = parameter.kind is inspect.Parameter.KEYWORD_ONLY
    return by_name_alone and parameter.default is inspect.Parameter.empty


def _plain(word: str) -> str:
    return word.lower().replace("-", "_").replace(" ", "_")


def _listed(words: Iterable[Any]) -> str:
    return ", ".join(f"{word}=" for word in words)
