"""What a model was before its private training: starts that were computed from somebody's data.

A guarantee covers what training releases. Whatever the adapters begin with, or the frozen base was
rounded by, is in what is released as well, without clipping and without noise: a start that was
computed from data is refused until that data is declared public, and then stands in the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import nn

from dpacc.data.overlap import shared_examples
from dpacc.errors import ConfigurationError, PrivacyError
from dpacc.layers.whitening import WhitenedBy

_STARTS_FROM_DATA = {
    "eva": "the main directions of what the layers read of that data",
    "corda": "the covariance of what the layers read of that data",
    "lora_ga": "gradients of that data",
}
"""PEFT's starts for LoRA that look at data; others look at the base's weights, or at nothing."""

_PUBLIC_CALIBRATION = frozenset({"wikitext2", "c4", "c4-new", "ptb", "ptb-new", "pileval"})
_DECLARED = "_dpacc_public_start"
_BEGINS_AT_ZERO = (True, "gaussian")
"""PEFT's starts for LoRA whose update B·A is zero; of another, nothing tells it from training."""

_TRAINED = (
    "trained-before",
    "the adapter was already trained before this run's first step: what it was trained on is "
    "outside this guarantee",
)


def declare_public_start(model: nn.Module, *, source: str) -> None:
    """Declare that what the model starts from was computed from public data, and from which.

    The engine writes it into the ledger, and the statement says it.

    Args:
        model: that will be trained, before an engine or a trainer prepares it.
        source: what the data is called.

    Raises:
        ConfigurationError: the source has no name.

    >>> model = nn.Linear(2, 2)
    >>> declare_public_start(model, source="wikitext2")
    >>> starting_notes(model)[0][0]
    'public-start'
    """
    if not source.strip():
        raise ConfigurationError("source='' names no data; say what the start was computed from")
    setattr(model, _DECLARED, [*getattr(model, _DECLARED, []), source.strip()])


def refuse_starts_from_data(model: nn.Module) -> None:
    """Refuse adapters and bases that were computed from data which nobody declared public.

    Raises:
        PrivacyError: there is such a start, with how to declare it.
    """
    if _declared(model):
        return
    for how in _computed_from_data(model):
        raise PrivacyError(
            f"{how}, and what is released shows it without noise; start from init_lora_weights="
            "True, or, where the data was public, say so with dpacc.step.admission.starting_point."
            "declare_public_start(model, source='what the data is called')"
        )


def refuse_private_examples_in_the_start(model: nn.Module, private: Sequence[Any]) -> None:
    """Refuse adapters that were whitened by private examples.

    Raises:
        PrivacyError: some of the public examples stand among the private ones.
    """
    for whitened_by in _whitenings(model):
        count = shared_examples(private=private, others=whitened_by.examples)
        if count:
            raise PrivacyError(
                f"{count} of the examples that whitened the adapters ({whitened_by.source}) stand "
                "in the private training data too, whose second moments would be released without "
                "noise; whiten by data that holds none of it"
            )


def starting_notes(model: nn.Module, *, trained: bool = False) -> list[tuple[str, str]]:
    """What the ledger must say of the start: subjects and texts.

    Args:
        model: that is trained.
        trained: whether it was, before the ledger's first step.
    """
    notes = [_TRAINED] if trained else []
    notes += [
        (
            "public-start",
            f"what training started from was computed from {source}, which was declared public: "
            "what that shows of anybody is in the released weights, and no guarantee covers it",
        )
        for source in _declared(model)
    ]
    return notes + [whitening_note(each.source) for each in _whitenings(model)]


def is_trained(model: nn.Module) -> bool:
    """Whether adapters that begin at zero no longer do, by data that nobody named.

    >>> is_trained(nn.Linear(2, 2))
    False
    """
    return not _declared(model) and any(
        bool(lower.weight.any()) and bool(upper.weight.any())
        for lower, upper in _factors_from_zero(model)
    )


def _factors_from_zero(model: nn.Module) -> Iterator[tuple[Any, Any]]:
    """A and B of each LoRA layer whose update is zero before training."""
    starts = {
        name: config.init_lora_weights
        for module in model.modules()
        if isinstance(configs := getattr(module, "peft_config", None), dict)
        for name, config in configs.items()
        if hasattr(config, "init_lora_weights")
    }
    for module in model.modules():
        lower, upper = getattr(module, "lora_A", None), getattr(module, "lora_B", None)
        if isinstance(lower, nn.ModuleDict) and isinstance(upper, nn.ModuleDict):
            for name in lower:
                if starts.get(name, True) in _BEGINS_AT_ZERO:
                    yield lower[name], upper[name]


def whitening_note(source: str) -> tuple[str, str]:
    """What the ledger says of whitened adapters: subject and text."""
    return (
        "whitening",
        f"the adapters' inputs were whitened by {source}, without noise: what they show of anybody "
        "is in the released weights, and no guarantee covers it",
    )


def _declared(model: nn.Module) -> list[str]:
    named = (source for module in model.modules() for source in getattr(module, _DECLARED, ()))
    return list(dict.fromkeys(named))


def _whitenings(model: nn.Module) -> list[WhitenedBy]:
    """One of each source: layers that were whitened together hold the same object."""
    found = (getattr(module, "whitened_by", None) for module in model.modules())
    return list({id(each): each for each in found if isinstance(each, WhitenedBy)}.values())


def _computed_from_data(model: nn.Module) -> Iterator[str]:
    for module in model.modules():
        configs = getattr(module, "peft_config", None)
        for config in configs.values() if isinstance(configs, dict) else ():
            yield from _of_an_adapter(config)
        yield from _of_a_base(getattr(module, "config", None))


def _of_an_adapter(config: Any) -> Iterable[str]:
    start = getattr(config, "init_lora_weights", None)
    for name, what in _STARTS_FROM_DATA.items():
        asked = isinstance(start, str) and start.lower().replace("-", "_").startswith(name)
        if asked or getattr(config, f"{name}_config", None) is not None:
            yield f"the adapters start from data (init_lora_weights={start!r}): from {what}"


def _of_a_base(config: Any) -> Iterable[str]:
    settings = getattr(config, "quantization_config", None)
    named = settings if isinstance(settings, dict) else getattr(settings, "__dict__", {})
    calibration = named.get("dataset")
    if isinstance(calibration, str) and calibration in _PUBLIC_CALIBRATION:
        return
    if calibration is not None:
        method = getattr(named.get("quant_method"), "value", named.get("quant_method"))
        yield f"the base was quantized ({method}) by examples that its configuration does not name"
