"""A compressed update as it crosses the wire, and as whole numbers that can be added."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dpacc.errors import ConfigurationError
from dpacc.federated.updates.compression import Compression, PublicCoins, require_summable

BLOCK = 1024
"""Numbers that share one scale."""

Vector: TypeAlias = npt.NDArray[np.float32]
Sent: TypeAlias = dict[str, npt.NDArray[Any]]
"""What crosses the wire, by name: `codes` or `values`, and where needed `scales` and `places`."""


def compress(vector: Vector, *, compression: Compression, coins: PublicCoins) -> Sent:
    """What is sent of the difference `vector`.

    >>> coins = PublicCoins(run="r", number=1, client="a")
    >>> sent = compress(np.float32([4, -1, 0.5, 3]), coins=coins,
    ...                 compression=Compression(keep=0.5))
    >>> sent["values"].tolist(), sent["places"].tolist()
    ([4.0, 3.0], [144])
    """
    count = len(vector)
    places = _places(vector, compression, coins)
    values = compression.gain(count) * vector[places].astype(np.float64)
    sent: Sent = {}
    if compression.bits == 32:
        sent["values"] = values.astype(np.float32)
    else:
        scales = _scales(values.astype(np.float32), compression)
        codes = _rounded(values, scales, compression, coins)
        sent["codes"] = codes.astype(np.int8) if compression.bits == 8 else _packed(codes)
        if compression.limit is None:
            sent["scales"] = scales
    if compression.sends_places:
        sent["places"] = _written(places, count)
    return sent


def decompress(
    sent: Mapping[str, npt.NDArray[Any]],
    *,
    compression: Compression,
    count: int,
    coins: PublicCoins,
) -> npt.NDArray[np.float64]:
    """The `count` numbers that `sent` stands for; it comes over the wire and is not trusted.

    Raises:
        ConfigurationError: it is not what `compress` writes.
    """
    expected = expected_arrays(compression, count=count)
    _require(
        {n: (a.dtype, a.shape) for n, a in sent.items()} == expected,
        "the compressed update has other arrays than those agreed: give server and client the "
        "same version and settings",
    )
    if compression.sends_places:
        places = _read_places(sent["places"], count, compression.kept(count))
    elif compression.keep < 1:
        places = coins.places(compression, count)
    else:
        places = np.arange(count)
    if compression.bits == 32:
        values = sent["values"].astype(np.float64)
    else:
        codes = _codes(sent["codes"], compression, len(places))
        values = codes * _spacing(_read_scales(sent, compression, len(places)), compression, codes)
    _require(bool(np.isfinite(values).all()), "the compressed update holds numbers not finite")
    whole = np.zeros(count)
    whole[places] = values
    return whole


def to_integers(
    vector: Vector, *, compression: Compression, coins: PublicCoins
) -> npt.NDArray[np.int64]:
    """The codes of `vector`, at most 127 or 7 in size, for a sum over clients.

    Raises:
        ConfigurationError: the compression is not summable.
    """
    require_summable(compression)
    places = _places(vector, compression, coins)
    values = compression.gain(len(vector)) * vector[places].astype(np.float64)
    return _rounded(values, _scales(vector, compression), compression, coins)


def from_integer_sum(
    total: npt.NDArray[np.int64],
    *,
    compression: Compression,
    count: int,
    clients: int,
    coins: PublicCoins,
) -> npt.NDArray[np.float64]:
    """The mean difference of `clients` clients, from the sum of their `to_integers`.

    Raises:
        ConfigurationError: the compression is not summable, or `total` cannot be such a sum.
    """
    require_summable(compression)
    most, kept = clients * compression.levels, compression.kept(count)
    _require(
        total.shape == (kept,) and int(np.abs(total).max(initial=0)) <= most,
        f"a sum of {clients} updates holds {kept} numbers of at most {most} in size",
    )
    assert compression.limit is not None
    whole = np.zeros(count)
    places = coins.places(compression, count) if compression.keep < 1 else np.arange(count)
    whole[places] = total * (compression.limit / compression.levels / clients)
    return whole


def error_bound(vector: Vector, *, compression: Compression) -> float:
    """The most that E‖decompress(compress(x)) − x‖² can be, for |x| ≤ limit.

    With m the largest |x|, or the limit, L = 127 or 7, and g = n/k for random places, else 1:
    rounding adds at most k·(g·m/L)²/4; random places add (n/k − 1)·‖x‖², the largest ones the sum
    of the squares that are left out.

    >>> error_bound(np.float32([3, 4]), compression=Compression(keep=0.5, selection="random"))
    25.0
    """
    count, square = len(vector), np.square(vector.astype(np.float64))
    kept, gain = compression.kept(count), compression.gain(count)
    missed = (gain - 1) * float(square.sum())
    if compression.sends_places:
        missed = float(np.sort(square)[: count - kept].sum())
    if compression.bits == 32:
        return missed
    largest = gain * float(np.abs(vector).max(initial=0.0))
    if compression.limit is not None:
        largest = compression.limit
    return missed + kept * (largest / compression.levels) ** 2 / 4


def payload_bytes(compression: Compression | None, *, count: int) -> int:
    """Bytes of an update of `count` numbers, without the frame that Flower puts around it.

    >>> payload_bytes(None, count=1024), payload_bytes(Compression(bits=8), count=1024)
    (4096, 1028)
    """
    if compression is None:
        return 4 * count
    arrays = expected_arrays(compression, count=count).values()
    return sum(kind.itemsize * shape[0] for kind, shape in arrays)


def expected_arrays(
    compression: Compression, *, count: int
) -> dict[str, tuple[np.dtype[Any], tuple[int]]]:
    """Type and shape of each array of `Sent`, which data decide nothing of."""
    kept = compression.kept(count)
    found: dict[str, tuple[type, int]] = {"values": (np.float32, kept)}
    if compression.bits < 32:
        found = {"codes": (np.int8, kept) if compression.bits == 8 else (np.uint8, -(-kept // 2))}
        if compression.limit is None:
            found["scales"] = (np.float32, -(-kept // BLOCK))
    if compression.sends_places:
        one_bit_each = _as_bits(kept, count)
        found["places"] = (np.uint8, -(-count // 8)) if one_bit_each else (np.uint32, kept)
    return {name: (np.dtype(kind), (size,)) for name, (kind, size) in found.items()}


def _places(vector: Vector, compression: Compression, coins: PublicCoins) -> npt.NDArray[np.int64]:
    if compression.keep == 1:
        return np.arange(len(vector))
    if compression.selection == "random":
        return coins.places(compression, len(vector))
    order = np.argsort(-np.abs(vector), kind="stable")
    return np.sort(order[: compression.kept(len(vector))])


def _scales(values: Vector, compression: Compression) -> Vector:
    """The largest of each block, or the public limit."""
    if compression.limit is not None:
        return np.full(-(-len(values) // BLOCK), compression.limit, np.float32)
    starts = np.arange(0, len(values), BLOCK)
    return np.asarray(np.maximum.reduceat(np.abs(values), starts), dtype=np.float32)


def _spacing(
    scales: npt.NDArray[Any], compression: Compression, like: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """Δ of each number."""
    if compression.limit is not None:
        return np.full(len(like), compression.limit / compression.levels)
    each = scales.astype(np.float64) / compression.levels
    return np.repeat(each, BLOCK)[: len(like)]


def _rounded(
    values: npt.NDArray[np.float64], scales: Vector, compression: Compression, coins: PublicCoins
) -> npt.NDArray[np.int64]:
    levels, spacing = compression.levels, _spacing(scales, compression, values)
    turned = np.divide(values, spacing, out=np.zeros_like(values), where=spacing > 0)
    codes = np.floor(np.clip(turned, -levels, levels) + coins.rounding(len(values)))
    return np.clip(codes, -levels, levels).astype(np.int64)


def _packed(codes: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Two codes a byte, each plus 8; what is left over is 8, a code of zero."""
    raised = np.full(2 * (-(-len(codes) // 2)), 8, np.uint8)
    raised[: len(codes)] += codes.astype(np.int8).view(np.uint8)
    return np.asarray(raised[::2] | raised[1::2] << 4, dtype=np.uint8)


def _codes(sent: npt.NDArray[Any], compression: Compression, count: int) -> npt.NDArray[np.int64]:
    if compression.bits == 8:
        codes = sent.astype(np.int64)
    else:
        codes = np.stack([sent & 15, sent >> 4], axis=1).ravel().astype(np.int64) - 8
        _require(not codes[count:].any(), "the compressed update has a code too many")
    _require(
        bool((np.abs(codes) <= compression.levels).all()),
        f"the compressed update has a code beyond ±{compression.levels}",
    )
    return codes[:count]


def _read_scales(
    sent: Mapping[str, npt.NDArray[Any]], compression: Compression, count: int
) -> Vector:
    if compression.limit is not None:
        return np.full(-(-count // BLOCK), compression.limit, np.float32)
    scales = sent["scales"]
    good = np.isfinite(scales) & (scales >= 0)
    _require(bool(good.all()), "the compressed update has a scale that is no finite number from 0")
    return scales


def _as_bits(kept: int, count: int) -> bool:
    return 32 * kept > count


def _written(places: npt.NDArray[np.int64], count: int) -> npt.NDArray[Any]:
    """A bit for each number, or 32 bits for each place, whichever is less."""
    if not _as_bits(len(places), count):
        return places.astype(np.uint32)
    bits = np.zeros(count, np.uint8)
    bits[places] = 1
    return np.packbits(bits)


def _read_places(written: npt.NDArray[Any], count: int, kept: int) -> npt.NDArray[np.int64]:
    if _as_bits(kept, count):
        bits = np.unpackbits(written)
        _require(not bits[count:].any(), "the compressed update names a place beyond the last")
        places = np.flatnonzero(bits[:count]).astype(np.int64)
    else:
        places = written.astype(np.int64)
    right = len(places) == kept and bool((np.diff(places) > 0).all()) and int(places[-1]) < count
    _require(right, f"the compressed update does not name {kept} of {count} places in order")
    return places


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigurationError(message)
