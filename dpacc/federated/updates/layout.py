"""Adapters as Flower carries them: named fp32 arrays of one agreed layout."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import Array, ArrayRecord
from numpy.lib.format import read_array_header_1_0, read_magic
from torch import nn

from dpacc.errors import ConfigurationError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Arrays: TypeAlias = dict[str, npt.NDArray[np.float32]]

_PARTS = ("adapter", "base", "tokenizer", "labels")
_LOOKED_AT = 1024
_MADE_UP = "The film was GOOD,  and 12 words are: naïve, 3.5%!\n"

LARGEST = 1e6
"""Beyond it no number of an adapter is believed: two factors of 10³⁰ each are finite, and their
product is not."""


def trainable_arrays(model: nn.Module) -> Arrays:
    """A copy of every trainable parameter, by its name."""
    return {
        name: parameter.detach().cpu().float().numpy().copy()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def load_arrays(model: nn.Module, arrays: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Overwrite the trainable parameters, in place; `arrays` has been checked."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name in parameters.keys() & arrays.keys():
            values = arrays[name]
            parameters[name].copy_(torch.from_numpy(np.asarray(values, dtype=np.float32)))


def layout_hash(model: nn.Module, *, tokenizer: PreTrainedTokenizerBase) -> str:
    """What averaging takes for granted: SHA-256 of adapter, base, tokenizer and labels.

    Adapters of different layouts, or of a different A, must never be averaged, nor those that were
    trained on another base, read by another tokenizer, or whose classes stand in another order. Of
    each of the base's arrays at most 1,024 numbers are looked at, in bf16, in which devices agree:
    a mistake is found, and no forgery. To be taken before any rule corrects the base.

    Args:
        model: base and adapter.
        tokenizer: by which records are read.
    """
    parts = (_adapter(model), _base(model), _vocabulary(tokenizer), _labels(model))
    return "/".join(parts)


def differing_parts(one: str, other: object) -> tuple[str, ...]:
    """Which parts of two layouts differ.

    >>> differing_parts("a/b/c/d", "a/x/c/y"), differing_parts("a/b/c/d", None)
    (('base', 'labels'), ('adapter', 'base', 'tokenizer', 'labels'))
    """
    theirs = str(other).split("/")
    if len(theirs) != len(_PARTS):
        return _PARTS
    pairs = zip(_PARTS, one.split("/"), theirs, strict=True)
    return tuple(name for name, mine, said in pairs if mine != said)


def _adapter(model: nn.Module) -> str:
    """Names and shapes of what is trained, every frozen adapter's A, and how both are scaled."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            digest.update(json.dumps([name, list(parameter.shape)]).encode())
        elif "lora_" in name:
            digest.update(json.dumps([name, list(parameter.shape), "frozen"]).encode())
            digest.update(parameter.detach().cpu().float().numpy().tobytes())
    for name, module in model.named_modules():
        if hasattr(module, "scaling") and isinstance(module.scaling, Mapping):
            digest.update(json.dumps([name, dict(module.scaling)]).encode())
    return digest.hexdigest()


def _base(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad or "lora_" in name:
            continue
        numbers = parameter.detach().flatten()
        some = numbers[:: max(1, len(numbers) // _LOOKED_AT)][:_LOOKED_AT]
        digest.update(json.dumps([name, list(parameter.shape)]).encode())
        digest.update(some.cpu().bfloat16().float().numpy().tobytes())
    return digest.hexdigest()


def _vocabulary(tokenizer: PreTrainedTokenizerBase) -> str:
    """Every token's number, how a made-up text is cut, and how chats are written."""
    words = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    template = getattr(tokenizer, "chat_template", None)
    said = [words, list(tokenizer(_MADE_UP)["input_ids"]), template]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _labels(model: nn.Module) -> str:
    config = getattr(model, "config", None)
    names = {str(at): name for at, name in (getattr(config, "id2label", None) or {}).items()}
    return hashlib.sha256(json.dumps(names, sort_keys=True).encode()).hexdigest()


def to_record(arrays: Mapping[str, npt.NDArray[np.float32]]) -> ArrayRecord:
    """The arrays as Flower sends them."""
    return ArrayRecord({name: Array(np.ascontiguousarray(a)) for name, a in arrays.items()})


def from_record(record: ArrayRecord, *, like: Mapping[str, npt.NDArray[np.float32]]) -> Arrays:
    """Read what came over the wire, trusting nothing about it.

    Raises:
        ConfigurationError: other names, shapes or types than `like`, or a number that is not
            finite or beyond ±10⁶.
    """
    if set(record) != set(like):
        raise ConfigurationError(
            f"the arrays are {len(record)} with other names than the {len(like)} agreed; "
            "give server and clients the same model and lora settings"
        )
    arrays: Arrays = {}
    for name, expected in like.items():
        described = record[name]
        values = read_array(name, described)
        if values.shape != expected.shape or values.dtype != np.float32:
            raise ConfigurationError(
                f"{name} has shape {values.shape} and type {values.dtype}; agreed are "
                f"{expected.shape} and float32"
            )
        if not np.isfinite(values).all():
            raise ConfigurationError(f"{name} holds numbers that are not finite")
        if values.size and float(np.abs(values).max()) > LARGEST:
            raise ConfigurationError(
                f"{name} holds numbers beyond ±{LARGEST:g}, whose products with others overflow"
            )
        arrays[name] = values
    return arrays


def flat(arrays: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float64]:
    """All numbers as one float64 vector, in the order of the names."""
    return np.concatenate([np.asarray(arrays[n], dtype=np.float64).ravel() for n in sorted(arrays)])


def unflat(
    vector: npt.NDArray[np.float64], *, like: Mapping[str, npt.NDArray[np.float32]]
) -> Arrays:
    """The arrays of which `flat` made `vector`."""
    arrays: Arrays = {}
    start = 0
    for name in sorted(like):
        size = like[name].size
        arrays[name] = vector[start : start + size].reshape(like[name].shape).astype(np.float32)
        start += size
    return arrays


def digest_of(arrays: Mapping[str, npt.NDArray[np.float32]]) -> str:
    """SHA-256 over names and numbers."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + b"\0" + arrays[name].tobytes())
    return digest.hexdigest()


def read_array(name: str, described: Array) -> npt.NDArray[Any]:
    """Read one array of numbers from bytes that somebody else chose.

    They are one whole `.npy` of version 1.0 in C order and nothing beside it: no archive, no
    pickle, and no shape that says more than the bytes hold, for which memory would be reserved.

    Raises:
        ConfigurationError: they are anything else.
    """
    if described.stype != "numpy.ndarray":
        raise ConfigurationError(
            f"{name[:80]} came as {described.stype[:80]}, not as a numpy array"
        )
    file = io.BytesIO(described.data)
    try:
        if read_magic(file) != (1, 0):
            raise ValueError("another version")
        shape, turned, kind = read_array_header_1_0(file)
        size = math.prod(shape) * kind.itemsize
        if turned or kind.kind not in "iuf" or len(described.data) - file.tell() != size:
            raise ValueError("other bytes than it says")
        found = np.frombuffer(described.data, dtype=kind, offset=file.tell())
        return found.reshape(shape).copy()
    except Exception as error:  # whoever sent it chose the bytes
        raise ConfigurationError(f"{name[:80]} cannot be read as an array of numbers") from error
