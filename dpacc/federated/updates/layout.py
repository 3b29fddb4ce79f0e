"""Adapters as Flower carries them: named fp32 arrays of one agreed layout."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import Array, ArrayRecord
from numpy.lib.format import read_array_header_1_0, read_magic
from torch import nn

from dpacc.errors import ConfigurationError

Arrays: TypeAlias = dict[str, npt.NDArray[np.float32]]

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


def layout_hash(model: nn.Module) -> str:
    """SHA-256 over what averaging takes for granted: names, shapes, and every frozen adapter's A.

    Adapters of different layouts, or of a different A, must never be averaged.
    """
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
