"""The two questions of a sketching round, as messages."""

from __future__ import annotations

from flwr.app import ConfigRecord, Message, RecordDict

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.factors import Factors
from dpacc.federated.aggregation.sketches import Sketching
from dpacc.federated.updates.layout import Arrays, from_record, to_record

SKETCH = "sketch-size"
"""The entry of a request that asks for sketches instead of adapters."""


def read_sketching(config: ConfigRecord, factors: tuple[Factors, ...]) -> Sketching | None:
    """The sketches that a request asks for, or None.

    Raises:
        ConfigurationError: their size is senseless.
    """
    size = config.get(SKETCH)
    if size is None:
        return None
    return Sketching(
        factors=factors,
        size=size,  # type: ignore[arg-type]  # checked there
        run=str(config["run"]),
        number=int(str(config["server-round"])),
    )


def answer_second(content: RecordDict, *, sketching: Sketching, update: Arrays) -> RecordDict:
    """What a client sends of the update that it sketched before.

    Raises:
        ConfigurationError: the bases are malformed.
    """
    bases = from_record(content.array_records["arrays"], like=sketching.bases_like())
    return RecordDict({"arrays": to_record(sketching.second(update, bases))})


def read_second(reply: Message, sketching: Sketching) -> Arrays:
    """What a client sent then, trusting nothing about it.

    Raises:
        ConfigurationError: nothing, or not what was agreed.
    """
    if reply.has_error() or "arrays" not in reply.content.array_records:
        raise ConfigurationError("no second answer")
    return from_record(reply.content.array_records["arrays"], like=sketching.second_like())
