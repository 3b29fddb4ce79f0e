"""What crosses the network in one logical step, and how long all of it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dpacc.planning.memory import Placement
from dpacc.recipe.settings import WireFormat

_BYTES_OF_SUM: dict[WireFormat, float] = {"fp32": 4.0, "bf16": 2.0}


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What the machine keeps up, in reality and not on paper.

    Attributes:
        operations: floating-point operations a second of one device.
        network: bytes a second that one rank sends.
    """

    operations: float
    network: float


def sent_bytes(
    *,
    trainable: int,
    base_bytes: int,
    placement: Placement,
    ranks: int,
    wire: WireFormat,
    discrete: bool = False,
    micro_batches: int = 1,
    strategy: Literal["materialize", "ghost"] = "materialize",
) -> int:
    """Bytes that one rank sends in a logical step, by rings: (n−1)/n of what crosses.

    The clipped sum crosses once, reduced in 4 bytes an element (8 as whole numbers) and gathered
    in 4 or 2. ZeRO gathers the updated adapters. A base that is cut is gathered for the forward and
    for each backward of every micro-batch.

    >>> sent_bytes(trainable=1000, base_bytes=0, placement="whole", ranks=2, wire="fp32")
    4000
    >>> sent_bytes(trainable=1000, base_bytes=0, placement="whole", ranks=2, wire="bf16")
    3000
    """
    there, back = (8.0, 8.0) if discrete else (4.0, _BYTES_OF_SUM[wire])
    crossing = trainable * (there + back)
    if placement in ("zero2", "zero3"):
        crossing += 4 * trainable
    if placement in ("zero3", "fsdp2"):
        crossing += (3 if strategy == "ghost" else 2) * micro_batches * base_bytes
    return round(crossing * (ranks - 1) / ranks)


def seconds(*, operations: int, sent: int, rates: Rates) -> float:
    """Arithmetic, then communication; nothing overlaps, which is to the safe side.

    >>> seconds(operations=10**12, sent=10**9, rates=Rates(operations=1e12, network=1e9))
    2.0
    """
    return operations / rates.operations + sent / rates.network
